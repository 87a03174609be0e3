"""`doctor` looks at everything, and each thing that is wrong comes with what mends it."""

import json
import socket
from pathlib import Path

import psutil
import pytest

from aios import env
from aios.cli import doctor
from aios.cli.doctor import Finding
from aios.engine import nativestate
from tests.cli.conftest import Aios
from tests.cli.living import living_kernel


def test_it_finds_python_cores_memory_torch_home_model_sandbox_and_kernels(aios: Aios) -> None:
    with living_kernel("alpha"):
        found = json.loads(aios("doctor", "--json").out)
    findings = {finding["name"]: finding for finding in found["findings"]}
    assert {"python", "cores", "memory", "torch", "home", "disk", "model", "kernels"} <= set(findings)
    assert {"sandbox: bubblewrap", "sandbox: landlock", "sandbox: seccomp"} <= set(findings)
    assert "alpha" in findings["kernels"]["found"]
    assert findings["python"]["status"] == "ok"


def test_what_is_wrong_has_a_fix_and_what_is_right_has_none() -> None:
    for finding in doctor.examine():
        assert bool(finding.fix) == (finding.status != "ok"), finding


def test_a_missing_model_fails_with_what_to_type(aios: Aios) -> None:
    code, out, _err = aios("doctor")
    assert code == 1
    assert "→ aios models pull smollm2-135m" in out


def test_a_home_that_is_a_file_fails_with_the_variable_to_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv(env.HOME, str(home / "file"))
    finding = doctor.home()
    assert finding.status == "fail"
    assert env.HOME in finding.fix


def test_a_home_that_is_not_there_yet_is_fine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(env.HOME, str(home / "new" / "deep"))
    assert doctor.home() == Finding("home", "ok", str(home / "new" / "deep"))
    assert not [path for path in (home / "new" / "deep").iterdir()]


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: seen)
    assert doctor.memory().status == "warn"


def test_with_endpoints_alone_no_model_and_no_native_operations_are_missed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    (home / "aios.toml").write_text('[cores.far]\nurl = "http://127.0.0.1:1/v1"\nmodel = "large"\n')
    assert doctor.model() == Finding("model", "ok", "none here: far (http://127.0.0.1:1/v1)")
    assert doctor.native().status == "ok"


@pytest.mark.parametrize(
    ("state", "status", "found"),
    [("built", "ok", "native"), ("unbuilt", "warn", "first start"), ("no compiler", "warn", "torch")],
)
def test_it_says_with_which_operations_a_model_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, state: str, status: str, found: str
) -> None:
    monkeypatch.setattr(nativestate, "state", lambda: state)
    finding = doctor.native()
    assert finding.status == status
    assert found in finding.found


def test_native_operations_that_are_switched_off_are_not_missed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_NATIVE", "0")
    assert doctor.native() == Finding("operations", "ok", "torch (native ones are switched off)")


def test_remote_cores_are_looked_for_at_their_address_and_with_their_key(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        cores = {
            "near": {"url": near, "model": "m", "aliases": ["small"]},
            "gone": {"url": "http://127.0.0.1:9/v1", "model": "m"},
            "locked": {"url": near, "model": "m", "key": "NO_SUCH_KEY"},
        }
        monkeypatch.setenv("AIOS_CORES", json.dumps(cores))
        found = {one.name: one for one in doctor.examine()}
    assert (found["core: near"].status, found["core: near"].found) == (
        "ok",
        f"{near} takes connections, serves m, small",
    )
    assert "refused" in found["core: gone"].found
    assert (found["core: locked"].status, "NO_SUCH_KEY" in found["core: locked"].fix) == ("warn", True)


def test_the_cores_of_a_living_kernel_are_shown_with_what_is_wrong() -> None:
    near = {"name": "near", "models": ["m"], "device": "x", "is_up": True, "calls": 0, "reason": ""}
    with living_kernel("alpha") as living:
        living.kernel.cores = (near, {**near, "name": "far", "is_up": False, "reason": "gone"})
        found = [one for one in doctor.examine() if one.name == "kernel alpha"]
    assert [(one.status, one.found) for one in found] == [
        ("ok", "core near (m) up, 0 calls"),
        ("warn", "core far (m) down, 0 calls: gone"),
    ]
