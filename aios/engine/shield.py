"""What people and tools say, on its way through a chat template: it can neither write nor complete a marker.

A template trims, splits, slices and quotes what it is given, so texts pass through it as they are, but for the signs
with which the spellings of markers begin and end (`<` and `>` of `<|im_end|>`): those are exchanged for characters of
Unicode's private planes that the conversation does not use. What is a marker in the template's output is decided
before they are put back. A template that itself writes both ends of a marker around a text is not made safe.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

_PLANE = range(0xF0000, 0xFFFFE)
_PRIVATE = re.compile(f"[{chr(_PLANE[0])}-{chr(_PLANE[-1])}]")
_JSON_SIGNS = '"\\'
"""Exchanged, they would not be escaped where a template quotes a text."""


class Covered(NamedTuple):
    """A conversation that is fit for a template."""

    facts: dict[str, Any]
    uncover: Callable[[str], str]
    """Puts the signs back."""


class Shield:
    """Covers conversations against the spellings of one vocabulary's markers."""

    def __init__(self, spellings: Iterable[str]) -> None:
        self._signs = sorted({sign for spelling in spellings for sign in _ends(spelling)})

    def cover(self, facts: Mapping[str, Any]) -> Covered:
        """Exchange the signs in every text of `facts`, keys included; lone surrogates become question marks."""
        used = set(_PRIVATE.findall(json.dumps(facts, ensure_ascii=False)))
        spare = islice((sign for sign in map(chr, _PLANE) if sign not in used), len(self._signs))
        # A conversation that uses the whole plane loses its last signs to spaces rather than to a marker.
        there = dict.fromkeys(map(ord, self._signs), " ") | dict(zip(map(ord, self._signs), spare, strict=False))
        back = {ord(private): chr(sign) for sign, private in there.items() if private != " "}
        covered = {key: _exchanged(value, there) for key, value in facts.items()}
        return Covered(covered, lambda text: text.translate(back))


def _ends(spelling: str) -> set[str]:
    """The first and the last sign of a spelling; letters, digits and blanks are left to templates to look at."""
    signs = [sign for sign in spelling if not sign.isalnum() and not sign.isspace() and sign not in _JSON_SIGNS]
    return {signs[0], signs[-1]} if signs else set()


def _exchanged(value: Any, there: dict[int, str]) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().translate(there)
    if isinstance(value, Mapping):
        return {_exchanged(key, there): _exchanged(item, there) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exchanged(item, there) for item in value]
    return value
