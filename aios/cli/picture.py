"""`top --once`: the monitor's picture as plain text."""

from aios.cli import approvals, meters, processes, wire


def once(kernel: str | None) -> None:
    """Print header, processes and what waits for a person."""
    found = wire.connect(kernel)
    status = found.ask("kernel.info")
    print(meters.title(status))
    print(meters.counters(status["core"]))
    print(meters.pool(meters.pages(status["core"])))
    processes.table(found.ask("proc.list", all=False))
    for waiting in found.ask("human.pending"):
        print(f"approval {waiting['id']} waits (pid {waiting['pid']}): {approvals.what(waiting)}")
