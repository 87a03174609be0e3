"""`aios rules fmt`: rule text laid out in one way, comments kept, line ends where their author put them.

Owns white space only: the tokens stay as they were, so the meaning cannot change. Each declaration begins at the
margin, what continues it is indented, and there is one blank line at most. Laying out twice changes nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from aios.guard.language.lexer import Source, Span, Token, tokens
from aios.guard.language.parser import parse

_INDENT = "  "
_CALLED = ("any", "say", "user", "confirm", "sum", "min", "max", "distinct", "Decimal")
"""Words of the language that stand right before a parenthesis."""
_TIGHT_BEFORE = (",", ")", "]", "}", ":", "?", ".")
_TIGHT_AFTER = ("(", "[", "{", ".")
_VALUES = ("true", "false", "unknown", "null")


class _Row(NamedTuple):
    """A line: its tokens, its comment, whether a declaration begins with it. Both empty: a blank line."""

    tokens: list[Token]
    comment: str
    is_start: bool


def laid_out(text: str, file: str = "<rules>") -> str:
    """Return the text in the one layout. Raises RuleError for what is no rule file."""
    starts = {decl.at for decl in parse(text, file).decls}
    rows = list(_rows(text, file, starts))
    lines: list[str] = []
    for index, row in enumerate(rows):
        if row.tokens or row.comment:
            lines.append(_line(row, is_inside=_is_inside(rows, index)))
        elif lines and lines[-1]:
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n" if lines else ""


def _rows(text: str, file: str, starts: set[Span]) -> Iterator[_Row]:
    by_line: dict[int, list[Token]] = {}
    for token in tokens(Source(file, text)):
        by_line.setdefault(token.at.line, []).append(token)
    for number, written in enumerate(text.split("\n"), 1):
        yield from _split([token for token in by_line.get(number, []) if token.kind != "end"], written, starts)


def _split(found: list[Token], written: str, starts: set[Span]) -> Iterator[_Row]:
    """A line of its own for each declaration that begins on one."""
    end = found[-1].at.column - 1 + len(found[-1].text) if found else 0
    comment = written[written.index("#", end) :].rstrip() if "#" in written[end:] else ""
    begun: list[Token] = []
    for token in found:
        is_apart = token.at in starts or token.kind == "part"
        if begun and (is_apart or begun[-1].kind == "part"):
            yield _Row(begun, "", begun[0].at in starts)
            begun = []
        begun.append(token)
    yield _Row(begun, comment, bool(begun) and begun[0].at in starts)


def _is_inside(rows: list[_Row], index: int) -> bool:
    """Whether a line continues a declaration; a comment goes with the next line that has tokens."""
    row = rows[index]
    if not row.tokens:
        row = next((later for later in rows[index:] if later.tokens), row)
    return bool(row.tokens) and not row.is_start and row.tokens[0].kind != "part"


def _line(row: _Row, *, is_inside: bool) -> str:
    parts = [row.tokens[0].text] if row.tokens else []
    for index in range(1, len(row.tokens)):
        parts += [" " * _is_wide(row.tokens, index), row.tokens[index].text]
    text = "".join(parts)
    return (_INDENT if is_inside else "") + (f"{text}  {row.comment}" if text and row.comment else text + row.comment)


def _is_wide(found: list[Token], index: int) -> bool:
    """Whether a space stands before the token."""
    before, token = found[index - 1], found[index]
    if _is(token, *_TIGHT_BEFORE) or _is(before, *_TIGHT_AFTER):
        return False
    if _is(token, "["):
        return before.kind != "word"
    if _is(token, "("):
        return not (before.kind == "word" or (before.kind == "keyword" and before.text in _CALLED))
    return not (_is(before, "-") and _is_unary(found, index - 1))


def _is_unary(found: list[Token], index: int) -> bool:
    """Whether a minus is the sign of a number (in the JSON of a scenario)."""
    if index == 0:
        return True
    before = found[index - 1]
    return _is(before, ":", ",", "[", "(", "{") or (before.kind == "keyword" and before.text not in _VALUES)


def _is(token: Token, *signs: str) -> bool:
    return token.kind == "sign" and token.text in signs
