"""`approve` and `deny`: a person's decision, bound to exactly the call that was shown."""

from aios.cli import output, wire
from aios.cli.columns import plain
from aios.cli.wire import Kernel, Row
from aios.errors import UsageError
from aios.formats.canonical import canonical


def decide(
    kernel: str | None, approval: int | None, *, allow: bool, digest: str | None, answer: str, json: bool
) -> None:
    """Decide `approval`; without a number list what waits."""
    found = wire.connect(kernel)
    if approval is None:
        _list(found, json)
        return
    shown = _waiting(found, approval)
    decided = found.ask(
        "human.approve", approval=approval, allow=allow, digest=digest or shown["digest"] or None, answer=answer
    )
    if json:
        output.as_json(decided)
    else:
        print(f"{decided['state']}: approval {approval}, pid {shown['pid']}: {what(shown)}")


def what(approval: Row) -> str:
    """Write what is to be decided: the canonical call, or the question."""
    if approval["tool"]:
        return plain(f"{approval['tool']}({canonical(approval['arguments'])})")
    return plain(approval["question"])


def _waiting(found: Kernel, approval: int) -> Row:
    """Find it among those that wait, so that the decision binds to the digest of what is printed."""
    rows: list[Row] = found.ask("human.pending")
    for row in rows:
        if row["id"] == approval:
            return row
    numbers = ", ".join(str(row["id"]) for row in rows) or "none"
    raise UsageError(f"approval {approval}: nothing waits under this number; waiting: {numbers}")


def _list(found: Kernel, json: bool) -> None:
    rows: list[Row] = found.ask("human.pending")
    if json:
        output.as_json({"kernel": found.name, "approvals": rows})
        return
    headings = [("ID", True), ("PID", True), ("KIND", False), ("WHAT", False), ("WHY", False), ("DIGEST", False)]
    output.table(headings, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    return str(row["id"]), str(row["pid"]), row["kind"], what(row), plain(row["why"]), row["digest"]
