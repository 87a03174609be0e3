"""A cursor over tokens, with the small productions that all others use: names, literals, sorts, extents."""

from decimal import Decimal
from typing import NoReturn

from aios.guard.language.lexer import Source, Token, duration_micros, string_value, tokens
from aios.guard.language.syntax import Extent, Literal, Sort, Window

_PLAIN = ("Bool", "Int", "Time", "Id", "Str", "Json")
_MAX_DEPTH = 48
"""A level of a formula takes a dozen frames of Python's own stack, which holds a thousand."""


class Reader:
    """Looks at one token at a time and never back."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tokens = tokens(source)
        self._index = 0
        self._depth = 0

    @property
    def here(self) -> Token:
        """The token under the cursor."""
        return self._tokens[self._index]

    @property
    def next(self) -> Token:
        """The token after it."""
        return self._tokens[min(self._index + 1, len(self._tokens) - 1)]

    def step(self) -> Token:
        """Go on, and return the token that was under the cursor."""
        token = self.here
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def wrong(self, message: str) -> NoReturn:
        """Refuse the token under the cursor."""
        found = "the end of the file" if self.here.kind == "end" else repr(self.here.text)
        self.source.fail(self.here.at, f"{message}; found {found}")

    def is_at(self, text: str) -> bool:
        """Whether the keyword or sign `text` stands here."""
        return self.here.text == text and self.here.kind in ("keyword", "sign")

    def take(self, text: str) -> bool:
        """Step over the keyword or sign `text` if it stands here."""
        if not self.is_at(text):
            return False
        self.step()
        return True

    def want(self, text: str, message: str) -> None:
        """Step over `text`, or refuse with `message`."""
        if not self.take(text):
            self.wrong(message)

    def deeper(self) -> None:
        """Count one level of nesting; too many are refused before Python's own stack is."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self.source.fail(self.here.at, f"nested more than {_MAX_DEPTH} deep")

    def shallower(self) -> None:
        """Leave a level of nesting."""
        self._depth -= 1

    # --- small productions -----------------------------------------------------------------------------------------

    def name(self, what: str) -> str:
        """NAME"""
        if self.here.kind == "keyword":
            self.wrong(f"{what} is missing ('{self.here.text}' is a word of the language)")
        if self.here.kind != "word":
            self.wrong(f"{what} is missing")
        return self.step().text

    def label(self, what: str) -> str:
        """A NAME where only a label can stand (parameter, argument, field): words of the language are taken too."""
        if self.here.kind not in ("word", "keyword"):
            self.wrong(f"{what} is missing")
        return self.step().text

    def names(self) -> tuple[str, ...]:
        """NAME { "," NAME }"""
        found = [self.name("a name")]
        while self.take(","):
            found.append(self.name("a name"))
        return tuple(found)

    def labels(self) -> tuple[str, ...]:
        """Names of columns: words of the language are taken too."""
        found = [self.label("a column's name")]
        while self.take(","):
            found.append(self.label("a column's name"))
        return tuple(found)

    def string(self) -> str:
        """STRING"""
        if self.here.kind != "string":
            self.wrong("a string is missing")
        return string_value(self.step().text)

    def integer(self, what: str) -> int:
        """INT"""
        if self.here.kind != "number" or "." in self.here.text:
            self.wrong(f"{what} must be a whole number")
        return int(self.step().text)

    def literal(self) -> Literal:
        """STRING | NUMBER | true | false | unknown | DURATION"""
        token = self.here
        if token.kind == "string":
            return Literal(self.string(), Sort("Str"), token.at)
        if token.kind == "number":
            self.step()
            sort = Sort("Decimal", len(token.text.partition(".")[2])) if "." in token.text else Sort("Int")
            return Literal(Decimal(token.text), sort, token.at)
        if token.kind == "duration":
            self.step()
            return Literal(duration_micros(token.text), Sort("Duration"), token.at)
        if token.kind == "keyword" and token.text in ("true", "false"):
            self.step()
            return Literal(token.text == "true", Sort("Bool"), token.at)
        if not self.take("unknown"):
            self.wrong("a literal is missing: a string, a number, a duration, true, false or unknown")
        return Literal(None, Sort("Null"), token.at)

    def sort(self) -> Sort:
        """sort"""
        self.deeper()
        found = self._sort()
        self.shallower()
        return found

    def _sort(self) -> Sort:
        token = self.here
        if token.kind == "keyword" and token.text in _PLAIN:
            self.step()
            return Sort(token.text)
        if self.take("Decimal"):
            return self._decimal()
        if token.kind == "string":
            return self._enum()
        if self.take("["):
            element = self.sort()
            self.want("]", "']' is missing")
            return Sort("List", element=element)
        if not self.take("{"):
            self.wrong('a sort is Bool, Int, Time, Id, Str, Json, Decimal(n), "a" | "b", [sort] or {name: sort}')
        return self._braces()

    def _decimal(self) -> Sort:
        self.want("(", "Decimal is followed by its places: Decimal(2)")
        places = self.integer("the number of decimals")
        rounds = self.take(",")
        if rounds:
            self.want("round", "only 'round' can follow the places")
        self.want(")", "')' is missing")
        return Sort("Decimal", places, rounds)

    def _enum(self) -> Sort:
        values = [self.string()]
        while self.take("|"):
            values.append(self.string())
        return Sort("Enum", values=tuple(values))

    def _braces(self) -> Sort:
        if self.take("*"):
            self.want(":", "':' is missing: {*: sort}")
            element = self.sort()
            self.want("}", "'}' is missing")
            return Sort("Map", element=element)
        fields = [self._field()]
        while self.take(","):
            fields.append(self._field())
        self.want("}", "'}' or ',' is missing")
        return Sort("Record", fields=tuple(fields))

    def _field(self) -> tuple[str, Sort]:
        name = self.label("a field's name")
        self.want(":", "a field is 'name: sort'")
        return name, self.sort()

    def extent(self) -> Extent:
        """INT "calls" | DURATION"""
        token = self.here
        if token.kind == "duration":
            self.step()
            return Extent(duration_micros(token.text))
        if token.kind != "number":
            self.wrong("a window is a fixed duration (10m) or a number of calls (5 calls)")
        amount = self.integer("a number of calls")
        self.want("calls", "'calls' or a unit is missing (ms, s, m, h, d)")
        return Extent(amount, calls=True)

    def window(self) -> Window | None:
        """[ "within" window | "between" window "and" window ]"""
        at = self.here.at
        if self.take("within"):
            return Window(None, self.extent(), at)
        if not self.take("between"):
            return None
        low = self.extent()
        self.want("and", "'and' is missing: between 1m and 5m")
        return Window(low, self.extent(), at)
