"""Regular expressions as automata: what `re.fullmatch` says of a text, found while the text is written.

Built from the tree that `re` parses, so there is one dialect; what a single character may be is asked of `re` too.
A pattern whose meaning is not a regular language, or that is too large, has no automaton (`Irregular`): the mask
then leaves it to the gate. States are made when they are first reached.
"""

import re
import re._compiler as compiler  # type: ignore[import-not-found]  # the tree that `re` itself compiles; no stubs
import re._constants as words  # type: ignore[import-not-found]  # its words
import re._parser as parser  # type: ignore[import-not-found]  # its reader
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from aios.guard.language.charsets import ALL, Alphabet, Charset, category, charset, outside, scanned

_MOST_STATES = 4000
"""Places in a pattern, repeats written out."""
_CATEGORIES = {
    words.CATEGORY_DIGIT: "\\d", words.CATEGORY_NOT_DIGIT: "\\D", words.CATEGORY_SPACE: "\\s",
    words.CATEGORY_NOT_SPACE: "\\S", words.CATEGORY_WORD: "\\w", words.CATEGORY_NOT_WORD: "\\W",
}  # fmt: skip
_SINGLE = (words.LITERAL, words.NOT_LITERAL, words.IN, words.ANY)
_BOUNDARIES = (words.AT_BOUNDARY, words.AT_NON_BOUNDARY)
_TYPES = int(re.ASCII | re.UNICODE | re.LOCALE)
_NEWLINE: Charset = ((10, 10),)
_FREE, _LAST_NEWLINE, _OVER = 0, 1, 2
"""Behind a `$`: anything may follow; only a newline and then the end; nothing."""


class Irregular(ValueError):
    """The pattern has no automaton."""


class _Context(NamedTuple):
    """What stands beside a place: before it, and behind it (`after`: a character's sets, None: the end)."""

    at_start: bool
    word_before: bool
    newline_before: bool


class State(NamedTuple):
    """Where the matcher may be, and what was read last."""

    places: frozenset[tuple[int, int]]
    before: _Context


class _Nfa:
    """Places with edges: `empty` with a condition or None, `moves` over a set of characters."""

    def __init__(self, tree: Any) -> None:
        self.empty: list[list[tuple[Any, int]]] = []
        self.moves: list[list[tuple[int, int]]] = []
        self.sets: list[Charset] = []
        self._numbers: dict[Charset, int] = {}
        self.has_conditions = False
        self.boundaries: set[bool] = set()
        """Whether the words of `\\b` are ASCII, for each kind that occurs."""
        self.start = self._place()
        self.end = self._sequence(tree, self.start, tree.state.flags)

    def _place(self) -> int:
        if len(self.empty) >= _MOST_STATES:
            raise Irregular(f"the pattern has more than {_MOST_STATES} places")
        self.empty.append([])
        self.moves.append([])
        return len(self.empty) - 1

    def number(self, chars: Charset) -> int:
        """The place of a set among all sets."""
        if chars not in self._numbers:
            self._numbers[chars] = len(self.sets)
            self.sets.append(chars)
        return self._numbers[chars]

    def _sequence(self, items: Iterable[Any], at: int, flags: int) -> int:
        for item in items:
            at = self._item(item, at, flags)
        return at

    def _item(self, item: Any, at: int, flags: int) -> int:
        op, value = item
        if op in _SINGLE:
            end = self._place()
            self.moves[at].append((self.number(_single(op, value, flags)), end))
            return end
        if op is words.SUBPATTERN:
            _, added, removed, inner = value
            kept = flags & ~_TYPES if added & _TYPES else flags
            return self._sequence(inner, at, (kept | added) & ~removed)
        if op is words.BRANCH:
            end = self._place()
            for branch in value[1]:
                self.empty[self._sequence(branch, at, flags)].append((None, end))
            return end
        if op in (words.MAX_REPEAT, words.MIN_REPEAT):
            return self._repeated(value, at, flags)
        if op is words.AT:
            return self._condition(value, at, flags)
        raise Irregular(f"the pattern uses {str(op).lower()}")

    def _repeated(self, value: Any, at: int, flags: int) -> int:
        least, most, inner = value
        for _ in range(least):
            at = self._sequence(inner, at, flags)
        if most is words.MAXREPEAT:
            start = self._place()
            self.empty[at].append((None, start))
            self.empty[self._sequence(inner, start, flags)].append((None, start))
            return start
        end = self._place()
        for _ in range(most - least):
            self.empty[at].append((None, end))
            at = self._sequence(inner, at, flags)
        self.empty[at].append((None, end))
        return end

    def _condition(self, kind: Any, at: int, flags: int) -> int:
        self.has_conditions = True
        if flags & re.MULTILINE:
            kind = {words.AT_BEGINNING: words.AT_BEGINNING_LINE, words.AT_END: words.AT_END_LINE}.get(kind, kind)
        if kind in _BOUNDARIES:
            self.boundaries.add(bool(flags & re.ASCII))
        if len(self.boundaries) > 1:
            raise Irregular("the pattern has word boundaries of two kinds")
        end = self._place()
        self.empty[at].append((kind, end))
        return end


def _single(op: Any, value: Any, flags: int) -> Charset:
    if not flags & re.IGNORECASE:
        if op is words.LITERAL:
            return charset([(value, value)])
        if op is words.NOT_LITERAL:
            return outside(charset([(value, value)]))
        if op is words.ANY:
            return ALL if flags & re.DOTALL else outside(_NEWLINE)
        return _listed(value, is_ascii=bool(flags & re.ASCII))
    kind = flags & (re.IGNORECASE | re.DOTALL) | (flags & re.ASCII or re.UNICODE)
    return _asked(repr((op, value)), kind, (op, value))


def _listed(items: Any, *, is_ascii: bool) -> Charset:
    found: list[tuple[int, int]] = []
    for op, value in items:
        if op is words.LITERAL:
            found.append((value, value))
        elif op is words.RANGE:
            found.append(value)
        elif op is words.CATEGORY:
            found += category(_CATEGORIES[value], is_ascii=is_ascii)
    chars = charset(found)
    return outside(chars) if items and items[0][0] is words.NEGATE else chars


_ASKED: dict[tuple[str, int], Charset] = {}


def _asked(name: str, flags: int, item: Any) -> Charset:
    """Ask `re` which characters one item takes (letters of either case have their own folds there)."""
    if (name, flags) not in _ASKED:
        state = parser.State()
        one = parser.SubPattern(state, [item])
        runs = parser.SubPattern(state, [(words.MAX_REPEAT, (1, words.MAXREPEAT, one))])
        _ASKED[name, flags] = scanned(compiler.compile(runs, flags))
    return _ASKED[name, flags]


class Pattern:
    """Implements `languages.Automaton` for `matches`."""

    def __init__(self, pattern: str) -> None:
        """Raises Irregular."""
        tree = parser.parse(pattern)
        if tree.state.flags & re.LOCALE:
            raise Irregular("the pattern depends on a locale")
        self._nfa = _Nfa(tree)
        nfa = self._nfa
        self._newline = nfa.number(_NEWLINE)
        is_ascii = True in nfa.boundaries
        self._word = nfa.number(category("\\w", is_ascii=is_ascii)) if nfa.boundaries else -1
        self.sets: tuple[Charset, ...] = tuple(nfa.sets)
        self._alphabet = Alphabet(self.sets)
        self.start = State(frozenset([(nfa.start, _FREE)]), _Context(True, False, False))
        self._steps: dict[tuple[State, int], State | None] = {}
        self._finals: dict[State, bool] = {}

    def marks(self, state: State) -> Iterable[str]:
        """No character stands for itself alone."""
        return ()

    def step(self, state: State, char: str) -> State | None:
        """The state behind one more character; None: no text that goes on so matches."""
        place = (state, self._alphabet.of(char))
        if place not in self._steps:
            self._steps[place] = self._moved(*place)
        return self._steps[place]

    def _moved(self, state: State, number: int) -> State | None:
        inside = self._alphabet.members[number]
        found = set()
        for place, rest in self._closure(state, inside):
            if rest == _OVER or (rest == _LAST_NEWLINE and self._newline not in inside):
                continue
            for chars, end in self._nfa.moves[place]:
                if chars in inside:
                    found.add((end, _OVER if rest == _LAST_NEWLINE else _FREE))
        if not found:
            return None
        before = _Context(False, False, False)
        if self._nfa.has_conditions:
            before = _Context(False, self._word in inside, self._newline in inside)
        return State(frozenset(found), before)

    def is_final(self, state: State) -> bool:
        """Whether what was read matches."""
        if state not in self._finals:
            self._finals[state] = any(place == self._nfa.end for place, _ in self._closure(state, None))
        return self._finals[state]

    def _closure(self, state: State, after: frozenset[int] | None) -> set[tuple[int, int]]:
        """What is reached without a character, before one in the sets `after` or before the end."""
        found, stack = set(state.places), list(state.places)
        while stack:
            place, rest = stack.pop()
            for condition, end in self._nfa.empty[place]:
                left = rest if condition is None else self._kept(condition, state.before, after, rest)
                if left is not None and (end, left) not in found:
                    found.add((end, left))
                    stack.append((end, left))
        return found

    def _kept(self, kind: Any, before: _Context, after: frozenset[int] | None, rest: int) -> int | None:
        """What may follow if a condition holds here; None if it does not."""
        newline_next = after is not None and self._newline in after
        if kind in (words.AT_BEGINNING, words.AT_BEGINNING_STRING):
            return rest if before.at_start else None
        if kind is words.AT_BEGINNING_LINE:
            return rest if before.at_start or before.newline_before else None
        if kind is words.AT_END_LINE:
            return rest if after is None or newline_next else None
        if kind is words.AT_END_STRING:
            return rest if after is None else None
        if kind is words.AT_END:
            if after is None:
                return rest
            return max(rest, _LAST_NEWLINE) if newline_next and rest != _OVER else None
        if before.at_start and after is None:
            return None  # an empty text has neither boundary nor inside (as `re` of this Python holds)
        word_next = after is not None and self._word in after
        is_boundary = before.word_before is not word_next
        return rest if is_boundary is (kind is words.AT_BOUNDARY) else None


@lru_cache(maxsize=256)
def automaton(pattern: str) -> Pattern | None:
    """The automaton of a pattern; None if it has none."""
    try:
        return Pattern(pattern)
    except (Irregular, RecursionError):
        return None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as the monitor holds it."""
    return re.compile(pattern)


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Whether a text matches the whole pattern, in time linear in the text; None where that cannot be promised.

    `re` goes back and tries again, which may take for ever: it is trusted with patterns that leave it no choice.
    """
    if _is_straight(parser.parse(pattern)):
        found = compiled(pattern)
        return lambda text: found.fullmatch(text) is not None
    machine = automaton(pattern)
    return None if machine is None else partial(_runs_through, machine)


def _runs_through(machine: Pattern, text: str) -> bool:
    state: State | None = machine.start
    for char in text:
        state = None if state is None else machine.step(state, char)
        if state is None:
            return False
    return state is not None and machine.is_final(state)


def _is_straight(items: Any) -> bool:
    """Whether at most one part repeats as often as it likes, a single character, and nothing else inside of repeats."""
    free, waiting = 0, [(items, False)]
    while waiting:
        inside, is_repeated = waiting.pop()
        for op, value in inside:
            if op in (words.MAX_REPEAT, words.MIN_REPEAT, words.POSSESSIVE_REPEAT):
                least, most, body = value
                is_single = len(body) == 1 and body[0][0] in _SINGLE
                free += least != most
                if least != most and (is_repeated or not is_single):
                    return False
                waiting.append((body, True))
            elif op is words.BRANCH:
                if is_repeated:
                    return False
                waiting += [(branch, False) for branch in value[1]]
            elif op is words.SUBPATTERN:
                waiting.append((value[-1], is_repeated))
            elif op not in (*_SINGLE, words.AT):
                return False
    return free <= 1
