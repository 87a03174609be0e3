"""Sets of texts as automata that read a text while it is written: what a text argument may become.

Owns products: any Boolean combination of automata runs as one, and tells whether a text under way can still become a
member (`is_live`). Knows characters; neither bytes nor tokens nor rules.
A state is hashable; None is the state from which nothing is accepted.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from aios.guard.language.charsets import Alphabet, Charset, category, charset
from aios.guard.language.values import order

_MOST_VISITED = 20_000
"""States looked at for one question; beyond, a text may go on: the gate decides."""


class Automaton(Protocol):
    """Reads a text character by character."""

    @property
    def start(self) -> Hashable:
        """Where nothing was read."""

    @property
    def sets(self) -> Sequence[Charset]:
        """Two characters of the same of these sets that no state marks are alike to it."""

    def step(self, state: Any, char: str) -> Any:
        """The state behind one more character; None: nothing that goes on so is accepted."""

    def is_final(self, state: Any) -> bool:
        """Whether what was read is accepted."""

    def marks(self, state: Any) -> Iterable[str]:
        """Characters that stand for themselves here."""


class Listed:
    """Some texts."""

    sets: Sequence[Charset] = ()

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts)
        self._next: dict[str, set[str]] = {}
        for text in self._texts:
            for at, char in enumerate(text):
                self._next.setdefault(text[:at], set()).add(char)
            self._next.setdefault(text, set())
        self.start = ""

    def step(self, state: str, char: str) -> str | None:
        """The state is the text so far."""
        return state + char if char in self._next.get(state, ()) else None

    def is_final(self, state: str) -> bool:
        """Whether it is one of them."""
        return state in self._texts

    def marks(self, state: str) -> Iterable[str]:
        """What may follow."""
        return self._next.get(state, ())


class Holding:
    """Texts that begin with, end with or hold a constant."""

    sets: Sequence[Charset] = ()

    def __init__(self, kind: str, part: str) -> None:
        self._kind, self._part, self._chars = kind, part, tuple(dict.fromkeys(part))
        self.start = 0

    def step(self, state: int, char: str) -> int | None:
        """The state counts the characters of the constant that stand at the end of what was read."""
        size = len(self._part)
        if self._kind != "ends" and state == size:
            return state
        if self._kind == "starts":
            return state + 1 if self._part[state] == char else None
        read = self._part[:state] + char
        return next(count for count in range(min(len(read), size), -1, -1) if read.endswith(self._part[:count]))

    def is_final(self, state: int) -> bool:
        """Whether all of it was read."""
        return state == len(self._part)

    def marks(self, state: int) -> Iterable[str]:
        """The constant's characters."""
        return self._chars


class Sized:
    """Texts of some lengths, given by `test` for lengths up to `most`, all longer ones being alike."""

    sets: Sequence[Charset] = ()

    def __init__(self, test: Callable[[int], bool], most: int) -> None:
        self._test, self._most = test, most
        self.start = 0

    def step(self, state: int, char: str) -> int | None:
        """The state counts characters."""
        return min(state + 1, self._most)

    def is_final(self, state: int) -> bool:
        """Whether the length is one of them."""
        return self._test(state)

    def marks(self, state: int) -> Iterable[str]:
        """All characters are alike."""
        return ()


class Ordered:
    """Texts that stand before or behind a constant, by code points."""

    def __init__(self, sign: str, bound: str) -> None:
        self._sign, self._bound = sign, bound
        codes = {ord(char) for char in bound}
        self.sets: Sequence[Charset] = [charset([part]) for code in codes for part in ((0, code - 1), (code, code))]
        self.start: int | str = 0

    def step(self, state: int | str, char: str) -> int | str | None:
        """The state counts the characters that are those of the constant; then it is which side the text is on."""
        if isinstance(state, str):
            return state
        if state == len(self._bound) or char > self._bound[state]:
            return ">"
        return state + 1 if char == self._bound[state] else "<"

    def is_final(self, state: int | str) -> bool:
        """Whether the text is on the right side."""
        read = self._bound[:state] if isinstance(state, int) else ""
        if isinstance(state, str):
            return self._sign[0] == state
        return order(self._sign, read, self._bound) is True

    def marks(self, state: int | str) -> Iterable[str]:
        """What matters is in the sets."""
        return ()


_END = "\ud800"
"""Stands between texts: no text that comes from JSON holds it."""


class Occurring:
    """Texts that stand in one of some texts with no letter, digit or `_` beside them (`seen`)."""

    sets: Sequence[Charset] = ()

    def __init__(self, texts: Iterable[str]) -> None:
        found = sorted(set(texts))
        self._has_empty = "" in found
        self._all = _END + "".join(text + _END for text in found if text)
        is_word = _word_test()
        self._ends = bytearray(not is_word(char) for char in self._all)
        """By place: whether an occurrence may stand before it, or behind it."""
        begun: dict[str, list[int]] = {}
        for at in range(1, len(self._all)):
            if self._ends[at - 1] and self._all[at] != _END:
                begun.setdefault(self._all[at], []).append(at + 1)
        self._begun = {char: tuple(places) for char, places in begun.items()}
        self.start: tuple[int, ...] = (0,)

    def step(self, state: tuple[int, ...], char: str) -> tuple[int, ...] | None:
        """The state holds the places behind what was read."""
        if state == self.start:
            return self._begun.get(char)
        found = tuple([place + 1 for place in state if self._all[place] == char])
        return found or None

    def is_final(self, state: tuple[int, ...]) -> bool:
        """Whether one of the places is the end of a word."""
        if state == self.start:
            return self._has_empty
        return any(self._ends[place] for place in state)

    def marks(self, state: tuple[int, ...]) -> Iterable[str]:
        """What stands at the places."""
        if state == self.start:
            return self._begun
        return {self._all[place] for place in state} - {_END}


@lru_cache(maxsize=1)
def _word_test() -> Callable[[str], bool]:
    alphabet = Alphabet([category("\\w", is_ascii=False)])
    return lambda char: char != _END and bool(alphabet.members[alphabet.of(char)])


Shape = Any
"""How a language combines its automata: a number of one, or `("and" | "or", …)`, `("not", …)`."""


class Language:
    """A Boolean combination of automata, itself one; and what may still become of a text."""

    def __init__(self, parts: Sequence[Automaton], shape: Shape) -> None:
        self.parts, self.shape = tuple(parts), shape
        self.sets = tuple(chars for part in parts for chars in part.sets)
        self._alphabet = Alphabet(self.sets)
        self.start = tuple(part.start for part in parts)
        self._steps: dict[tuple[Any, str], Any] = {}
        self._live: dict[Any, bool] = {None: False}
        self._reps: dict[Any, list[str]] = {}
        self._depths: dict[Any, int] = {}

    def __and__(self, other: "Language") -> "Language":
        return self._with("and", other)

    def __or__(self, other: "Language") -> "Language":
        return self._with("or", other)

    def __invert__(self) -> "Language":
        return Language(self.parts, ("not", self.shape))

    def _with(self, head: str, other: "Language") -> "Language":
        parts = list(self.parts)
        places = []
        for part in other.parts:  # the same automaton runs once
            if part not in parts:
                parts.append(part)
            places.append(parts.index(part))
        return Language(parts, (head, self.shape, _moved(other.shape, places)))

    def step(self, state: Any, char: str) -> Any:
        """The states of all parts behind one more character."""
        if state is None:
            return None
        place = (state, char)
        found = self._steps.get(place)
        if found is None:
            moved = (None if old is None else part.step(old, char) for part, old in zip(self.parts, state, strict=True))
            found = self._steps[place] = tuple(moved)
        return found

    def is_final(self, state: Any) -> bool:
        """Whether what was read belongs to it."""
        return state is not None and self._holds(self.shape, state)

    def _holds(self, shape: Shape, state: Any) -> bool:
        if isinstance(shape, int):
            return state[shape] is not None and self.parts[shape].is_final(state[shape])
        if shape[0] == "not":
            return not self._holds(shape[1], state)
        return (all if shape[0] == "and" else any)(self._holds(part, state) for part in shape[1:])

    def marks(self, state: Any) -> frozenset[str]:
        """Characters that stand for themselves for one of the parts."""
        found = [part.marks(old) for part, old in zip(self.parts, state, strict=True) if old is not None]
        return frozenset(char for chars in found for char in chars)

    def has(self, text: str) -> bool:
        """Whether a text belongs to it."""
        return self.is_final(self.behind(text))

    def behind(self, text: str) -> Any:
        """The state behind a text."""
        state: Any = self.start
        for char in text:
            state = self.step(state, char)
        return state

    def following(self, state: Any) -> list[str]:
        """Characters that together stand for all that can follow: all others do what one of these does."""
        found = self._reps.get(state)
        if found is None:
            marks = self.marks(state)
            found = self._reps[state] = [*sorted(marks), *self._alphabet.representatives(marks)]
        return found

    def is_sparse(self, state: Any) -> bool:
        """Whether only characters that stand for themselves can follow."""
        others = self._alphabet.representatives(self.marks(state))
        return not any(self.is_live(self.step(state, char)) for char in others)

    def between(self, state: Any, low: int, high: int) -> list[str]:
        """The same for the characters with these code points."""
        marks = self.marks(state)
        inside = sorted(char for char in marks if low <= ord(char) <= high)
        return [*inside, *self._alphabet.representatives(marks, low, high)]

    def is_live(self, state: Any) -> bool:
        """Whether a text that was read up to here, or one that goes on, belongs to it."""
        found = self._live.get(state)
        return self._explored(state) if found is None else found

    def _explored(self, start: Any) -> bool:
        queue, origin = deque([start]), {start: None}
        while queue:
            state = queue.popleft()
            if self.is_final(state) or self._live.get(state):
                while state is not None:  # the whole way to it is live
                    self._live[state], state = True, origin[state]
                return True
            if len(origin) > _MOST_VISITED:
                return True
            for char in self.following(state):
                after = self.step(state, char)
                if after not in origin and self._live.get(after) is not False:
                    origin[after] = state
                    queue.append(after)
        self._live |= dict.fromkeys(origin, False)
        return False

    def depth(self, state: Any, most: int) -> int:
        """How many more characters may be anything at all, up to `most`."""
        found = self._depths.get(state)
        if found is None:
            found = self._depths[state] = self._loose(state, most)
        return min(found, most)

    def _loose(self, start: Any, most: int) -> int:
        level, seen = {start}, {start}
        for count in range(most):
            following = {self.step(state, char) for state in level for char in self.following(state)}
            if not all(self.is_live(state) for state in following):
                return count
            level = following - seen
            seen |= level
            if not level or len(seen) > _MOST_VISITED:
                return most if not level else count + 1
        return most


def _moved(shape: Shape, places: Sequence[int]) -> Shape:
    if isinstance(shape, int):
        return places[shape]
    return (shape[0], *(_moved(part, places) for part in shape[1:]))


def single(part: Automaton) -> Language:
    """The language of one automaton."""
    return Language((part,), 0)
