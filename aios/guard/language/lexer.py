"""Rule text to tokens, each with its place.

Owns spelling: words, numbers, durations, strings, signs. Knows no grammar.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from aios.errors import RuleError

_WORDS = """
    viability tool always ok safe user group const shared register on at set relation latest by add rule scenario
    each in if Bool Int Time Id Str Json Decimal round require before forbid when limit of per within to after do
    unless else finish requires count sum min max distinct start err lost where any say confirm implies exists forall
    or and since not once previously confirmed matches between calls over true false unknown allow deny wait"""
KEYWORDS = frozenset(re.findall(r"\w+", _WORDS))

_MOST_DIGITS = 100
_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<part>\f)
      | (?P<duration>[0-9]+(?:ms|s|m|h|d)(?![A-Za-z0-9_.]))
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9_]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<sign>->|!=|<=|>=|[()\[\]{}:,.=|?*<>+\-])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a rule file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is `word`, `keyword`, `number`, `duration`, `string`, `sign`, `part` or `end`; `text` as written.

    A `part` (form feed) ends the declaration before it: texts joined by it cannot continue each other.
    """

    kind: str
    text: str
    at: Span


@dataclass(frozen=True, slots=True)
class Source:
    """A rule file's name and text; says what is wrong where."""

    file: str
    text: str

    def fail(self, at: Span, message: str, kind: str = "syntax") -> NoReturn:
        """Raise RuleError at `at`, with the line and a caret."""
        lines = self.text.split("\n")
        line = lines[at.line - 1].rstrip("\r") if at.line <= len(lines) else ""
        raise RuleError(message, file=self.file, line=at.line, column=at.column, text=line, kind=kind)


def tokens(source: Source) -> list[Token]:
    """Cut the text into tokens; the last one is of kind `end`."""
    return list(_scan(source))


def string_value(text: str) -> str:
    """Read a STRING token (JSON escapes). Raises ValueError."""
    value = json.loads(text)
    assert isinstance(value, str)
    return value


def duration_micros(text: str) -> int:
    """Read a DURATION token as microseconds."""
    digits = text.rstrip("mshd")
    return int(digits) * _UNITS[text[len(digits) :]]


def _scan(source: Source) -> Iterator[Token]:
    text, offset, line, begin = source.text, 0, 1, 0
    while offset < len(text):
        at = Span(line, offset - begin + 1)
        found = _TOKEN.match(text, offset)
        if found is None:
            source.fail(at, _wrong(text[offset:]))
        offset = found.end()
        kind = found.lastgroup
        assert kind is not None
        if kind == "newline":
            line, begin = line + 1, offset
        elif kind != "space":
            yield _token(source, kind, found.group(), at)
    yield Token("end", "", Span(line, offset - begin + 1))


def _token(source: Source, kind: str, text: str, at: Span) -> Token:
    if kind == "word" and text in KEYWORDS:
        return Token("keyword", text, at)
    if kind == "string":
        try:
            string_value(text)
        except ValueError:
            source.fail(at, 'a string is written as in JSON: "…" with \\", \\\\, \\n, \\uXXXX')
    if kind in ("number", "duration") and len(text) > _MOST_DIGITS:
        source.fail(at, f"a number has at most {_MOST_DIGITS} digits")
    return Token(kind, text, at)


def _wrong(rest: str) -> str:
    if rest[0] == '"':
        return "this string has no end on its line"
    if rest[0].isdigit():
        return "a number is digits, with digits after a point; a duration ends in ms, s, m, h or d"
    return f"{rest[0]!r} does not belong to the language"
