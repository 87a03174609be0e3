"""Residuals as the mask holds them: nodes that know which arguments they ask about, and what decided ones leave.

Owns the reading of a residual's JSON (`aios.guard.masking.residual` says what it means) and its partial evaluation in
strong Kleene logic. A node is True, False, None (unknown) or a `Node`; the elements of a list argument `xs` are an
argument of their own, `xs[]`. Knows neither sets of values nor tokens.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from aios.guard.language import patterns
from aios.guard.language.values import UNKNOWN, Truth, compare, hashed
from aios.guard.monitor.evaluate import FUNCTIONS, calculated
from aios.guard.monitor.origins import occurs

Args = Mapping[str, Any]
"""Decided arguments as rule values; UNKNOWN for one that stays absent."""
FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


class Node(NamedTuple):
    """`parts` by `head`:

    and or: nodes · not: node · cmp: sign, argument, constant · in: argument, constants by hash
    text: kind, argument, constant · len: sign, argument, number · seen: argument, texts, what else is unknown
    case: argument, rows by hash, other, absent · pair lens: sign, two arguments
    lin: sign, ((coefficient, argument), …), constant ·
    all some: sources (arguments or lists), names of elements, node · subset subbag: two arguments or lists · opaque
    """

    head: str
    parts: tuple[Any, ...]
    names: frozenset[str]


Residual = Node | bool | None
OPAQUE = Node("opaque", (), frozenset())


def element(argument: str) -> str:
    """The name that stands for an element of a list argument."""
    return argument + "[]"


# --- joining -------------------------------------------------------------------------------------------------------


def joined(head: str, parts: Iterable[Residual]) -> Residual:
    """`and` or `or` of some residuals, made simple."""
    stop, kept, unsure = head == "or", list[Residual](), False
    for part in parts:
        if part is stop:
            return stop
        if part is None:
            unsure = True
        elif isinstance(part, Node):
            kept += part.parts if part.head == head else (part,)
    if unsure:
        kept.append(None)
    if len(kept) <= 1:
        return kept[0] if kept else not stop
    return Node(head, tuple(kept), _names(kept))


def negated(part: Residual) -> Residual:
    """`not`."""
    if not isinstance(part, Node):
        return None if part is None else not part
    if part.head == "opaque":
        return part
    inner = part.parts[0]
    return inner if part.head == "not" else Node("not", (part,), part.names)


def _names(parts: Iterable[Residual]) -> frozenset[str]:
    return frozenset().union(*(part.names for part in parts if isinstance(part, Node)))


def case(argument: str, rows: Mapping[Any, tuple[Any, Residual]], other: Residual, absent: Residual) -> Node:
    """A case over an argument's values."""
    names = _names([*(part for _, part in rows.values()), other, absent]) | {argument}
    return Node("case", (argument, rows, other, absent), names)


def among(argument: str, items: Iterable[Any]) -> Node:
    """A set that an argument must be in."""
    return Node("in", (argument, {hashed(item): item for item in items}), frozenset((argument,)))


def every(kind: str, sources: Sequence[Any], elements: tuple[str, ...], body: Residual) -> Node:
    """A quantifier over lists; `kind` is all or some."""
    inner = body.names - set(elements) if isinstance(body, Node) else frozenset[str]()
    return Node(kind, (tuple(sources), elements, body), inner | {one for one in sources if isinstance(one, str)})


# --- reading -------------------------------------------------------------------------------------------------------


def const(found: Any) -> Any:
    """Read a constant of a residual."""
    if not isinstance(found, dict):
        return found
    if "n" in found:
        return number(Decimal(found["n"]))
    return json.loads(found["j"], parse_float=Decimal)


def number(exact: Decimal) -> int | Decimal:
    """A rule's number: whole ones as int."""
    return int(exact) if exact == exact.to_integral_value() else exact


class Reader:
    """Reads residuals of one tool; `params` are the names of its arguments, `texts` those that values came from."""

    def __init__(self, params: Iterable[str], texts: Mapping[str, Sequence[str]]) -> None:
        self._params, self._texts = tuple(params), texts
        self._scopes: dict[str, tuple[str, ...]] = {}

    def node(self, found: Any) -> Residual:
        """Read one residual."""
        if not isinstance(found, list):
            return found  # type: ignore[no-any-return]  # true, false or null
        head, *rest = found
        if head in ("and", "or"):
            return joined(head, [self.node(part) for part in rest])
        if head == "not":
            return negated(self.node(rest[0]))
        read: Callable[..., Residual] | None = getattr(self, f"_{head}", None)
        return OPAQUE if read is None else read(*rest)

    def _cmp(self, sign: str, argument: str, value: Any) -> Node:
        return Node("cmp", (sign, argument, const(value)), frozenset((argument,)))

    def _in(self, argument: str, items: list[Any]) -> Node:
        return among(argument, [const(item) for item in items])

    def _text(self, kind: str, argument: str, constant: str) -> Node:
        if kind == "matches" and patterns.automaton(constant) is None:
            return OPAQUE
        return Node("text", (kind, argument, constant), frozenset((argument,)))

    def _len(self, sign: str, argument: str, size: Any) -> Node:
        return Node("len", (sign, argument, const(size)), frozenset((argument,)))

    def _seen(self, argument: str, scope: str, unsure: bool) -> Node:
        if scope not in self._texts:
            return OPAQUE
        texts = self._scopes.setdefault(scope, tuple(self._texts[scope]))
        return Node("seen", (argument, texts, unsure), frozenset((argument,)))

    def _pair(self, sign: str, left: str, right: str) -> Node:
        return Node("pair", (sign, left, right), frozenset((left, right)))

    def _lens(self, sign: str, left: str, right: str) -> Node:
        return Node("lens", (sign, left, right), frozenset((left, right)))

    def _lin(self, sign: str, terms: list[Any], constant: Any) -> Node:
        read = tuple((const(factor), name) for factor, name in terms)
        return Node("lin", (sign, read, const(constant)), frozenset(name for _, name in read))

    def _call(self, wanted: list[Any]) -> Residual:
        """Exactly these arguments: each has its value, and no other is present."""
        told = {name: const(value) for name, value in wanted}
        if not set(told) <= set(self._params):
            return False
        rows = {name: {hashed(value): (value, True)} for name, value in told.items()}
        return joined("and", [case(name, rows.get(name, {}), False, name not in told) for name in self._params])

    def _case(self, argument: str, rows: list[Any], other: Any, absent: Any) -> Node:
        read = {hashed(const(value)): (const(value), self.node(part)) for value, part in rows}
        return case(argument, read, self.node(other), self.node(absent))

    def _all(self, sources: list[str], body: Any) -> Node:
        return every("all", sources, tuple(map(element, sources)), self.node(body))

    def _some(self, sources: list[str], body: Any) -> Node:
        return every("some", sources, tuple(map(element, sources)), self.node(body))

    def _subset(self, left: Any, right: Any) -> Residual:
        return _subset(_side(left), _side(right))

    def _subbag(self, left: Any, right: Any) -> Node:
        sides = (_side(left), _side(right))
        return Node("subbag", sides, frozenset(side for side in sides if isinstance(side, str)))


def _side(found: Any) -> Any:
    """An argument's name, or a list."""
    return found if isinstance(found, str) else const(found)


def _subset(left: Any, right: Any) -> Residual:
    if isinstance(left, str) and isinstance(right, str):
        return Node("subset", (left, right), frozenset((left, right)))
    if isinstance(left, str):
        name = element(left)
        return every("all", (left,), (name,), among(name, right))
    name = element(right)
    parts = (Node("cmp", ("=", name, item), frozenset((name,))) for item in left)
    found = joined("and", [every("some", (right,), (name,), part) for part in parts])
    # without anything to look for, an absent list is unknown all the same
    return found if isinstance(found, Node) else case(right, {}, found, None)


# --- partial evaluation ----------------------------------------------------------------------------------------------


def reduced(node: Residual, args: Args) -> Residual:
    """What is left of a residual when some arguments are decided."""
    if not isinstance(node, Node) or node.names.isdisjoint(args):
        return node
    return _REDUCTIONS[node.head](node, args)


def _reduced_joined(node: Node, args: Args) -> Residual:
    return joined(node.head, [reduced(part, args) for part in node.parts])


def _reduced_not(node: Node, args: Args) -> Residual:
    return negated(reduced(node.parts[0], args))


def _reduced_case(node: Node, args: Args) -> Residual:
    argument, rows, other, absent = node.parts
    if argument in args:
        value = args[argument]
        row = None if value is UNKNOWN else rows.get(hashed(value))
        return reduced(absent if value is UNKNOWN else (other if row is None else row[1]), args)
    inner = {key: (value, reduced(part, args)) for key, (value, part) in rows.items()}
    return case(argument, inner, reduced(other, args), reduced(absent, args))


def _reduced_cmp(node: Node, args: Args) -> Truth:
    sign, argument, constant = node.parts
    return compare(sign, args[argument], constant)


def _reduced_in(node: Node, args: Args) -> Truth:
    value = args[node.parts[0]]
    return None if value is UNKNOWN else hashed(value) in node.parts[1]


def _reduced_text(node: Node, args: Args) -> Truth:
    kind, argument, constant = node.parts
    value = args[argument]
    if not isinstance(value, str):
        return None
    if kind == "matches":
        matches = patterns.matcher(constant)
        return None if matches is None else matches(value)
    return bool(FUNCTIONS[kind](value, constant))


def _reduced_len(node: Node, args: Args) -> Truth:
    sign, argument, size = node.parts
    return compare(sign, FUNCTIONS["len"](args[argument]), size)


def _reduced_seen(node: Node, args: Args) -> Truth:
    argument, texts, is_unsure = node.parts
    value = args[argument]
    if not isinstance(value, str):
        return None
    if any(occurs(value, text) if value else not text for text in texts):
        return True
    return None if is_unsure else False


def _reduced_pair(node: Node, args: Args) -> Residual:
    sign, left, right = node.parts
    if left in args and right in args:
        return compare(sign, args[left], args[right])
    if left in args:
        sign, left, right = FLIPPED[sign], right, left
    if args[right] is UNKNOWN:
        return None
    return Node("cmp", (sign, left, args[right]), frozenset((left,)))


def _reduced_lens(node: Node, args: Args) -> Residual:
    sign, left, right = node.parts
    if left in args and right in args:
        return compare(sign, FUNCTIONS["len"](args[left]), FUNCTIONS["len"](args[right]))
    if left in args:
        sign, left, right = FLIPPED[sign], right, left
    size = FUNCTIONS["len"](args[right])
    return None if size is UNKNOWN else Node("len", (sign, left, size), frozenset((left,)))


def _reduced_lin(node: Node, args: Args) -> Residual:
    sign, terms, constant = node.parts
    kept = []
    for factor, name in terms:
        if name in args:
            constant = calculated("-", constant, calculated("*", factor, args[name]))
        else:
            kept.append((factor, name))
    if constant is UNKNOWN:
        return None
    if not kept:
        return compare(sign, 0, constant)
    return Node("lin", (sign, tuple(kept), constant), frozenset(name for _, name in kept))


def _reduced_quantifier(node: Node, args: Args) -> Residual:
    sources, elements, body = node.parts
    found = [args.get(source, source) if isinstance(source, str) else source for source in sources]
    if any(not isinstance(source, str | list) for source in found):
        return None
    lists = [
        source for source, before in zip(found, sources, strict=True) if not isinstance(before, str) or before in args
    ]
    if len({len(one) for one in lists}) > 1:
        return None
    inner = reduced(body, args)
    if len(lists) < len(sources):
        return every(node.head, found, elements, inner)
    rows = zip(*lists, strict=True)
    return joined(
        "and" if node.head == "all" else "or",
        [reduced(inner, dict(zip(elements, row, strict=True))) for row in rows],
    )


def _reduced_sides(node: Node, args: Args) -> Residual:
    left, right = (args.get(side, side) if isinstance(side, str) else side for side in node.parts)
    is_open = [isinstance(before, str) and before not in args for before in node.parts]
    if any(side is UNKNOWN for side in (left, right)):
        return None
    if not any(is_open):
        found = FUNCTIONS[node.head](left, right)
        return None if found is UNKNOWN else bool(found)
    if node.head == "subset":
        return _subset(left, right)
    return Node("subbag", (left, right), frozenset(side for side in (left, right) if isinstance(side, str)))


_REDUCTIONS: dict[str, Callable[[Node, Args], Residual]] = {
    "and": _reduced_joined, "or": _reduced_joined, "not": _reduced_not, "case": _reduced_case, "cmp": _reduced_cmp,
    "in": _reduced_in, "text": _reduced_text, "len": _reduced_len, "seen": _reduced_seen, "pair": _reduced_pair,
    "lens": _reduced_lens, "lin": _reduced_lin, "all": _reduced_quantifier, "some": _reduced_quantifier,
    "subset": _reduced_sides, "subbag": _reduced_sides,
}  # fmt: skip


def renamed(node: Residual, old: str, new: str) -> Residual:
    """The residual with one argument in place of another; for heads that compare arguments."""
    if not isinstance(node, Node) or old not in node.names:
        return node
    if node.head in ("pair", "lens"):
        sign, left, right = node.parts
        left, right = (new if side == old else side for side in (left, right))
        return Node(node.head, (sign, left, right), frozenset((left, right)))
    if node.head == "lin":
        sign, terms, constant = node.parts
        read: dict[str, Any] = {}
        for factor, name in terms:
            kept_name = new if name == old else name
            read[kept_name] = read.get(kept_name, 0) + factor
        kept = tuple((factor, name) for name, factor in read.items() if factor)
        if not kept:
            return compare(sign, 0, constant)
        return Node("lin", (sign, kept, constant), frozenset(name for _, name in kept))
    return node
