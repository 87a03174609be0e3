"""Torch with parts that are loaded on demand, each time in a process of its own."""

import subprocess
import sys

PREPARED = "from aios.engine import torchstart; torchstart.prepare(); import gc, sys, torch\n"


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", PREPARED + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_torch_leaves_its_tracing_out_and_computes() -> None:
    code = "print('torch._prims' in sys.modules, torch.arange(4.0).softmax(0).sum().item())"
    assert said(code) == "False 1.0"


def test_what_was_left_out_is_whole_when_it_is_asked_for() -> None:
    code = (
        "found = torch._meta_registrations.meta_index_Tensor\n"
        "print(callable(found), 'torch._prims' in sys.modules, torch.empty(2, 3, device='meta').cumsum(1).shape)"
    )
    assert said(code) == "True True torch.Size([2, 3])"


def test_garbage_is_collected_again_once_it_has_settled() -> None:
    code = "print(gc.isenabled()); torchstart.settled(); print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    assert said(code) == "False\nTrue True"


def test_an_engine_host_loads_no_parts_of_a_kernel() -> None:
    code = (
        "import aios.boot.engine_host\n"
        "print([name for name in ('fastapi', 'sqlalchemy', 'httpx2', 'uvicorn', 'triton', 'aios.kernel')"
        " if name in sys.modules])"
    )
    assert said(code) == "[]"
