"""The process table's columns, once for `ps`, `top` and `top --once`.

A row is a `ProcessInfo` as JSON. Names and reasons come from programs and models: everything shown goes through
`plain`, so that no text can move the cursor, colour the screen or reverse its direction.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]

_NAME_WIDTH = 24
_STATE_WIDTH = 28


class Column(NamedTuple):
    """A heading, what stands under it at time `now` (seconds since the epoch), and whether it is a number."""

    heading: str
    text: Callable[[Row, float], str]
    is_number: bool = True


def plain(text: str, width: int | None = None) -> str:
    """Make `text` harmless on a screen: what is not printable is shown as an escape; cut at `width` characters."""
    shown = "".join(char if char.isprintable() else _escape(char) for char in text)
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def count(number: float) -> str:
    """Write a count in at most five characters: 999, 12.3k, 4.5M."""
    for limit, unit, divisor in ((10_000, "", 1), (1_000_000, "k", 1e3), (1e9, "M", 1e6)):
        if number < limit:
            return f"{number:.0f}" if divisor == 1 else f"{number / divisor:.4g}{unit}"
    return f"{number / 1e9:.4g}G"


def age(seconds: float) -> str:
    """Write a duration in its two largest units."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def state(row: Row) -> str:
    """Write the state with its reason, if there is one."""
    text = f"{row['state']}({row['reason']})" if row["reason"] else row["state"]
    return plain(text, _STATE_WIDTH)


def _kv(row: Row) -> str:
    return f"{row['kv_device_pages']}/{row['kv_host_pages']}/{row['kv_disk_pages']}"


def _age(row: Row, now: float) -> str:
    ended = row["ended_s"]
    return age((now if ended is None else ended) - row["started_s"])


COLUMNS = (
    Column("PID", lambda row, _now: str(row["pid"])),
    Column("PPID", lambda row, _now: str(row["ppid"])),
    Column("NAME", lambda row, _now: plain(row["name"], _NAME_WIDTH), is_number=False),
    Column("STATE", lambda row, _now: state(row), is_number=False),
    Column("CLASS", lambda row, _now: row["klass"], is_number=False),
    Column("LEVEL", lambda row, _now: row["level"], is_number=False),
    Column("NI", lambda row, _now: str(row["nice"])),
    Column("TOK-IN", lambda row, _now: count(row["usage"]["tokens_in"])),
    Column("TOK-OUT", lambda row, _now: count(row["usage"]["tokens_out"])),
    Column("TOK/S", lambda row, _now: f"{row['tokens_per_s']:.1f}"),
    Column("KV", lambda row, _now: _kv(row)),
    Column("TOOLS", lambda row, _now: count(row["usage"]["tool_calls"])),
    Column("DENIED", lambda row, _now: count(row["usage"]["denied"])),
    Column("AGE", _age),
)


def cells(row: Row, now: float) -> tuple[str, ...]:
    """Write one process as the texts under `COLUMNS`."""
    return tuple(column.text(row, now) for column in COLUMNS)
