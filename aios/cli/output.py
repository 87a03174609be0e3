"""What commands print: tables for people, JSON for programs. People's words go to stderr when JSON was asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 500
"""Columns when nobody looks: a table in a pipe is never cut."""


def as_json(value: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def table(headings: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under `headings` (text, is it a number)."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for text, is_number in headings:
        grid.add_column(text, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else _WIDE, markup=False, emoji=False, highlight=False)
    if sys.stdout.isatty():
        console.print(grid)
    else:
        print("\n".join(_lines(console, grid)))


def _lines(console: Console, grid: Table) -> list[str]:
    """Write a table for a pipe: no padding at the ends of lines."""
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]


def note(text: str) -> None:
    """Say something to the person, not to the pipe."""
    print(text, file=sys.stderr, flush=True)
