"""Bit masks over the vocabulary, and the composition grammar ∧ guard for one row.

Owns the packing (uint32 words, token t is bit t % 32 of word t // 32) and the rule what counts as *masked*: the token
that would have been taken without any mask was allowed by the grammar and cleared by the guard.
Knows no rule and no grammar. Fails closed: an exception in the guard's mask ends the generation.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aios.abi.core import MaskState
from aios.abi.guard import CallMask
from aios.engine.grammar import Grammar

_log = logging.getLogger(__name__)

Bits = NDArray[np.uint32]


class MaskFault(Exception):
    """The guard's mask failed; nothing may be generated without it."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """What one row may take next; `bits` are not to be changed.

    `blamed`: id of the rule that forbids the token that the row would have taken.
    """

    bits: Bits
    blamed: str | None = None

    @property
    def is_dead_end(self) -> bool:
        """Whether nothing is allowed."""
        return not self.bits.any()


def all_tokens(vocab: int) -> Bits:
    """Return bits that allow every token below `vocab`."""
    bits = np.zeros(-(-vocab // 32) * 4, dtype=np.uint8)
    packed = np.packbits(np.ones(vocab, dtype=np.uint8), bitorder="little")
    bits[: len(packed)] = packed
    return bits.view(np.uint32)


def allows(bits: Bits, token: int) -> bool:
    """Whether `token` is set."""
    return bool(int(bits[token // 32]) >> (token % 32) & 1)


def single(token: int, vocab: int) -> Bits:
    """Return bits that allow one token."""
    bits = np.zeros(-(-vocab // 32), dtype=np.uint32)
    bits[token // 32] = np.uint32(1 << token % 32)
    return bits


def only(bits: Bits) -> int | None:
    """Return the token that is set if it is the only one."""
    (words,) = bits.nonzero()
    if len(words) != 1:
        return None
    word = int(bits[words[0]])
    return None if word & (word - 1) else int(words[0]) * 32 + word.bit_length() - 1


def best(logits: Tensor, bits: Bits) -> int:
    """Return the allowed token with the highest logit, [vocab]; the first of equals."""
    (ids,) = _unpacked(bits, len(logits)).nonzero()
    if len(ids) == 1:
        return int(ids[0])
    return int(ids[logits.numpy(force=True)[ids].argmax()])


def forbid(logits: Tensor, bits: Bits) -> None:
    """Set the logits, [vocab], of tokens that are not allowed to minus infinity, in place."""
    logits.masked_fill_(torch.from_numpy(_unpacked(bits, len(logits)) == 0).to(logits.device), -torch.inf)


def _unpacked(bits: Bits, vocab: int) -> NDArray[np.uint8]:
    return np.unpackbits(bits.view(np.uint8), count=vocab, bitorder="little")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What grammar and guard leave of the vocabulary; neither is to be changed."""

    bits: Bits
    before: Bits | None = None
    """What the grammar alone would leave, where the guard took something away."""


def allowed(grammar: Grammar | None, mask: CallMask | None, *, vocab: int) -> Allowed | None:
    """Compose grammar and guard; None if nothing is restricted. Raises MaskFault."""
    if mask is None:
        return Allowed(grammar.peek()) if grammar else None
    before = grammar.peek() if grammar else all_tokens(vocab)
    bits = before.copy()
    try:
        changed = mask.restrict(bits)
    except Exception as error:  # any fault must end in refusal, never in an unmasked token
        raise _fault(error) from error
    if not changed and grammar is None:
        return None
    return Allowed(bits, before if changed else None)


def blamed(found: Allowed, mask: CallMask | None, favourite: int) -> str | None:
    """Return the rule that alone forbids `favourite`; None if there is none. Raises MaskFault."""
    if mask is None or found.before is None or not allows(found.before, favourite) or allows(found.bits, favourite):
        return None
    try:
        return mask.blame(favourite) or "!unknown"
    except Exception as error:  # as above
        raise _fault(error) from error


def restrict(grammar: Grammar | None, mask: CallMask | None, *, vocab: int, favourite: int) -> Restriction | None:
    """Compose grammar and guard for a row whose unmasked choice is `favourite`; None if nothing is restricted.

    Raises MaskFault.
    """
    found = allowed(grammar, mask, vocab=vocab)
    return None if found is None else Restriction(found.bits, blamed(found, mask, favourite))


def permits(mask: CallMask, token: int, *, vocab: int) -> bool:
    """Whether the guard allows `token`. Raises MaskFault."""
    bits = single(token, vocab)
    try:
        return not mask.restrict(bits)
    except Exception as error:  # as above
        raise _fault(error) from error


def accept(mask: CallMask, token: int) -> None:
    """Tell the mask which token was taken. Raises MaskFault."""
    try:
        mask.accept(token)
    except Exception as error:  # as above
        raise _fault(error) from error


def is_ready(mask: CallMask) -> bool:
    """Whether the guard can answer now. One that cannot even say so is not: it is waited for in vain, and given up."""
    try:
        return mask.is_ready
    except Exception as error:  # noqa: BLE001 - as above
        _fault(error)
        return False


def give_up(mask: CallMask) -> None:
    """Tell the mask to answer with what it knows. Raises MaskFault."""
    try:
        mask.give_up()
        if not mask.is_ready:
            raise RuntimeError("it still waits after it was told to give up")
    except Exception as error:  # as above
        raise _fault(error) from error


class Broken:
    """Stands for a mask that failed where no choice was made: the next choice fails with it. A `CallMask`."""

    is_ready = True

    def __init__(self, version: int, why: str) -> None:
        self.version, self._why = version, why

    def restrict(self, bits: Bits) -> bool:
        """Fail."""
        raise RuntimeError(self._why)

    def blame(self, token: int) -> str | None:
        """Name no rule."""
        return None

    def accept(self, token: int) -> None:
        """Fail."""
        raise RuntimeError(self._why)

    def steer(self, state: MaskState) -> None:
        """Stay broken."""

    def give_up(self) -> None:
        """Nothing is waited for."""

    def fork(self) -> "Broken":
        """Return itself; it has no state."""
        return self


def _fault(error: Exception) -> MaskFault:
    _log.error("the guard's mask failed, the generation ends: %s: %s", type(error).__name__, error)
    return MaskFault(f"{type(error).__name__}: {error}")
