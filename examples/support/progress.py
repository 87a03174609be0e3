"""What a watcher of the support desk sees: a live table on a terminal, plain lines anywhere else.

Knows the kernel only through its events and process table.
"""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import aios
from aios.abi.events import (
    AnyEvent,
    ApprovalAsked,
    ApprovalDecided,
    ContextSwitched,
    CoreLost,
    CoreReady,
    GateJudged,
    ProcessExited,
    ProcessSpawned,
    TokenMasked,
    ToolFinished,
)
from aios.abi.process import ProcessInfo
from aios.abi.syscalls import ProcList
from support.judge import Tally


def line(event: AnyEvent, names: dict[int, str]) -> str | None:
    """Tell one event in words; None for those that would only make noise."""
    if isinstance(event, ProcessSpawned):
        names[event.pid] = event.name
    who = names.get(event.pid, f"pid {event.pid}")
    match event:
        case TokenMasked():
            return f"{who}: wanted {event.token_text!r}, forbidden by {event.rule}; took {event.taken_text!r} instead"
        case GateJudged(verdict="deny"):
            return f"{who}: {event.tool} denied by {', '.join(event.rules)}"
        case ToolFinished():
            return f"{who}: {event.tool} {event.status}"
        case ApprovalAsked():
            return f"{who}: waits for an approval: {event.what}"
        case ApprovalDecided():
            return f"{who}: approval {event.approval} {event.state}"
        case ContextSwitched(tier="disk"):
            return f"{who}: context {event.direction} {'to' if event.direction == 'out' else 'from'} disk"
        case ProcessExited():
            return f"{who}: done" if event.code == 0 else f"{who}: exit {event.code}, {event.reason}"
        case CoreReady():
            return f"model {event.model} ready"
        case CoreLost():
            return f"engine lost: {event.reason}"
        case _:
            return None


@asynccontextmanager
async def shown(kernel: str, counts: Tally) -> AsyncIterator[Callable[[AnyEvent], None]]:
    """Show the desk at work while the body runs; call what is yielded with every event."""
    console = Console()
    names: dict[int, str] = {}
    if not console.is_terminal:
        yield lambda event: _print(line(event, names))
        return
    async with anyio.create_task_group() as group:
        with Live(console=console, refresh_per_second=4) as live:
            group.start_soon(_refresh, live, kernel, counts, names)
            yield lambda event: _above(live, line(event, names))
        group.cancel_scope.cancel()


async def _refresh(live: Live, kernel: str, counts: Tally, names: dict[int, str]) -> None:
    # Looked at from outside, as `aios top` does: the desk's own syscalls stay the same in every run.
    async with aios.connect_operator(kernel) as operator:
        async for rows in operator.poll(ProcList(), every_s=0.25):
            processes = [ProcessInfo.model_validate(row) for row in rows]
            names.update({process.pid: process.name for process in processes})
            live.update(_table(processes, counts))


def _table(rows: Sequence[ProcessInfo], counts: Tally) -> Table:
    caption = (
        f"{counts.forward_passes} forward passes, {counts.switches_mid_generation} switches in mid-generation, "
        f"{counts.pages_swapped} pages swapped, {len(counts.masked)} tokens masked"
    )
    table = Table(caption=caption, title="support desk")
    for heading in ("pid", "agent", "state", "in", "out", "tok/s", "pages dev/host/disk", "calls"):
        table.add_column(heading, justify="left" if heading in {"agent", "state"} else "right", no_wrap=True)
    for row in rows:
        pages = f"{row.kv_device_pages}/{row.kv_host_pages}/{row.kv_disk_pages}"
        state = f"{row.state} {row.reason}".strip()
        usage = row.usage
        cells = (row.pid, row.name, state, usage.tokens_in, usage.tokens_out, f"{row.tokens_per_s:.0f}", pages)
        table.add_row(*(Text(str(cell)) for cell in cells), Text(str(usage.tool_calls)))
    return table


def _print(text: str | None) -> None:
    if text is not None:
        print(text, file=sys.stdout, flush=True)


def _above(live: Live, text: str | None) -> None:
    if text is not None:
        live.console.print(Text(text))
