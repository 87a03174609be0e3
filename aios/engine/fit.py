"""Does a model fit into the memory of this machine, and what would it need?

Owns the estimate and the reading of the machine; loads nothing, imports no torch. Estimates are a little high: a
model that is refused here would have ended in the system's out-of-memory killer, which says nothing to anybody.
"""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from aios.errors import ModelError

CONTEXT_TOKENS = 8192
"""A conversation should have room for so many tokens, or for all that the model takes; beyond that the pool of pages
decides, whatever the model's own limit is."""
KV_BYTES = 2
"""Of a number in the KV pool (bfloat16)."""
_PROGRAM = 400_000_000
"""Interpreter, torch and the kernel's own memory."""
_PER_TOKEN_KIND = 800
"""Bytes for each token of the vocabulary: spellings, tries of the grammar, logits of a step's rows."""
_INT4 = 0.625
"""Bytes of a number in four bits with a scale and a zero point of two bytes for each 32."""


@dataclass(frozen=True, slots=True)
class Size:
    """What decides about a model's memory."""

    parameters: int
    vocab: int
    dim: int
    kv_numbers: int
    """Numbers that a token leaves in the KV pool, over all layers."""
    max_context: int
    is_four_bit: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model takes when it runs."""

    weights: int
    kv: int
    working: int
    context_tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.working


@dataclass(frozen=True, slots=True)
class Machine:
    """The memory that a model may use."""

    available: int
    """Bytes free for it: the GPU's, or else the machine's, or what its container may still take."""
    total: int
    is_gpu: bool = False


def need_of(size: Size, *, dense_bytes: int, exact: bool = False) -> Need:
    """Estimate what a model takes where products of many rows use numbers of `dense_bytes`.

    Embeddings are held in float32; matrices in the type of dense products and, if stored in four bits, packed besides.
    """
    embedding = size.vocab * size.dim
    each = 4 if exact else dense_bytes + (_INT4 if size.is_four_bit else 0)
    tokens = min(size.max_context, CONTEXT_TOKENS)
    return Need(
        weights=4 * embedding + int((size.parameters - embedding) * each),
        kv=tokens * size.kv_numbers * (4 if exact else KV_BYTES),
        working=_PROGRAM + _PER_TOKEN_KIND * size.vocab,
        context_tokens=tokens,
    )


def check_fits(name: str, need: Need, machine: Machine, *, fitting: list[str]) -> None:
    """Raise ModelError when `need` is more than there is; it names what of `fitting`, the known models, would do."""
    if need.total <= machine.available:
        return
    others = f"these would fit: {', '.join(fitting)} (aios models recommend)" if fitting else "no known model would fit"
    raise ModelError(
        f"model '{name}' needs {gigabytes(need.total)} ({gigabytes(need.weights)} weights, {gigabytes(need.kv)} for a "
        f"context of {need.context_tokens} tokens, {gigabytes(need.working)} to work); {gigabytes(machine.available)} "
        f"of {gigabytes(machine.total)} are available; {others}; AIOS_LOAD_ANYWAY=1 loads it all the same"
    )


def this_machine() -> Machine:
    """Read what this machine's main memory has to give."""
    memory = psutil.virtual_memory()
    limit, used = _control_group()
    if limit is None:
        return Machine(memory.available, memory.total)
    return Machine(min(memory.available, max(limit - used, 0)), min(memory.total, limit))


def gpu() -> Machine | None:
    """Ask the driver's own tool for the largest GPU; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        cards = [[int(part) << 20 for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
        found = [Machine(free, total, is_gpu=True) for free, total in cards]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return max(found, key=lambda card: card.available, default=None)


@cache
def dense_bytes() -> int:
    """Return the bytes of a number in dense products on this processor: 2 with bfloat16 units, else 4.

    The same choice as `aios.engine.products.dense_dtype`, without loading torch.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return 4
    return 2 if "avx512_bf16" in flags or "amx_bf16" in flags else 4


def gigabytes(size: int) -> str:
    """Write a size for people."""
    return f"{size / 1e9:.1f} GB"


def _control_group() -> tuple[int | None, int]:
    """Return the limit of this process's container and what it has used of it, without what it could give back."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return (None, 0) if limit == "max" else (int(limit), used - int(facts.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None, 0
