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

from aios.abi.guard import CallMask
from aios.engine.grammar import Grammar

_log = logging.getLogger(__name__)

Bits = NDArray[np.uint32]


class MaskFault(Exception):
    """The guard's mask failed; nothing may be generated without it."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """What one row may take next. `blamed`: id of the rule that forbids the token it would have taken."""

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


def forbid(logits: Tensor, bits: Bits) -> None:
    """Set the logits, [vocab], of tokens that are not allowed to minus infinity, in place."""
    allowed = np.unpackbits(bits.view(np.uint8), count=len(logits), bitorder="little")
    logits.masked_fill_(torch.from_numpy(allowed == 0).to(logits.device), -torch.inf)


def restrict(grammar: Grammar | None, mask: CallMask | None, *, vocab: int, favourite: int) -> Restriction | None:
    """Compose grammar and guard for a row whose unmasked choice is `favourite`; None if nothing is restricted.

    Raises MaskFault.
    """
    if grammar is None and mask is None:
        return None
    bits = grammar.bits() if grammar else all_tokens(vocab)
    if mask is None:
        return Restriction(bits)
    was_allowed = allows(bits, favourite)
    try:
        changed = mask.restrict(bits)
        if not changed and grammar is None:
            return None
        is_masked = changed and was_allowed and not allows(bits, favourite)
        return Restriction(bits, _blame(mask, favourite) if is_masked else None)
    except Exception as error:  # any fault must end in refusal, never in an unmasked token
        raise _fault(error) from error


def accept(mask: CallMask, token: int) -> None:
    """Tell the mask which token was taken. Raises MaskFault."""
    try:
        mask.accept(token)
    except Exception as error:  # as above
        raise _fault(error) from error


def _blame(mask: CallMask, token: int) -> str:
    return mask.blame(token) or "!unknown"


def _fault(error: Exception) -> MaskFault:
    _log.error("the guard's mask failed, the generation ends: %s: %s", type(error).__name__, error)
    return MaskFault(f"{type(error).__name__}: {error}")
