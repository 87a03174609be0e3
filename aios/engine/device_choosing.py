"""Choosing where the logits are: all rows of a step together, on the device, so that no logits cross to the host.

Owns what goes down (masks, penalties, temperatures, random numbers) and what comes back (a token and a favourite a
row, log-probabilities where they were asked for). Nothing here waits until a row is asked for its choice, so grammars
and guard fill their masks while the device still computes the logits.

Equal to the choice on the host: greedy tokens, favourites, what is forbidden and who is blamed for it. A random row
uses the same number, a function of (seed, position), on the same float64 weights, but these are added up in another
order: where the number falls within rounding on the border of two tokens, or where equal logits stand at the edge of
`top_k`, the host may take the neighbour.

A draft's later rows need masks and penalties that depend on its earlier tokens; such rows are chosen one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aios.abi.chat import TokenLogprob
from aios.abi.core import Masked
from aios.engine import masks, sampler
from aios.engine.batching import Grant
from aios.engine.choosing import Choice, report, text_of
from aios.engine.context import Context, Turn
from aios.engine.grammar import Lexicon, PendingGrammar
from aios.engine.masks import Allowed, MaskFault
from aios_kernels.mask_sample import mask_sample, ranked_sample


@dataclass(frozen=True, slots=True)
class Ask:
    """One row that wants a token."""

    context: Context
    turn: Turn
    index: int
    """Of its logits."""
    position: int
    """Completion tokens before this one."""
    allowed: Allowed | MaskFault | None

    @property
    def is_ranked(self) -> bool:
        """Whether its draw needs the tokens in order of preference."""
        sampling = self.turn.sampling
        return sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)

    @property
    def is_dead_end(self) -> bool:
        """Whether nothing may be taken."""
        return isinstance(self.allowed, MaskFault) or (self.allowed is not None and not self.allowed.bits.any())


@dataclass(frozen=True, slots=True)
class Found:
    """What came back for a row."""

    token: int
    favourite: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


def is_plain(turn: Turn) -> bool:
    """Whether a turn's choice depends on its logits and its position, but on no token before it."""
    return turn.grammar is None and turn.mask is None and turn.sampling.repetition_penalty == 1


class Landing:
    """A tensor on its way to the host."""

    def __init__(self, there: Tensor) -> None:
        self._here, self._copied = there, None
        if there.is_cuda:
            self._here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            self._here.copy_(there, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> list[list[float]]:
        """Wait for it and return its rows."""
        if self._copied is not None:
            self._copied.synchronize()
        rows: list[list[float]] = self._here.tolist()
        return rows


class Picks:
    """Choices under way on the device; implements `aios.engine.choosing.Rows`."""

    def __init__(
        self, chooser: "DeviceChooser", logits: Tensor, asks: Sequence[Ask | None], made: "_Made | None"
    ) -> None:
        self._chooser, self._logits, self._asks, self._made = chooser, logits, asks, made

    @property
    def tokens(self) -> Tensor:
        """Tokens of the rows on the device, int32 [rows], none of which had to wait for another."""
        made, indices = self._made, [ask.index for ask in self._asks if ask is not None]
        assert made is not None and len(indices) == len(self._asks)
        if indices == list(range(len(made.tokens))):
            return made.tokens
        return made.tokens.index_select(0, self._chooser.down(indices, np.int64))

    def only(self, rows: Sequence[int]) -> "Picks":
        """Return the choices of some rows, numbered anew."""
        return Picks(self._chooser, self._logits, [self._asks[row] for row in rows], self._made)

    def choose(self, context: Context, turn: Turn, index: int) -> Choice:
        """Say what a row took; a row that had to wait for another chooses now."""
        ask, made = self._asks[index], self._made
        if ask is None:
            ask = self._chooser.ask(context, turn, index)
            made = self._chooser.pick([ask], self._logits)
        assert made is not None
        return self._chooser.choice(ask, made.read()[ask.index])


class _Made:
    """The result of one launch."""

    def __init__(self, asks: Sequence[Ask], tokens: Tensor, favourites: Tensor, logprobs: Tensor | None) -> None:
        self.tokens = tokens
        self._asks = asks
        self._chosen = Landing(torch.stack((tokens, favourites), dim=1))
        self._logprobs = None if logprobs is None else Landing(logprobs)
        self._found: dict[int, Found] = {}

    def read(self) -> Mapping[int, Found]:
        """Wait for the device; return what rows found, by the index of their logits."""
        if not self._found:
            chosen = self._chosen.read()
            logprobs = [[]] * len(chosen) if self._logprobs is None else self._logprobs.read()
            for ask, row, more in zip(self._asks, chosen, logprobs, strict=True):
                self._found[ask.index] = _found(ask, row, more)
        return self._found


def _found(ask: Ask, chosen: Sequence[float], logprobs: Sequence[float]) -> Found:
    token, favourite = map(int, chosen)
    wanted = ask.turn.sampling.logprobs
    if not wanted:
        return Found(token, favourite)
    own, *best = logprobs
    ids, values = best[: len(best) // 2], best[len(best) // 2 :]
    return Found(token, favourite, own, tuple(zip(map(int, ids[:wanted]), values[:wanted], strict=True)))


class DeviceChooser:
    """Implements `aios.engine.choosing.Chooser` for logits, [rows, vocab], on `device`.

    Chooses once at the beginning, so that nothing has to be compiled while somebody waits.
    """

    def __init__(self, lexicon: Lexicon, device: torch.device, *, vocab: int) -> None:
        self._lexicon, self._device, self._words = lexicon, device, -(-vocab // 32)
        self.num_masked = 0
        """Favourites that the guard alone forbade, so far."""
        one = torch.ones(1, dtype=torch.float64, device=device)
        mask_sample(torch.zeros((1, vocab), device=device), self._unmasked(1), one, one / 2)

    def look(self, grants: Sequence[Grant], logits: Tensor, *, ahead: int = 0) -> Picks:
        """Give the choices of a step to the device. `ahead`: tokens of each context that were chosen but not read."""
        asks: list[Ask | None] = []
        for grant in grants:
            turn = grant.context.turn
            assert turn is not None
            for place in range(len(grant.draft) + 1) if grant.samples else ():
                is_known = place == 0 or is_plain(turn)
                asks.append(self.ask(grant.context, turn, len(asks), place + ahead) if is_known else None)
        known = [ask for ask in asks if ask is not None]
        return Picks(self, logits, asks, self.pick(known, logits) if known else None)

    def ask(self, context: Context, turn: Turn, index: int, place: int = 0) -> Ask:
        """Say what a row may take `place` tokens behind the last one that was read."""
        return Ask(context, turn, index, len(turn.generated) + place, self._allowed(turn))

    def pick(self, asks: Sequence[Ask], logits: Tensor) -> _Made:
        """Choose for some rows; logits that penalties change are spent."""
        rows = logits if len(asks) == len(logits) else logits[self.down([ask.index for ask in asks], np.int64)]
        wanted = max(ask.turn.sampling.logprobs for ask in asks)
        values = torch.log_softmax(rows, dim=-1) if wanted else None
        self._penalise(asks, rows)
        tokens, favourites = self._choose(asks, rows)
        return _Made(asks, tokens, favourites, None if values is None else _best(values, tokens, wanted))

    def choice(self, ask: Ask, found: Found) -> Choice:
        """Say what a row took, and what the guard kept it from."""
        try:
            token = None if ask.is_dead_end else found.token
            masked = self._masked(ask, found.favourite, token)
        except MaskFault:
            token, masked = None, None
        if token is None or not ask.turn.sampling.logprobs:
            return Choice(token, masked)
        text = text_of(self._lexicon, token)
        return Choice(token, masked, TokenLogprob(token=token, text=text, logprob=found.logprob, top=found.top))

    def down(self, values: object, dtype: type[np.generic]) -> Tensor:
        """Give numbers to the device without waiting for it."""
        host = torch.from_numpy(np.asarray(values, dtype=dtype))
        return host.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else host

    # --- what goes down ------------------------------------------------------------------------------------

    def _allowed(self, turn: Turn) -> Allowed | MaskFault | None:
        assert not isinstance(turn.grammar, PendingGrammar)
        try:
            return masks.allowed(turn.grammar, turn.mask, vocab=self._lexicon.vocab_size)
        except MaskFault as fault:
            return fault

    def _masked(self, ask: Ask, favourite: int, token: int | None) -> Masked | None:
        if not isinstance(ask.allowed, Allowed):
            return None
        rule = masks.blamed(ask.allowed, ask.turn.mask, favourite)
        if rule is None:
            return None
        self.num_masked += 1
        return report(self._lexicon, ask.turn, favourite, rule, token)

    def _penalise(self, asks: Sequence[Ask], logits: Tensor) -> None:
        """Make tokens that occurred less likely; see `aios.engine.sampler.penalise`."""
        rows: list[int] = []
        seen: list[int] = []
        factors: list[float] = []
        for row, ask in enumerate(asks):
            penalty = ask.turn.sampling.repetition_penalty
            if penalty != 1:
                tokens = sorted(ask.turn.seen.of(ask.context.tokens))
                rows += [row] * len(tokens)
                seen += tokens
                factors += [penalty] * len(tokens)
        if rows:
            at = self.down(rows, np.int64), self.down(seen, np.int64)
            picked, penalties = logits[at], self.down(factors, np.float32)
            logits[at] = torch.where(picked > 0, picked / penalties, picked * penalties)

    def _choose(self, asks: Sequence[Ask], logits: Tensor) -> tuple[Tensor, Tensor]:
        samplings = [ask.turn.sampling for ask in asks]
        heats = [sampling.temperature for sampling in samplings]
        numbers = [_uniform(ask) for ask in asks]
        temperatures, uniforms = self.down(heats, np.float64), self.down(numbers, np.float64)
        bits = self._bits(asks)
        tokens, favourites = mask_sample(logits, bits, temperatures, uniforms)
        ranked = [row for row, ask in enumerate(asks) if ask.is_ranked]
        if ranked:
            rows = self.down(ranked, np.int64)
            tops = self.down([samplings[row].top_k for row in ranked], np.int64)
            shares = self.down([samplings[row].top_p for row in ranked], np.float64)
            some = logits[rows], bits[rows], temperatures[rows], uniforms[rows]
            drawn = ranked_sample(*some, top_k=tops, top_p=shares)
            tokens = tokens.index_copy(0, rows, drawn)
        return tokens, favourites

    def _unmasked(self, rows: int) -> Tensor:
        return torch.full((rows, self._words), -1, dtype=torch.int32, device=self._device)

    def _bits(self, asks: Sequence[Ask]) -> Tensor:
        """Return the masks as int32 [rows, words]; most steps have none."""
        restricted = [(row, ask.allowed) for row, ask in enumerate(asks) if isinstance(ask.allowed, Allowed)]
        if not restricted:
            return self._unmasked(len(asks))
        bits = np.full((len(asks), self._words), 2**32 - 1, dtype=np.uint32)
        for row, found in restricted:
            bits[row] = 0  # what the model has beyond the vocabulary
            bits[row, : len(found.bits)] = found.bits
        return self.down(bits.view(np.int32), np.int32)


def _best(values: Tensor, tokens: Tensor, wanted: int) -> Tensor:
    """Return float64 [rows, 1 + 2 * wanted]: of the token taken, then the best ids and theirs."""
    own = values.gather(1, tokens.long().clamp(min=0)[:, None])
    best = values.topk(wanted)
    return torch.cat((own.double(), best.indices.double(), best.values.double()), dim=1)


def _uniform(ask: Ask) -> float:
    sampling = ask.turn.sampling
    return sampler.uniform(sampling.seed, ask.position) if sampling.temperature > 0 else 0.0
