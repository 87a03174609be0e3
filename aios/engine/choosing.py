"""From logits to a token for one row: penalties, grammar, guard, sampler, in this order.

Owns the composition and the count of masked favourites; changes no context. The *favourite* of a row is the token
that would be taken without any mask; if the guard alone forbids it, that is reported with the rule.
"""

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

    def choose(self, context: Context, turn: Turn, logits: Tensor, favourite: int) -> Choice:
        """Choose the token after the last one of `context`; `logits`, [vocab], with their best token, are spent."""
        sampling = turn.sampling
        found = sampler.logprobs(logits, sampling.logprobs) if sampling.logprobs else None
        if sampling.repetition_penalty != 1:
            sampler.penalise(logits, set(context.tokens), sampling.repetition_penalty)
            (favourite,) = sampler.favourites(logits[None])
        row = _Row(turn, logits, favourite, self._restrict(turn, favourite))
        token = None if row.is_dead_end else _pick(row)
        masked = self._masked(row, token)
        if token is None or found is None:
            return Choice(token, masked)
        return Choice(
            token, masked, TokenLogprob(token=token, text=self.text(token), logprob=found.of(token), top=found.top)
        )

    def text(self, token: int) -> str:
        """Return a token as people read it."""
        return self._lexicon.token_bytes[token].decode("utf-8", "replace")

    def _restrict(self, turn: Turn, favourite: int) -> Restriction | MaskFault | None:
        assert not isinstance(turn.grammar, PendingGrammar)
        if turn.grammar is None and turn.mask is None:
            return None
        try:
            return masks.restrict(turn.grammar, turn.mask, vocab=self._lexicon.vocab_size, favourite=favourite)
        except MaskFault as fault:
            return fault

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
    restriction, sampling = row.restriction, row.turn.sampling
    if not isinstance(restriction, Restriction):
        if sampling.temperature == 0:
            return row.favourite
    elif sampling.temperature == 0:
        # the best of all tokens is the best of the allowed ones if it is allowed
        return (
            row.favourite if masks.allows(restriction.bits, row.favourite) else masks.best(row.logits, restriction.bits)
        )
    else:
        masks.forbid(row.logits, restriction.bits)
    return sampler.choose(row.logits, sampler.Draw(sampling, len(row.turn.generated)))
