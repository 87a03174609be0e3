"""`ps`, `kill`, `stop`, `cont`, `logs` on a living kernel."""

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from aios import rundir
from aios.abi import events
from aios.abi.process import ProcessState
from aios.cli import wire
from aios.cli.processes import signal_of
from aios.errors import UsageError
from tests.cli.conftest import Aios
from tests.cli.living import living_kernel


def test_ps_shows_a_row_for_each_process(aios: Aios) -> None:
    with living_kernel() as living:
        living.do(lambda: living.kernel.spawn("writer", tokens_per_s=12.5, kv_device_pages=7, kv_host_pages=2))
        code, out, err = aios("ps")
    header, row = out.splitlines()
    assert (code, err) == (0, "")
    assert " ".join(header.split()) == "PID PPID NAME STATE CLASS LEVEL NI TOK-IN TOK-OUT TOK/S KV TOOLS DENIED AGE"
    assert " ".join(row.split()[:13]) == "1 0 writer ready interactive L2 0 120 34 12.5 7/2/0 2 1"


def test_ps_json_is_one_object_with_the_processes_as_the_abi_has_them(aios: Aios) -> None:
    with living_kernel("alpha") as living:
        living.do(lambda: living.kernel.spawn("writer"))
        code, out, _err = aios("ps", "--json")
        expected = living.do(lambda: living.kernel.processes[1].model_dump(mode="json"))
    assert code == 0
    assert json.loads(out) == {"kernel": "alpha", "cores": [], "processes": [expected]}


NEAR = {"name": "near", "models": ["m"], "device": "x", "is_up": True, "calls": 1, "reason": "E-REMOTE-BUSY: HTTP 503"}
FAR = {"name": "far", "models": ["m", "big"], "device": "y", "is_up": False, "calls": 0, "reason": "\x1b[2J gone"}


def test_ps_begins_with_the_cores_and_ends_with_what_went_on_elsewhere(aios: Aios) -> None:
    with living_kernel() as living:
        living.kernel.cores = (NEAR, FAR)
        living.do(lambda: living.kernel.spawn("writer", recovery="main: fail-over from far to near: gone"))
        out = aios("ps").out
        told = json.loads(aios("ps", "--json").out)
    first, second, _, _, last = out.splitlines()
    assert first == "core near (m) up, 1 call: E-REMOTE-BUSY: HTTP 503"
    assert second == "core far (m, big) down, 0 calls: \\x1b[2J gone"
    assert last == "pid 1, main: fail-over from far to near: gone"
    assert told["cores"] == [NEAR, FAR]
    assert told["processes"][0]["recovery"] == "main: fail-over from far to near: gone"


def test_ps_hides_the_exited_unless_asked(aios: Aios) -> None:
    with living_kernel() as living:
        living.do(lambda: living.kernel.spawn("gone", state=ProcessState.EXITED, reason="done", ended_s=2.0))
        assert "gone" not in aios("ps").out
        assert "exited(done)" in aios("ps", "--all").out


def test_a_wide_table_in_a_pipe_is_not_cut(aios: Aios) -> None:
    with living_kernel() as living:
        living.do(lambda: living.kernel.spawn("n" * 24, state=ProcessState.BLOCKED, reason="waiting for a tool now"))
        row = aios("ps").out.splitlines()[1]
    assert "n" * 24 in row
    assert "blocked(waiting for a tool …" in row
    assert row.rstrip().endswith("1m05s")


def test_hostile_names_do_not_reach_the_terminal(aios: Aios) -> None:
    with living_kernel() as living:
        living.do(lambda: living.kernel.spawn("\x1b[2J[bold]x\u202e", reason="\r\n"))
        out = aios("ps").out
    assert "\\x1b[2J[bold]x\\u202e" in out
    assert len(out.splitlines()) == 2
    assert "\x1b[2J" not in out


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        (["kill"], ProcessState.EXITED),
        (["kill", "-s", "KILL"], ProcessState.EXITED),
        (["kill", "-s", "stop"], ProcessState.STOPPED),
        (["stop"], ProcessState.STOPPED),
        (["cont"], ProcessState.READY),
    ],
)
def test_signals_reach_their_process(aios: Aios, verb: list[str], state: ProcessState) -> None:
    with living_kernel() as living:
        pid = living.do(lambda: living.kernel.spawn("target"))
        other = living.do(lambda: living.kernel.spawn("other"))
        outcome = aios(*verb, str(pid))
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
        assert living.do(lambda: living.kernel.processes[pid].state) is state
        assert living.do(lambda: living.kernel.processes[other].state) is ProcessState.READY


def test_kill_asks_politely_by_default(aios: Aios) -> None:
    with living_kernel() as living:
        pid = living.do(lambda: living.kernel.spawn("target"))
        aios("kill", str(pid))
        assert living.do(lambda: living.kernel.processes[pid].reason) == "term"


def test_a_failure_of_the_kernel_is_one_line_and_exit_1(aios: Aios) -> None:
    with living_kernel():
        code, out, err = aios("kill", "99")
    assert (code, out) == (1, "")
    assert err == "aios: proc.signal: pid 99: there is no such living process [E-NO-PROCESS]\n"


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "term"])
def test_signals_have_their_usual_names(name: str) -> None:
    assert signal_of(name) == "term"


def test_an_unknown_signal_is_a_usage_error_that_lists_ours(aios: Aios) -> None:
    with pytest.raises(UsageError, match="stop, cont, term, kill"):
        signal_of("HUP")
    assert aios("kill", "-s", "hup", "1").code == 2


@pytest.mark.parametrize("words", [["kill"], ["kill", "zero"], ["kill", "0"], ["nothing"], ["ps", "--what"]])
def test_wrong_usage_exits_with_2(aios: Aios, words: list[str]) -> None:
    assert aios(*words).code == 2


def test_without_a_kernel_each_verb_says_what_to_type_and_exits_with_125(aios: Aios) -> None:
    for words in (["ps"], ["top", "--once"], ["logs", "1"], ["kill", "1"], ["approve"], ["tools", "ls"]):
        code, out, err = aios(*words)
        assert (code, out) == (125, "")
        assert "aios run" in err
        assert "Traceback" not in err


def test_several_kernels_are_listed_and_one_can_be_named(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    with living_kernel("alpha") as alpha, living_kernel("beta"):
        alpha.do(lambda: alpha.kernel.spawn("of-alpha"))
        code, _out, err = aios("ps")
        assert code == 125
        assert "alpha" in err
        assert "beta" in err
        assert "of-alpha" in aios("ps", "--kernel", "alpha").out
        assert "of-alpha" not in aios("ps", "--kernel", "beta").out
        monkeypatch.setenv("AIOS_KERNEL", "alpha")
        assert "of-alpha" in aios("ps").out


def test_a_wrong_token_is_a_denial(aios: Aios) -> None:
    with living_kernel():
        rundir.write_operator_token("default", "stolen")
        code, _out, err = aios("ps")
    assert code == 77
    assert "E-AUTH" in err


def test_a_socket_that_is_gone_is_unreachable_not_a_traceback(aios: Aios) -> None:
    with living_kernel():
        rundir.socket_path("default").rename(rundir.socket_path("default").with_suffix(".moved"))
        code, _out, err = aios("ps")
        rundir.socket_path("default").with_suffix(".moved").rename(rundir.socket_path("default"))
    assert code == 125
    assert "does not answer" in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from aios.cli.main import main
    from aios.errors import KernelUnreachable

    monkeypatch.setenv("AIOS_DEBUG", "2")
    with pytest.raises(KernelUnreachable):
        main(["ps"])


def test_logs_tell_what_a_process_did_and_only_that(aios: Aios) -> None:
    with living_kernel() as living:
        first = living.do(lambda: living.kernel.spawn("first"))
        living.do(lambda: living.kernel.spawn("second"))
        living.do(
            lambda: living.kernel.emit(events.TokensStreamed(pid=first, context="c", text="a\x1b[2Jb", num_tokens=1))
        )
        code, out, _err = aios("logs", str(first))
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 2
    assert "process.spawned" in lines[0]
    assert "name=first" in lines[0]
    assert "text='a\\x1b[2Jb'" in lines[1]


def test_logs_of_a_process_that_never_was_are_a_mistake(aios: Aios) -> None:
    with living_kernel() as living:
        living.do(lambda: living.kernel.spawn("first"))
        code, out, err = aios("logs", "999")
    assert (code, out) == (2, "")
    assert "logs 999" in err
    assert "aios ps --all" in err


def test_long_logs_are_read_to_the_end(aios: Aios) -> None:
    with living_kernel() as living:
        pid = living.do(lambda: living.kernel.spawn("busy"))
        for number in range(2100):
            event = events.ChildWaited(pid=pid, child=number, code=0)
            living.do(partial(living.kernel.emit, event))
        rows = [json.loads(line) for line in aios("logs", str(pid), "--json").out.splitlines()]
    assert [row["child"] for row in rows[1:]] == list(range(2100))


def test_following_logs_goes_on_until_the_kernel_ends(aios: Aios) -> None:
    outcome: list[str] = []
    with living_kernel() as living:
        pid = living.do(lambda: living.kernel.spawn("busy"))
        other = living.do(lambda: living.kernel.spawn("other"))
        found = wire.connect(None)
        follower = threading.Thread(target=lambda: outcome.extend(row["kind"] for row in found.events(2, pid)))
        follower.start()
        while not living.do(lambda: living.kernel.num_watchers):
            pass
        living.do(lambda: living.kernel.emit(events.ChildWaited(pid=other, child=9, code=0)))
        living.do(lambda: living.kernel.emit(events.ChildWaited(pid=pid, child=9, code=0)))
    follower.join(30)
    assert outcome == ["process.waited"]
