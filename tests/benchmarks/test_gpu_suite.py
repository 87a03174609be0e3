"""The GPU suite runs on tiny sizes where there is no GPU, so that it works when there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_suite
from benchmarks.common import Sheet, load_targets
from benchmarks.gpu_suite import PARTS, Suite

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_runs_and_what_a_cpu_did_is_no_figure(tmp_path: Path) -> None:
    out = tmp_path / "suite.json"
    command = [sys.executable, "-m", "benchmarks.gpu_suite", "--device", "cpu", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["results"]["seconds"].keys() == PARTS.keys()
    assert "not_measured" not in found["results"]
    assert all(outcome["met"] for outcome in found["results"]["operations"])
    measured = {name for name in load_targets("gpu_suite") if _target(found, name)["value"] is not None}
    assert measured == set(), "nothing that a CPU did may stand as a GPU's figure"
    assert all(_target(found, name)["why"] for name in load_targets("gpu_suite"))


def test_the_figures_of_a_run_that_was_cut_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails says why; what was measured before and after it stands in the file."""
    out = tmp_path / "suite.json"

    def broken(_: Suite) -> None:
        raise RuntimeError("the device is on fire")

    monkeypatch.setitem(gpu_suite.PARTS, "qwen3_8b", broken)
    suite = Suite(torch.device("cpu"), quick=True, sheet=Sheet(real={}))
    gpu_suite.run(suite, ["ceilings", "qwen3_8b"], out, 60)
    found = json.loads(out.read_text())
    assert found["results"]["ceilings"]["copy_bytes"] > 0
    assert found["results"]["not_measured"] == {"qwen3_8b": "RuntimeError: the device is on fire"}
    assert "on fire" in str(_target(found, "qwen3_8b_b1_of_roofline")["why"])


def test_all_but_one_part_need_nothing_that_a_bare_machine_lacks() -> None:
    """On a machine lent without network there are torch, triton and transformers with what these bring."""
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('msgspec', 'pydantic', 'sqlalchemy', 'llguidance')));"
        "import benchmarks.gpu_suite"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def _target(found: dict[str, list[dict[str, object]]], name: str) -> dict[str, object]:
    return next(target for target in found["targets"] if target["name"] == name)
