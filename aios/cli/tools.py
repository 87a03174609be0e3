"""`tools ls` and `tools show`: what tools a living kernel knows."""

from aios.cli import output, wire
from aios.cli.columns import plain
from aios.cli.wire import Row
from aios.errors import UsageError
from aios.formats.canonical import canonical


def ls(kernel: str | None, *, json: bool) -> None:
    """Print the tools, one a line."""
    found = wire.connect(kernel)
    rows: list[Row] = found.ask("tool.list")
    if json:
        output.as_json({"kernel": found.name, "tools": rows})
        return
    headings = [("NAME", False), ("EFFECT", False), ("ARGUMENTS", False), ("DESCRIPTION", False)]
    output.table(headings, [_cells(row) for row in rows])


def show(kernel: str | None, name: str, *, json: bool) -> None:
    """Print one tool's specification."""
    row = _find(wire.connect(kernel).ask("tool.list"), name)
    if json:
        output.as_json(row)
    else:
        print("\n".join(_described(row)))


def _find(rows: list[Row], name: str) -> Row:
    for row in rows:
        if row["name"] == name:
            return row
    known = ", ".join(row["name"] for row in rows) or "none"
    raise UsageError(f"tool {name!r}: the kernel knows no such tool; it knows: {known}")


def _cells(row: Row) -> tuple[str, ...]:
    first_line = row["description"].partition("\n")[0]
    return row["name"], row["effect"], ", ".join(row["parameters"].get("properties", {})), plain(first_line, 60)


def _described(row: Row) -> list[str]:
    """Write name, effect, description and each argument's schema, a line each."""
    arguments = row["parameters"].get("properties", {})
    required = row["parameters"].get("required", [])
    marks = {name: "" if name in required else " (optional)" for name in arguments}
    approval = ", each call waits for approval" if row["needs_approval"] else ""
    return [
        f"{row['name']}: effect {row['effect']}{approval}",
        *(f"  {plain(line)}" for line in row["description"].splitlines()),
        *(f"  {plain(name)}{marks[name]}: {plain(canonical(schema))}" for name, schema in arguments.items()),
    ]
