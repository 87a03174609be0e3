"""The texts that occur in symbolic runs: those that the rule file writes, a few more, and some that fit its patterns.

Owns their numbers. Those that mean nothing come first: a solver likes low numbers, and examples read better.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from re import _constants as codes
from re import _parser as parser
from typing import Any

from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import Apply, Confirmed, Literal, Matches, RuleFile, Scenario, Sort
from aios.guard.monitor.origins import occurs

ANSWERS = ("yes", "no", "withdraw")
FRESH = ("k1", "k2", "k3")
"""Texts of no meaning: ids, names, anything."""
DIGESTS = 32
"""The most digests of calls in a run."""
NEUTRAL = "-"
"""The text of fields that no rule reads."""
_PRINCIPALS = ("ann", "bob", "cid", "dan", "eve")


@dataclass(frozen=True, slots=True)
class Universe:
    """All texts."""

    texts: tuple[str, ...]
    num_ordinary: int
    """The first so many are what arguments and results may be; the others are words of events."""
    principals: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def everything(self) -> str:
        """A text in which each ordinary text occurs."""
        return " ".join(self.texts[: self.num_ordinary])

    @property
    def width(self) -> int:
        """Bits that number a text, or one of the digests behind them."""
        return (len(self.texts) + DIGESTS).bit_length()

    def code(self, text: str) -> int:
        """The number of a text."""
        return self.texts.index(text)

    def that(self, holds: Callable[[str], object]) -> Iterator[int]:
        """The numbers of the texts for which it holds."""
        return (number for number, text in enumerate(self.texts) if holds(text))


def universe(file: RuleFile, symbols: Symbols) -> Universe:
    """Gather the texts of a file."""
    written: dict[str, None] = {}
    by = 1
    for part in parts_of([decl for decl in file.decls if not isinstance(decl, Scenario)]):
        if isinstance(part, Literal) and isinstance(part.value, str):
            written[part.value] = None
        elif isinstance(part, Sort):
            written.update(dict.fromkeys(part.values))
        elif isinstance(part, Matches):
            written.update(dict.fromkeys(samples(part.pattern)))
        elif isinstance(part, Confirmed):
            by = max(by, part.by)
        elif isinstance(part, Apply) and part.function in ("starts", "ends", "contains"):
            for term in part.terms:
                if isinstance(term, Literal) and isinstance(term.value, str):
                    written[f"{term.value} {FRESH[0]}"] = written[f"{FRESH[0]} {term.value}"] = None
    principals = _PRINCIPALS[: max(2, by)] + tuple(f"p{number}" for number in range(len(_PRINCIPALS), by))
    labels = tuple(dict.fromkeys(["user", *(f"tool:{tool}" for tool in symbols.tools), *written]))
    ordinary = list(dict.fromkeys([*FRESH, *written]))
    others = dict.fromkeys([NEUTRAL, " ".join(ordinary), *ANSWERS, *principals, *labels])
    texts = (*ordinary, *(text for text in others if text not in ordinary))
    return Universe(texts, len(ordinary), principals, labels)


RELATIONS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "starts": str.startswith,
    "ends": str.endswith,
    "holds": lambda text, part: occurs(part, text),
    "<=": lambda text, other: text <= other,
}


@lru_cache(maxsize=64)
def related(texts: tuple[str, ...], relation: str) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The numbers of the texts that are related to others, each with theirs."""
    test = RELATIONS[relation]
    found = (
        (number, tuple(other for other, part in enumerate(texts) if part != text and test(text, part)))
        for number, text in enumerate(texts)
    )
    return tuple(one for one in found if one[1])


def parts_of(root: Any) -> Iterator[Any]:
    """Every node of a syntax tree, from the top."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list | tuple):
            waiting += reversed(node)
        elif is_dataclass(node):
            yield node
            waiting += [getattr(node, part.name) for part in reversed(fields(node))]


# --- texts that fit a pattern --------------------------------------------------------------------------------------


def samples(pattern: str) -> list[str]:
    """Some texts that match a pattern, short ones; none where they are hard to find."""
    try:
        tree = parser.parse(pattern)
        found = dict.fromkeys(_written(tree, few) for few in (True, False))
    except (RecursionError, OverflowError, NotImplementedError):
        return []
    return [text for text in found if len(text) <= 64 and re.fullmatch(pattern, text)]


def _written(tree: Any, few: bool) -> str:
    """One text: with few repetitions and first choices, or with one more and last choices."""
    return "".join(_one(op, argument, few) for op, argument in tree)


def _one(op: Any, argument: Any, few: bool) -> str:
    if op is codes.LITERAL:
        return chr(argument)
    if op is codes.NOT_LITERAL:
        return "x" if argument != ord("x") else "y"
    if op is codes.ANY:
        return "x"
    if op is codes.IN:
        return _of_class(argument)
    if op is codes.SUBPATTERN:
        return _written(argument[-1], few)
    if op is codes.BRANCH:
        return _written(argument[1][0 if few else -1], few)
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        least, most, inner = argument
        times = min(int(least) if few else min(int(least) + 1, int(most)), 64)
        return _written(inner, few) * times
    if op is codes.AT:
        return ""
    raise NotImplementedError(str(op))


def _of_class(items: Any) -> str:
    for candidate in "x1 -_A.,#@\n\u00e9":
        if re.fullmatch(_class_text(items), candidate):
            return candidate
    first = next((argument for op, argument in items if op is codes.LITERAL), None)
    if first is None:
        first = next((argument[0] for op, argument in items if op is codes.RANGE), ord("x"))
    return chr(first)


def _class_text(items: Any) -> str:
    """A class written again."""
    names = {
        codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_SPACE: r"\s",
        codes.CATEGORY_NOT_SPACE: r"\S", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W",
    }  # fmt: skip
    text = ""
    for op, argument in items:
        if op is codes.NEGATE:
            text = "^"
        elif op is codes.LITERAL:
            text += re.escape(chr(argument))
        elif op is codes.RANGE:
            text += f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
        else:
            text += names[argument]
    return f"[{text}]"
