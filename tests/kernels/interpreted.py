"""Run every operation in Triton's interpreter and print how far it is from its reference, as JSON.

A program of its own: the switch must be set before Triton is imported, and must not reach other tests.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from aios_kernels.triton import mask_sample, paged_attention
from benchmarks.gpu.operations import TINY, Bench, outcomes, reference_operations, triton_operations


def main() -> None:
    """Run the cases, cut small enough that contexts split and the vocabulary has several pieces."""
    paged_attention.SPLIT_TOKENS, mask_sample.PIECE = 64, 16
    found, wanted = triton_operations(), reference_operations()
    for dtype in (torch.float32, torch.float16):
        bench = Bench(found, wanted, torch.device("cpu"), dtype, TINY, tables=True)
        for outcome in outcomes(bench):
            json.dump({"name": outcome.name, "error": outcome.error, "tolerance": outcome.tolerance}, sys.stdout)
            print()


main()
