"""`ps`, `kill`, `stop`, `cont`, `logs`: looking at processes and signalling them."""

import time

from aios.cli import columns, output, wire
from aios.cli.columns import plain
from aios.cli.wire import Kernel, Row
from aios.errors import UsageError

SIGNALS = ("stop", "cont", "term", "kill")
_BY_NUMBER = {"9": "kill", "15": "term", "18": "cont", "19": "stop"}
_PAGE = 1000
_HIDDEN = ("seq", "time", "pid", "kind")


def ps(kernel: str | None, *, all: bool, json: bool) -> None:
    """Print the processes."""
    found = wire.connect(kernel)
    rows, cores = found.ask("proc.list", all=all), found.ask("kernel.info")["cores"]
    if json:
        output.as_json({"kernel": found.name, "cores": cores, "processes": rows})
        return
    if len(cores) > 1 or any(core["reason"] for core in cores):
        print("\n".join(map(core_line, cores)))
    table(rows)
    for row in rows:
        if row["recovery"]:
            print(f"pid {row['pid']}, {plain(row['recovery'])}")


def core_line(core: Row) -> str:
    """Write one core as a line: what it serves, whether it is up, how busy, why not."""
    state = "up" if core["is_up"] else "down"
    why = f": {core['reason']}" if core["reason"] else ""
    calls = "1 call" if core["calls"] == 1 else f"{core['calls']} calls"
    return plain(f"core {core['name']} ({', '.join(core['models'])}) {state}, {calls}{why}")


def table(rows: list[Row]) -> None:
    """Print a process table."""
    now = time.time()
    headings = [(column.heading, column.is_number) for column in columns.COLUMNS]
    output.table(headings, [columns.cells(row, now) for row in rows])


def signal(kernel: str | None, pids: list[int], name: str) -> None:
    """Send signal `name` (TERM, SIGTERM, term, 15) to each pid."""
    meant = signal_of(name)
    found = wire.connect(kernel)
    for pid in pids:
        found.ask("proc.signal", pid=pid, signal=meant)


def signal_of(name: str) -> str:
    """Return the signal meant by `name`. Raises UsageError with those there are."""
    word = name.lower().removeprefix("sig")
    meant = _BY_NUMBER.get(word, word)
    if meant not in SIGNALS:
        raise UsageError(f"kill: {name!r} is no signal of ours; there are {', '.join(SIGNALS)}")
    return meant


def logs(kernel: str | None, pid: int, *, follow: bool, json: bool) -> None:
    """Print the events of a process, oldest first; with `follow` go on as they happen."""
    found = wire.connect(kernel)
    last = _print_past(found, pid, json)
    if last == 0 and all(row["pid"] != pid for row in found.ask("proc.list", all=True)):
        raise UsageError(f"logs {pid}: kernel {found.name!r} had no such process; `aios ps --all` shows those it had")
    if not follow:
        return
    for event in found.events(last, pid):
        _print_event(event, json)
    output.note(f"kernel {found.name!r} has ended")


def _print_past(found: Kernel, pid: int, json: bool) -> int:
    """Print what is logged, page by page; return the number of the last event."""
    last = 0
    while True:
        page: list[Row] = found.ask("event.log", pid=pid, since=last, limit=_PAGE)
        for event in page:
            _print_event(event, json)
        last = page[-1]["seq"] if page else last
        if len(page) < _PAGE:
            return last


def _print_event(event: Row, json: bool) -> None:
    if json:
        output.as_json(event)
    else:
        print(event_line(event), flush=True)


def event_line(event: Row) -> str:
    """Write an event as one line: time, kind, what it says."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    said = " ".join(f"{name}={_value(value)}" for name, value in event.items() if name not in _HIDDEN and value != "")
    return f"{clock} {event['kind']:<16} {said}"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return repr(value) if isinstance(value, str) and not value.isidentifier() else plain(str(value))
