"""Models worth trying: their facts, what each would need here, and which suit this machine best.

The facts lie in `catalogue.toml`, with the address that each comes from. Imports no torch and fetches nothing.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from time import perf_counter

import msgspec
import numpy as np

from aios.engine.fit import Machine, Need, Size, dense_bytes, gpu, need_of, this_machine

MOST = 6
"""Models that are recommended at once."""
READING_SPEED = 8.0
"""Tokens per second at which people read; a model that cannot be faster tries their patience."""
_PROBE_BYTES = 1 << 27


class Shape(msgspec.Struct, frozen=True):
    """The numbers of a decoder's configuration that decide about its size."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    tied: bool
    qk_norm: bool = False
    sandwich: bool = False
    qkv_bias: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers the model is made of."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        matrices = self.dim * (2 * wide + 2 * narrow + 3 * self.ff)
        norms = self.dim * (4 if self.sandwich else 2) + (2 * self.head_dim if self.qk_norm else 0)
        biases = wide + 2 * narrow if self.qkv_bias else 0
        tables = self.vocab * self.dim * (1 if self.tied else 2)
        return self.layers * (matrices + norms + biases) + tables + self.dim


class Entry(msgspec.Struct, frozen=True):
    """A model of the catalogue."""

    title: str
    pull: str
    """What `aios models pull` takes."""
    source: str
    licence: str
    tool_calling: bool
    parameters: int
    context: int
    shape: Shape
    chat: bool = True
    """Whether it was trained to converse; a base model goes on with a text."""
    file_bytes: int = 0
    four_bit: bool = False

    @property
    def download_bytes(self) -> int:
        """Bytes to fetch."""
        return self.file_bytes or 2 * self.parameters

    @property
    def size(self) -> Size:
        """What decides about its memory."""
        shape = self.shape
        kv_numbers = 2 * shape.layers * shape.kv_heads * shape.head_dim
        return Size(self.parameters, shape.vocab, shape.dim, kv_numbers, self.context, self.four_bit)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model that fits, with what it would take here."""

    entry: Entry
    need: Need
    tokens_per_s: float | None
    """What memory bandwidth allows for one conversation; None where it was not measured."""

    @property
    def keeps_pace(self) -> bool:
        """Whether it can be as fast as people read."""
        return self.tokens_per_s is None or self.tokens_per_s >= READING_SPEED


@cache
def catalogue() -> dict[str, Entry]:
    """Return the models by name."""
    text = resources.files("aios.engine").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return msgspec.toml.decode(text, type=dict[str, Entry])


def machine() -> Machine:
    """Return the memory that a model would be loaded into: the GPU's where there is one."""
    return gpu() or this_machine()


def recommend(where: Machine, *, bandwidth: float | None) -> list[Recommendation]:
    """Return the models that fit, the best first.

    Those that keep pace come first, conversing before base models, callers of tools before others, then the largest;
    of those that do not keep pace the quickest. `bandwidth` is what memory gives in bytes per second; None where it
    is not the limit.
    """
    judged = [_judged(entry, where, bandwidth) for entry in catalogue().values()]
    fitting = [each for each in judged if each.need.total <= where.available]
    return sorted(fitting, key=_worth, reverse=True)[:MOST]


def least(where: Machine) -> Recommendation:
    """Return the model that needs the least memory, whether it fits or not."""
    return min((_judged(entry, where, None) for entry in catalogue().values()), key=lambda each: each.need.total)


def _worth(found: Recommendation) -> tuple[bool, bool, bool, float]:
    size = found.entry.parameters if found.keeps_pace else -found.entry.parameters
    return found.keeps_pace, found.entry.chat, found.entry.tool_calling, size


def fitting_names(where: Machine) -> list[str]:
    """Return what to pull for each model that fits, the best first."""
    return [each.entry.pull for each in recommend(where, bandwidth=None)]


def read_bandwidth() -> float:
    """Measure how many bytes per second one thread reads from memory: the best of three passes of a tenth of a second.

    More threads read more, by a factor that differs from machine to machine: an estimate on the low side.
    """
    numbers = np.ones(_PROBE_BYTES // 4, dtype=np.float32)
    seconds = []
    for _ in range(3):
        began = perf_counter()
        np.dot(numbers, numbers)
        seconds.append(perf_counter() - began)
    return _PROBE_BYTES / min(seconds)


def _judged(entry: Entry, where: Machine, bandwidth: float | None) -> Recommendation:
    each = 2 if where.is_gpu else dense_bytes()
    need = need_of(entry.size, dense_bytes=each)
    # A step reads the packed form where there is one; the embedding is a table look-up but for the output.
    read = entry.download_bytes if entry.four_bit else each * entry.parameters
    return Recommendation(entry, need, None if bandwidth is None else bandwidth / read)
