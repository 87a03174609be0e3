"""What a tool's residuals leave open while a call's arguments are decided one by one.

Owns the evaluation of residuals over partly decided arguments, the finite sets and numeric ranges that follow.
Knows neither trace nor tokens. Where it cannot tell it says "possible": the gate decides.
"""

import json
from collections.abc import Collection, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from aios.guard.language.sorts import sort_from_json
from aios.guard.language.syntax import Sort
from aios.guard.language.values import UNKNOWN, Fresh, compare, hashed, read, same
from aios.guard.masking.numbers import MOST_PLACES, Span, between
from aios.guard.masking.sets import ALL, Reader, Texts
from aios.guard.masking.spelling import quoted, spelled

TRUE, FALSE, UNSURE = 1, 2, 4
ANYTHING = TRUE | FALSE | UNSURE
_MAX_SPLITS = 256
Args = dict[str, Any]


class Choices:
    """One tool's residuals. `args` everywhere: decided arguments as rule values, UNKNOWN for one that stays absent."""

    def __init__(self, found: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.params: dict[str, tuple[Sort, bool, bool]] = {
            name: (sort_from_json(sort), optional, nullable)
            for name, (sort, optional, nullable) in found["params"].items()
        }
        self.rules: list[tuple[str, Any]] = [(rule, _decoded(node)) for rule, node in found["rules"]]
        self._defaults = defaults
        self._known: dict[Any, bool] = {}
        self._mentioned: dict[str, dict[Any, Any]] = {}
        for _, node in self.rules:
            _collect(node, self._mentioned)
        self._ordered = {name for _, node in self.rules for name in _ordered(node)}
        self._calls = any(_mentions_call(node) for _, node in self.rules)
        self._keys = {name: quoted(name)[1:] for name in self.params}
        self._members: dict[Any, list[Any] | None] = {}
        self._spelled: dict[Any, list[bytes] | None] = {}

    # --- verdicts --------------------------------------------------------------------------------------------------

    def read(self, arg: str, value: Any) -> Any:
        """Read a JSON value as the argument's sort."""
        param = self.params.get(arg)
        return UNKNOWN if param is None else read(value, param[0])

    def complete(self, args: Args) -> Args:
        """Fill in defaults, and mark what stays absent."""
        rest = {name: self._absent(name) for name in self.params if name not in args}
        return {**args, **rest}

    def _absent(self, name: str) -> Any:
        return self.read(name, self._defaults[name]) if name in self._defaults else UNKNOWN

    def denying(self, args: Args) -> str | None:
        """Id of the first rule that is certainly not true, whatever the undecided arguments."""
        return next((rule for rule, node in self.rules if not worth(node, args) & TRUE), None)

    def possible(self, args: Args, splits: int = _MAX_SPLITS) -> bool:
        """Whether some values of the undecided arguments may satisfy all rules together."""
        place = frozenset((name, hashed(value)) for name, value in args.items())
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._possible(args, [splits])
        return found

    def _possible(self, args: Args, splits: list[int]) -> bool:
        if self.denying(args) is not None:
            return False
        forced = self._forced(args)
        if forced is None:
            return True
        for value in self._options(forced):
            splits[0] -= 1
            if splits[0] < 0 or self._possible({**args, forced: value}, splits):
                return True
        return False

    def _forced(self, args: Args) -> str | None:
        """An undecided argument that can only take values that rules mention."""
        for name in self.params:
            if name not in args and name in self._mentioned and self._is_forced(name, args):
                return name
        return None

    def _is_forced(self, name: str, args: Args) -> bool:
        return self.denying({**args, name: Fresh()}) is not None

    def _options(self, name: str) -> Iterator[Any]:
        yield from self._mentioned.get(name, {}).values()
        if self.params[name][1]:
            yield self._absent(name)

    # --- one argument ----------------------------------------------------------------------------------------------

    def key(self, name: str) -> bytes:
        """The argument's name as it is written, without the opening quote."""
        return self._keys[name]

    @property
    def keys(self) -> Collection[bytes]:
        """All arguments' names so."""
        return self._keys.values()

    def is_free(self, name: str) -> bool:
        """Whether no rule says anything about the argument."""
        return name not in self._mentioned and not self._calls

    def is_uniform(self, name: str) -> bool:
        """Whether all texts that no rule mentions stand on the same footing."""
        return self.params[name][0].kind in ("Str", "Id") and name not in self._ordered

    def ends(self, name: str, written: bytes) -> list[bytes]:
        """What is missing, without the closing quote, of the mentioned texts that begin with `written`."""
        texts = [quoted(value)[:-1] for value in self._mentioned.get(name, {}).values() if isinstance(value, str)]
        return [text[len(written) :] for text in texts if text.startswith(written)]

    def spelled(self, name: str, args: Args) -> list[bytes] | None:
        """The spellings, rising, of the values that the argument can take; None if they are not finitely many."""
        place = _place(name, args)
        if place not in self._spelled:
            members = self.members(name, args)
            self._spelled[place] = None if members is None else spelled(members, self.params[name][0])
        return self._spelled[place]

    def members(self, name: str, args: Args) -> list[Any] | None:
        """The values that the argument can take, if they are finitely many; None if not."""
        place = _place(name, args)
        if place not in self._members:
            self._members[place] = self._found_members(name, args)
        return self._members[place]

    def _found_members(self, name: str, args: Args) -> list[Any] | None:
        texts = self._texts(name, args)
        if texts is not None and texts.others:
            return None
        sort = self.params[name][0]
        if texts is not None:
            candidates: list[Any] = sorted(texts.texts)
            if not self.params[name][2] and not self._open_others(name, args):
                return candidates
        elif sort.kind == "Bool":
            candidates = [True, False]
        elif sort.kind == "Enum":
            candidates = list(sort.values)
        elif self._is_forced(name, args) and sort.kind not in ("Time", "Record", "Map"):
            candidates = list(self._mentioned.get(name, {}).values())
        else:
            return None
        if self.params[name][2]:
            candidates.append(None)
        return [value for value in candidates if self.possible({**args, name: UNKNOWN if value is None else value})]

    def _texts(self, name: str, args: Args) -> Texts | None:
        """The texts that no rule alone denies; None where that cannot be read off the residuals."""
        mentioned = self._mentioned.get(name, {})
        if not self.is_uniform(name) or not all(isinstance(value, str) for value in mentioned.values()):
            return None
        reader, found = Reader(name, args, worth), ALL
        for _, node in self.rules:
            texts = reader.texts(node, True, (FALSE, TRUE))
            if texts is None:
                return None
            found &= texts
        return found

    def _open_others(self, name: str, args: Args) -> bool:
        """Whether rules ask about another argument that is not decided yet."""
        return any(other in self.params and other != name and other not in args for other in self._mentioned)

    def can_take(self, name: str, args: Args) -> bool:
        """Whether the argument may be present at all."""
        members = self.members(name, args)
        return self.possible(args) if members is None else bool(members)

    def spans(self, name: str, args: Args) -> tuple[int, list[Span]] | None:
        """For a number: its decimals, and the spans it may take in units of the last decimal; None if it is none."""
        sort = self.params[name][0]
        if sort.kind not in ("Int", "Decimal"):
            return None
        places = 0 if sort.kind == "Int" else min(sort.places, MOST_PLACES)
        marks = sorted({Fraction(value) for value in self._mentioned.get(name, {}).values() if _is_number(value)})
        found = between([mark * 10**places for mark in marks])
        return places, [span for span in found if self.possible({**args, name: _sample(span, places)})]


def _place(name: str, args: Args) -> Any:
    return name, frozenset((arg, hashed(value)) for arg, value in args.items())


def _sample(span: Span, places: int) -> int | Decimal:
    low, high = span
    unit = low if low is not None else (high if high is not None else 0)
    return unit if places == 0 else Decimal(unit).scaleb(-places)


# --- residuals -----------------------------------------------------------------------------------------------------


def const(found: Any) -> Any:
    """Read a constant of a residual."""
    if not isinstance(found, dict):
        return found
    if "n" in found:
        exact = Decimal(found["n"])
        return int(exact) if exact == exact.to_integral_value() else exact
    return json.loads(found["j"], parse_float=Decimal)


def _decoded(node: Any) -> Any:
    """Read a residual's constants; the rows of a case become a dictionary."""
    if not isinstance(node, list):
        return node
    head = node[0]
    if head in ("and", "or", "not"):
        return (head, *map(_decoded, node[1:]))
    if head == "cmp":
        return (head, node[1], node[2], const(node[3]))
    if head == "in":
        items = [const(item) for item in node[2]]
        return (head, node[1], dict.fromkeys(items) if all(isinstance(item, str) for item in items) else items)
    if head == "call":
        return (head, {name: const(value) for name, value in node[1]})
    if head == "case":
        rows = {hashed(const(value)): (const(value), _decoded(part)) for value, part in node[2]}
        return (head, node[1], rows, _decoded(node[3]), _decoded(node[4]))
    return tuple(node)


def _collect(node: Any, found: dict[str, dict[Any, Any]]) -> None:
    """Gather the constants that each argument is compared with."""
    if not isinstance(node, tuple):
        return
    head = node[0]
    if head == "cmp":
        found.setdefault(node[2], {})[hashed(node[3])] = node[3]
    elif head == "in":
        found.setdefault(node[1], {}).update({hashed(item): item for item in node[2]})
    elif head == "call":
        for name, value in node[1].items():
            found.setdefault(name, {})[hashed(value)] = value
    elif head == "case":
        found.setdefault(node[1], {}).update({key: value for key, (value, _) in node[2].items()})
        for part in (*(part for _, part in node[2].values()), node[3], node[4]):
            _collect(part, found)
    else:
        for part in node[1:]:
            _collect(part, found)


def _ordered(node: Any) -> Iterator[str]:
    """The arguments whose order a residual asks about."""
    if not isinstance(node, tuple):
        return
    if node[0] == "cmp":
        yield from () if node[1] in ("=", "!=") else (node[2],)
    elif node[0] == "case":
        for part in (*(part for _, part in node[2].values()), node[3], node[4]):
            yield from _ordered(part)
    elif node[0] in ("and", "or", "not"):
        for part in node[1:]:
            yield from _ordered(part)


def mentions(node: Any, name: str) -> bool:
    """Whether a residual asks about the argument."""
    found: dict[str, dict[Any, Any]] = {}
    _collect(node, found)
    return name in found


def _mentions_call(node: Any) -> bool:
    """Whether a residual names whole calls: then an argument that they leave out matters too."""
    return isinstance(node, tuple) and (node[0] == "call" or any(map(_mentions_call, node[1:])))


def worth(node: Any, args: Args) -> int:
    """The truth values that a residual can still take, as bits. Exact where each argument occurs once."""
    if not isinstance(node, tuple):
        return UNSURE if node is None else (TRUE if node else FALSE)
    head = node[0]
    if head in ("and", "or"):
        return _joined(head, node, args)
    if head == "not":
        inner = worth(node[1], args)
        return inner & UNSURE | (TRUE if inner & FALSE else 0) | (FALSE if inner & TRUE else 0)
    if head == "case":
        return _case(node, args)
    return _leaf(node, args)


def _joined(head: str, node: Any, args: Args) -> int:
    """`and` takes the least of its parts in false < unknown < true, `or` the greatest."""
    stop, rest = (FALSE, TRUE) if head == "and" else (TRUE, FALSE)
    some, all_rest, all_unsure = 0, True, True
    for part in node[1:]:
        bits = worth(part, args)
        if bits == stop:
            return stop
        some |= bits
        all_rest = all_rest and bool(bits & rest)
        all_unsure = all_unsure and bool(bits & (rest | UNSURE))
    return some & stop | (rest if all_rest else 0) | (UNSURE if some & UNSURE and all_unsure else 0)


def _case(node: Any, args: Args) -> int:
    _, name, rows, other, unknown = node
    if name not in args:
        found = worth(other, args) | worth(unknown, args)
        for _, part in rows.values():
            if found == ANYTHING:
                break
            found |= worth(part, args)
        return found
    value = args[name]
    if value is UNKNOWN:
        return worth(unknown, args)
    row = None if isinstance(value, Fresh) else rows.get(hashed(value))
    return worth(other if row is None else row[1], args)


def _leaf(node: Any, args: Args) -> int:
    head = node[0]
    if head == "call":
        return _call(node[1], args)
    if head == "opaque":
        return ANYTHING
    name = node[2] if head == "cmp" else node[1]
    if name not in args:
        return ANYTHING
    sign, right = (node[1], node[3]) if head == "cmp" else ("in", node[2])
    if isinstance(args[name], Fresh) and sign not in ("=", "!=", "in"):
        return ANYTHING
    if isinstance(right, dict) and sign == "in" and isinstance(args[name], str | Fresh):
        return TRUE if args[name] in right else FALSE
    value = compare(sign, args[name], right)
    return UNSURE if value is None else (TRUE if value else FALSE)


def _call(wanted: Args, args: Args) -> int:
    for name, value in args.items():
        told = wanted.get(name, UNKNOWN)
        if (told is UNKNOWN) is not (value is UNKNOWN) or (told is not UNKNOWN and same(value, told) is not True):
            return FALSE
    return TRUE if set(wanted) <= set(args) else TRUE | FALSE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
