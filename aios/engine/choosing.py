"""From logits to tokens for the rows of one step: penalties, grammar, guard, sampler, in this order.

Owns the composition and the count of masked favourites; changes no context. The *favourite* of a row is the token
that would be taken without any mask; if the guard alone forbids it, that is reported with the rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from aios.abi.chat import TokenLogprob
from aios.abi.core import Masked
from aios.engine import masks, sampler
from aios.engine.context import Context, Turn
from aios.engine.grammar import Lexicon, PendingGrammar
from aios.engine.masks import MaskFault, Restriction


class Choice(NamedTuple):
    """What one row took: its token, or None where nothing was allowed."""

    token: int | None
    masked: Masked | None = None
    logprob: TokenLogprob | None = None


class _Row(NamedTuple):
    """One row between its logits and its choice."""

    turn: Turn
    logits: Tensor
    favourite: int
    restriction: Restriction | MaskFault | None
    logprobs: sampler.Logprobs | None

    @property
    def is_dead_end(self) -> bool:
        """Whether nothing may be taken."""
        fault = isinstance(self.restriction, MaskFault)
        return fault or (isinstance(self.restriction, Restriction) and self.restriction.is_dead_end)


class Chooser:
    """Chooses tokens for turns."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self.num_masked = 0
        """Favourites that the guard alone forbade."""

    def choose(self, contexts: Sequence[Context], logits: Tensor) -> list[Choice]:
        """Choose for contexts at the end of their tokens; `logits`, [contexts, vocab], are spent."""
        turns = [_turn(context) for context in contexts]
        logprobs = [_logprobs(turn, row) for turn, row in zip(turns, logits.unbind(), strict=True)]
        for context, turn, row in zip(contexts, turns, logits.unbind(), strict=True):
            if turn.sampling.repetition_penalty != 1:
                sampler.penalise(row, set(context.tokens), turn.sampling.repetition_penalty)
        favourites: list[int] = logits.argmax(dim=-1).tolist()
        return [
            self._choice(_Row(turn, row, favourite, self._restrict(turn, favourite), found))
            for turn, row, favourite, found in zip(turns, logits.unbind(), favourites, logprobs, strict=True)
        ]

    def text(self, token: int) -> str:
        """Return a token as people read it."""
        return self._lexicon.token_bytes[token].decode("utf-8", "replace")

    def _restrict(self, turn: Turn, favourite: int) -> Restriction | MaskFault | None:
        assert not isinstance(turn.grammar, PendingGrammar)
        try:
            return masks.restrict(turn.grammar, turn.mask, vocab=self._lexicon.vocab_size, favourite=favourite)
        except MaskFault as fault:
            return fault

    def _choice(self, row: _Row) -> Choice:
        token = None if row.is_dead_end else _pick(row)
        masked = self._masked(row, token)
        if token is None or row.logprobs is None:
            return Choice(token, masked)
        found = row.logprobs
        entry = TokenLogprob(token=token, text=self.text(token), logprob=found.of(token), top=found.top)
        return Choice(token, masked, entry)

    def _masked(self, row: _Row, token: int | None) -> Masked | None:
        if not isinstance(row.restriction, Restriction) or row.restriction.blamed is None or row.turn.mask is None:
            return None
        self.num_masked += 1
        return Masked(
            token=row.favourite,
            token_text=self.text(row.favourite),
            rule=row.restriction.blamed,
            taken_text="" if token is None else self.text(token),
            version=row.turn.mask.version,
        )


def _pick(row: _Row) -> int:
    if isinstance(row.restriction, Restriction):
        masks.forbid(row.logits, row.restriction.bits)
    elif row.turn.sampling.temperature == 0:
        return row.favourite
    return sampler.choose(row.logits, sampler.Draw(row.turn.sampling, len(row.turn.generated)))


def _logprobs(turn: Turn, logits: Tensor) -> sampler.Logprobs | None:
    return sampler.logprobs(logits, turn.sampling.logprobs) if turn.sampling.logprobs else None


def _turn(context: Context) -> Turn:
    assert context.turn is not None
    return context.turn
