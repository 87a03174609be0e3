"""Walking a syntax tree."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def walk(part: Any) -> Iterator[Any]:
    """Yield all parts of a syntax tree, the whole first."""
    yield part
    if isinstance(part, tuple):
        for item in part:
            yield from walk(item)
    elif is_dataclass(part):
        for one in fields(part):
            yield from walk(getattr(part, one.name))
