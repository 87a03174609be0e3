"""Compile every Triton kernel for a GPU that need not be there, in the variants that real shapes launch.

    python -m benchmarks.gpu.compile [--capability 90]

The operations run on CPU tensors with a driver that only knows the target's name, and each launch stops after the
assembler. Proves that types, shapes, shared memory and registers fit; says nothing about results. Minutes, the first
time.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from benchmarks.gpu.operations import (
    GEMMA3,
    QWEN3_8B,
    SMOLLM2,
    Bench,
    outcomes,
    reference_operations,
    triton_operations,
)

BF16 = (torch.bfloat16,)
MOST_SHARED_BYTES = {90: 227 * 1024, 80: 163 * 1024, 89: 99 * 1024}


class NamedTarget:
    """A driver for a device that is not there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """Return what to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """Return a name for the cache of compiled kernels."""
        return 0

    def get_current_stream(self, _: int) -> int:
        """Return a stream that nothing is launched on."""
        return 0


def main() -> int:
    """Compile; return 1 if a kernel needs more shared memory or registers than the target has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90)
    options = parser.parse_args()
    driver.set_active(NamedTarget(options.capability))
    compiled: dict[tuple[str, str], Any] = {}
    JITFunction.__getitem__ = _compiling(compiled)
    began = time.monotonic()
    for size, dtypes in {QWEN3_8B: (torch.bfloat16, torch.float16), SMOLLM2: BF16, GEMMA3: BF16}.items():
        small = replace(size, rows=3, contexts=((257, 1), (40, 33)))
        for dtype in dtypes:
            bench = Bench(triton_operations(), reference_operations(), torch.device("cpu"), dtype, small, tables=True)
            print(size.heads, size.kv_heads, size.head_dim, dtype, "…", file=sys.stderr, flush=True)
            for _ in outcomes(bench):
                pass
    fits, most = True, MOST_SHARED_BYTES.get(options.capability, 99 * 1024)
    for (name, _), kernel in sorted(compiled.items(), key=lambda item: item[0][0]):
        registers, stack = usage(kernel.asm["cubin"])
        fits &= kernel.metadata.shared <= most and not stack
        print(f"{name:18} shared {kernel.metadata.shared:6} bytes, {registers:3} registers, {stack} bytes spilled")
    seconds = time.monotonic() - began
    print(f"{len(compiled)} variants for sm_{options.capability} in {seconds:.0f} s, triton {triton.__version__}")
    return int(not fits)


def usage(cubin: bytes) -> tuple[int, int]:
    """Return the registers of a thread and the bytes of its stack: what did not fit into registers."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert found is not None, told
    return int(found[1]), int(found[2])


def _compiling(compiled: dict[tuple[str, str], Any]) -> Callable[[Any, Any], Callable[..., None]]:
    def pick(self: Any, grid: Any) -> Callable[..., None]:
        def compile_only(*arguments: Any, **options: Any) -> None:
            kernel = self.run(*arguments, grid=grid, warmup=True, **options)
            compiled[self.fn.__name__, kernel.hash] = kernel

        return compile_only

    return pick


if __name__ == "__main__":
    sys.exit(main())
