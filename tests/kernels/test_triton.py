"""The device's form of each operation against its reference, in Triton's interpreter; and who may import Triton."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = [
    "rms_norm",
    "add_rms_norm",
    "swiglu",
    "geglu",
    "rope",
    "kv_write",
    "place_qkv",
    "paged_attention",
    "gather_pages",
    "scatter_pages",
    "mask_sample",
    "ranked_sample",
]
has_triton = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux")


@cache
def interpreted() -> list[dict[str, float | str]]:
    command = [sys.executable, "-W", "error", "-m", "tests.kernels.interpreted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@has_triton
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_device_computes_what_the_reference_does(operation: str, dtype: str) -> None:
    found = [
        case
        for case in interpreted()
        if str(case["name"]).split()[0] == operation and str(case["name"]).endswith(dtype)
    ]
    assert found, "the operation has no case"
    assert [case for case in found if not float(case["error"]) <= float(case["tolerance"])] == []


def test_the_interpreter_is_never_given_bfloat16() -> None:
    """It multiplies the bit patterns and says nothing."""
    assert "bfloat16" not in (ROOT / "tests/kernels/interpreted.py").read_text()


def test_a_forward_pass_on_the_cpu_imports_no_triton() -> None:
    script = (
        "import sys, tests.engine.test_decoder as t;"
        "from tests.engine.hand_batches import batch_of, pool_for; import torch;"
        "t.random_decoder().forward(batch_of(([1, 2], 0, [0])), pool_for(t.CONFIG, 1, torch.float32));"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
