"""From logits to a token for one row: penalties, grammar, guard, sampler, in this order.

Owns the composition and the count of masked favourites; changes no context. The *favourite* of a row is the token
that would be taken without any mask; if the guard alone forbids it, that is reported with the rule.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from aios.abi.chat import TokenLogprob
from aios.abi.core import Masked
from aios.engine import masks, sampler
from aios.engine.batching import Grant
from aios.engine.context import Context, Turn
from aios.engine.grammar import Lexicon, PendingGrammar
from aios.engine.masks import MaskFault, Restriction


class Choice(NamedTuple):
    """What one row took: its token, or None where nothing was allowed."""

    token: int | None
    masked: Masked | None = None
    logprob: TokenLogprob | None = None


class Rows(Protocol):
    """The rows of one step that sample, between their logits and their choices."""

    def choose(self, context: Context, turn: Turn, index: int) -> Choice:
        """Choose the token after the last one of `context` by row `index`, which is spent."""
        ...


class Chooser(Protocol):
    """Chooses tokens for turns."""

    @property
    def num_masked(self) -> int:
        """Favourites that the guard alone forbade, so far."""
        ...

    def look(self, grants: Sequence[Grant], logits: Tensor) -> Rows:
        """Take the logits of a step, [rows, vocab], in the order of `assemble`."""
        ...


class _Row(NamedTuple):
    """One row between its logits and its choice; most are chosen by the favourite, without a look at the rest."""

    turn: Turn
    logits: Tensor
    place: int
    favourite: int
    restriction: Restriction | MaskFault | None

    @property
    def is_dead_end(self) -> bool:
        """Whether nothing may be taken."""
        fault = isinstance(self.restriction, MaskFault)
        return fault or (isinstance(self.restriction, Restriction) and self.restriction.is_dead_end)


class HostChooser:
    """Chooses row by row, as each is asked for."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self.num_masked = 0
        """Favourites that the guard alone forbade, so far."""

    def look(self, grants: Sequence[Grant], logits: Tensor) -> "_HostRows":
        """Find the favourite of every row."""
        return _HostRows(self, logits, sampler.favourites(logits) if len(logits) else [])

    def choose(self, context: Context, turn: Turn, logits: Tensor, index: int, favourite: int) -> Choice:
        """Choose the token after the last one of `context`.

        Row `index` of `logits`, [rows, vocab], is its own; it is spent. `favourite`: the best token of that row.
        """
        sampling = turn.sampling
        found = sampler.logprobs(logits[index], sampling.logprobs) if sampling.logprobs else None
        if sampling.repetition_penalty != 1:
            sampler.penalise(logits[index], turn.seen.of(context.tokens), sampling.repetition_penalty)
            (favourite,) = sampler.favourites(logits[index : index + 1])
        row = _Row(turn, logits, index, favourite, self._restrict(turn, favourite))
        token = None if row.is_dead_end else _pick(row)
        masked = self._masked(row, token)
        if token is None or found is None:
            return Choice(token, masked)
        return Choice(
            token,
            masked,
            TokenLogprob(token=token, text=text_of(self._lexicon, token), logprob=found.of(token), top=found.top),
        )

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
        return report(self._lexicon, row.turn, row.favourite, row.restriction.blamed, token)


def report(lexicon: Lexicon, turn: Turn, favourite: int, rule: str, taken: int | None) -> Masked:
    """Tell that `rule` alone kept a turn from its favourite."""
    assert turn.mask is not None
    return Masked(
        token=favourite,
        token_text=text_of(lexicon, favourite),
        rule=rule,
        taken_text="" if taken is None else text_of(lexicon, taken),
        version=turn.mask.version,
    )


def text_of(lexicon: Lexicon, token: int) -> str:
    """Return a token as people read it."""
    return lexicon.token_bytes[token].decode("utf-8", "replace")


class _HostRows(NamedTuple):
    chooser: HostChooser
    logits: Tensor
    favourites: Sequence[int]

    def choose(self, context: Context, turn: Turn, index: int) -> Choice:
        return self.chooser.choose(context, turn, self.logits, index, self.favourites[index])


def _pick(row: _Row) -> int:
    restriction, sampling = row.restriction, row.turn.sampling
    bits = restriction.bits if isinstance(restriction, Restriction) else None
    # the best of all tokens is the best of the allowed ones if it is allowed
    if sampling.temperature == 0 and (bits is None or masks.allows(bits, row.favourite)):
        return row.favourite
    logits = row.logits[row.place]
    if bits is not None and sampling.temperature == 0:
        return masks.best(logits, bits)
    if bits is not None:
        masks.forbid(logits, bits)
    return sampler.choose(logits, sampler.Draw(sampling, len(row.turn.generated)))
