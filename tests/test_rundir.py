"""Finding living kernels: publishing, leftovers of dead ones, choosing, tokens, socket paths."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from aios import rundir
from aios.errors import ConfigError, KernelUnreachable, UsageError
from aios.rundir import Descriptor


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIOS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AIOS_KERNEL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Another living process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def kernel(name: str = "default", pid: int | None = None) -> Descriptor:
    return Descriptor(name, pid or os.getpid(), str(rundir.socket_path(name)), "1.0", "smollm2-135m", 1000.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_published_kernel_is_living_until_the_block_ends(home: Path) -> None:
    with rundir.publish(kernel()) as published:
        assert rundir.living() == [published]
        assert rundir.choose() == published
        assert mode(home / "run") == 0o700
        assert mode(home / "run" / "default.json") == 0o600
    assert rundir.living() == []
    assert list((home / "run").iterdir()) == []


def test_an_open_folder_is_closed_again(home: Path) -> None:
    (home / "run").mkdir(parents=True, mode=0o755)
    rundir.run_folder()
    assert mode(home / "run") == 0o700


def test_a_second_kernel_of_the_same_name_is_refused_with_the_pid_of_the_first(home: Path) -> None:
    with rundir.publish(kernel()):
        with pytest.raises(UsageError, match=rf"already alive \(pid {os.getpid()}\).*--name"), rundir.publish(kernel()):
            pass
        assert len(rundir.living()) == 1


def test_what_a_killed_kernel_left_behind_is_removed(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    dead = kernel("dead", sleeper.pid)
    publication = rundir.publish(dead)
    publication.__enter__()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(dead.socket)
    assert [found.name for found in rundir.living()] == ["dead"]
    sleeper.kill()
    sleeper.wait()
    assert rundir.living() == []
    assert list((home / "run").iterdir()) == []
    publication.__exit__(None, None, None)


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    with rundir.publish(kernel("dead", sleeper.pid)):
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        assert rundir.living() == []


def test_a_later_process_with_the_same_pid_is_not_the_kernel(home: Path) -> None:
    with rundir.publish(kernel()) as published:
        other = replace(published, birth="12")
        (home / "run" / "default.json").write_bytes(msgspec.json.encode(other))
        assert rundir.living() == []


def test_the_name_of_a_dead_kernel_can_be_taken(sleeper: subprocess.Popen[bytes]) -> None:
    publication = rundir.publish(kernel("default", sleeper.pid))
    publication.__enter__()
    sleeper.kill()
    sleeper.wait()
    with rundir.publish(kernel()) as published:
        # The first one's end must not remove the second one's descriptor.
        publication.__exit__(None, None, None)
        assert rundir.living() == [published]


def test_a_file_that_is_no_descriptor_is_neither_living_nor_removed(home: Path) -> None:
    garbage = rundir.run_folder() / "future.json"
    garbage.write_text('{"name": 1}')
    assert rundir.living() == []
    assert garbage.exists()


def test_a_path_in_a_descriptor_is_not_trusted_for_removal(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    precious = home.parent / "precious"
    precious.write_text("keep")
    publication = rundir.publish(replace(kernel("dead", sleeper.pid), socket=str(precious)))
    publication.__enter__()
    sleeper.kill()
    sleeper.wait()
    assert rundir.living() == []
    assert precious.read_text() == "keep"
    publication.__exit__(None, None, None)


def test_with_none_alive_the_error_says_what_to_type() -> None:
    with pytest.raises(KernelUnreachable, match="aios run FILE") as caught:
        rundir.choose()
    assert caught.value.exit_code == 125


def test_with_several_alive_the_error_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with rundir.publish(kernel("one")), rundir.publish(kernel("two")):
        with pytest.raises(KernelUnreachable, match=r"--kernel NAME\n  one  \(pid .*\n  two  \(pid"):
            rundir.choose()
        assert rundir.choose("two").name == "two"
        monkeypatch.setenv("AIOS_KERNEL", "one")
        assert rundir.choose().name == "one"
        assert rundir.choose("two").name == "two"


def test_a_name_that_is_not_alive_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(KernelUnreachable, match=r"'ghost' is alive .*aios run FILE --name ghost.*; none is alive"):
        rundir.choose("ghost")
    with rundir.publish(kernel("one")), pytest.raises(KernelUnreachable, match="alive are:\n  one"):
        rundir.choose("ghost")


def test_the_operators_token_is_for_this_user_only(home: Path) -> None:
    path = rundir.write_operator_token("default", "first")
    rundir.write_operator_token("default", "second")
    assert path == home / "kernels" / "default" / "operator.token"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert rundir.read_operator_token("default") == "second"
    assert [file.name for file in path.parent.iterdir()] == ["operator.token"]


def test_a_missing_token_is_unreachable_not_a_traceback() -> None:
    with pytest.raises(KernelUnreachable, match="cannot be read"):
        rundir.read_operator_token("default")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 65, "a\n"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    for ask in (rundir.socket_path, rundir.read_operator_token):
        with pytest.raises(UsageError, match="cannot be called"):
            ask(name)


def test_a_socket_lies_in_the_run_folder_when_its_path_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="a") as short:
        monkeypatch.setenv("AIOS_HOME", short)
        assert rundir.socket_path("x") == Path(short) / "run" / "x.sock"


def test_a_socket_of_a_long_home_can_be_bound_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tempfile.mkdtemp(prefix="r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("AIOS_HOME", str(tmp_path / ("deep" * 30)))
    path = rundir.socket_path("default")
    assert path == rundir.socket_path("default") != rundir.socket_path("other")
    assert mode(path.parent) == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.unlink()
    path.parent.rmdir()
    Path(runtime).rmdir()


def test_a_short_folder_with_open_doors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("AIOS_HOME", str(tmp_path / ("deep" * 30)))
    folder = tmp_path / f"aios-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="0700"):
        rundir.socket_path("default")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="0700"):
        rundir.socket_path("default")
