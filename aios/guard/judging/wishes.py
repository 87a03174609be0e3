"""What the result of a missing call should hold: values at paths, and elements of lists and maps.

Several rules wish for the same call; wishes for one element are put together, those that contradict each other ask for
two. Knows no rules and no trace.
"""

from dataclasses import dataclass, field
from typing import Any

from aios.guard.language.sorts import example
from aios.guard.language.syntax import Sort

Path = tuple[str, ...]


class Free(str):
    """A text that stands for any that fits."""

    __slots__ = ()


ANY = Free("")


@dataclass(slots=True)
class Elements:
    """A list, or the values of a map, that holds at least these elements; each tells some of its fields."""

    sort: Sort
    """Of the list or map."""
    found: list[dict[Path, Any]] = field(default_factory=list)

    def join(self, other: "Elements") -> None:
        """Take in the wishes of another rule."""
        for wish in other.found:
            same = next((one for one in self.found if _agree(one, wish)), None)
            if same is None:
                self.found.append(dict(wish))
            else:
                same.update({path: value for path, value in wish.items() if same.get(path, ANY) is ANY})

    def made(self, before: Any = None) -> Any:
        """As JSON, beside what is there."""
        made = [self._element(one) for one in self.found]
        if self.sort.kind == "Map":
            there = before if isinstance(before, dict) else {}
            return {**there, **{f"?{number}": one for number, one in enumerate(made)}}
        return [*(before if isinstance(before, list) else ()), *made]

    def _element(self, wish: dict[Path, Any]) -> Any:
        element = self.sort.element
        if () in wish or element is None:
            return wish.get((), "")
        whole = example(element)
        for path, value in wish.items():
            put(whole, path, value)
        return whole


def _agree(one: dict[Path, Any], other: dict[Path, Any]) -> bool:
    return all(one[path] is ANY or value is ANY or one[path] == value for path, value in other.items() if path in one)


class Wishes(dict[Path, Any]):
    """Path → value. The last wish for a value counts; elements are joined."""

    def wish(self, path: Path, value: Any) -> None:
        """Wish for something more."""
        before = self.get(path)
        if isinstance(before, Elements) and isinstance(value, Elements):
            before.join(value)
        else:
            self[path] = Elements(value.sort, list(value.found)) if isinstance(value, Elements) else value

    def join(self, other: "Wishes") -> None:
        """Take in the wishes of another rule."""
        for path, value in other.items():
            self.wish(path, value)

    def fill(self, result: Any) -> Any:
        """Put them into a result."""
        if () in self:
            whole = self[()]
            return whole.made() if isinstance(whole, Elements) else whole
        for path, value in self.items() if isinstance(result, dict) else ():
            put(result, path, value.made(_at(result, path)) if isinstance(value, Elements) else value)
        return result


def _at(whole: Any, path: Path) -> Any:
    for step in path:
        whole = whole.get(step) if isinstance(whole, dict) else None
    return whole


def put(whole: Any, path: Path, value: Any) -> None:
    """Set a field somewhere inside a record; what stands in the way and is no record gives way."""
    for step in path[:-1]:
        inner = whole.get(step)
        if not isinstance(inner, dict):
            inner = whole[step] = {}
        whole = inner
    whole[path[-1]] = value
