"""Which texts an open argument may be, read off a residual as a set instead of tried one by one.

Exact where it answers: the set of values for which the residual can be true (or false) agrees with `choices.worth`.
None where a residual is beyond it (order, whole calls, a case over another open argument).
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from aios.guard.language.values import UNKNOWN, Fresh, hashed


class Texts(NamedTuple):
    """Some texts, or (`others`) all texts but these."""

    others: bool
    texts: frozenset[str]

    def __and__(self, right: "Texts") -> "Texts":
        if self.others and right.others:
            return Texts(True, self.texts | right.texts)
        if self.others:
            return Texts(False, right.texts - self.texts)
        return Texts(False, self.texts - right.texts if right.others else self.texts & right.texts)

    def __invert__(self) -> "Texts":
        return Texts(not self.others, self.texts)

    def __or__(self, right: "Texts") -> "Texts":
        return ~(~self & ~right)


ALL, NONE = Texts(True, frozenset()), Texts(False, frozenset())
Args = dict[str, Any]
Worth = Callable[[Any, Args], int]
"""`choices.worth`."""


class Reader:
    """Reads sets for the argument `name` while `args` are decided."""

    def __init__(self, name: str, args: Args, worth: Worth) -> None:
        self._name, self._args, self._worth = name, dict(args), worth

    def texts(self, node: Any, wanted: bool, bit: tuple[int, int]) -> Texts | None:
        """The texts with which `node` can be `wanted`; `bit`: of false and of true in what `worth` returns."""
        if not isinstance(node, tuple):
            return ALL if self._worth(node, self._args) & bit[wanted] else NONE
        head = node[0]
        if head == "not":
            return self.texts(node[1], not wanted, bit)
        if head in ("and", "or"):
            return self._joined(node, wanted, bit)
        if head == "case":
            return self._case(node, wanted, bit)
        return self._leaf(node, wanted, bit)

    def _joined(self, node: Any, wanted: bool, bit: tuple[int, int]) -> Texts | None:
        parts = [self.texts(part, wanted, bit) for part in node[1:]]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        meets = (node[0] == "and") is wanted
        return reduce(lambda left, right: left & right if meets else left | right, known, ALL if meets else NONE)

    def _case(self, node: Any, wanted: bool, bit: tuple[int, int]) -> Texts | None:
        _, name, rows, other, unknown = node
        if name == self._name:
            return self._rows(rows, other, bit[wanted])
        if name not in self._args:
            return None
        value = self._args[name]
        if value is UNKNOWN:
            return self.texts(unknown, wanted, bit)
        row = None if isinstance(value, Fresh) else rows.get(hashed(value))
        return self.texts(other if row is None else row[1], wanted, bit)

    def _rows(self, rows: dict[Any, Any], other: Any, bit: int) -> Texts | None:
        if isinstance(other, tuple):
            return None
        args, fits, fails = dict(self._args), set[str](), set[str]()
        for value, part in rows.values():
            args[self._name] = value
            (fits if self._worth(part, args) & bit else fails).add(value)
        return Texts(True, frozenset(fails)) if self._worth(other, args) & bit else Texts(False, frozenset(fits))

    def _leaf(self, node: Any, wanted: bool, bit: tuple[int, int]) -> Texts | None:
        head = node[0]
        if head == "call":
            return None
        if head == "opaque" or self._name != (node[2] if head == "cmp" else node[1]):
            return ALL if self._worth(node, self._args) & bit[wanted] else NONE
        if head == "in":
            found = Texts(False, frozenset(node[2]))
        elif node[1] in ("=", "!="):
            found = Texts(node[1] == "!=", frozenset((node[3],)))
        else:
            return None
        return found if wanted else ~found
