"""What a tool's residuals leave open while a call's arguments are decided one by one.

Owns the answers for one tool: whether decided arguments can be completed, and what one more argument may be. What was
found out is kept by what is decided. Knows neither trace nor tokens. Where it cannot tell it says "possible": the gate
decides.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from aios.guard.language.sorts import sort_from_json
from aios.guard.language.syntax import Sort
from aios.guard.language.values import UNKNOWN, hashed, read
from aios.guard.masking.linear import Joint, by_bounds
from aios.guard.masking.lists import Asked
from aios.guard.masking.nodes import Node, Reader, Residual, element, reduced
from aios.guard.masking.search import OfElements, Search
from aios.guard.masking.spaces import Domain, Space
from aios.guard.masking.spelling import quoted
from aios.guard.masking.written import Written

Args = dict[str, Any]
TEXTS = "!texts"
"""Place in a mask state's residuals of the texts that values came from (no tool has that name)."""
_BY_VALUE = ("cmp", "in", "case")
_NO_TEXTS: Mapping[str, Sequence[str]] = {}


class Choices:
    """One tool's residuals. `args` everywhere: decided arguments as rule values, UNKNOWN for one that stays absent."""

    def __init__(
        self,
        found: dict[str, Any],
        defaults: dict[str, Any],
        texts: Mapping[str, Sequence[str]] = _NO_TEXTS,
        joint: Joint = by_bounds,
    ) -> None:
        """`texts`: what `seen` asks about, by scope; `joint`: see `aios.guard.masking.linear`."""
        self.params: dict[str, tuple[Sort, bool, bool]] = {
            name: (sort_from_json(sort), optional, nullable)
            for name, (sort, optional, nullable) in found["params"].items()
        }
        reader = Reader(self.params, texts)
        self.reads_texts = bool(texts)
        """Whether the residuals may ask what occurs in the texts."""
        self.rules: list[tuple[str, Residual]] = [(rule, reader.node(node)) for rule, node in found["rules"]]
        self._defaults = defaults
        self._search = Search(self._spaces(), joint)
        self._keys = {name: quoted(name)[1:] for name in self.params}
        self._mentioned: dict[str, dict[Any, Any]] = {}
        self._odd: set[str] = set()
        """Arguments that are asked about otherwise than by their values."""
        for _, node in self.rules:
            self._note(node)
        self._left: dict[Any, list[Asked] | None] = {}
        self._possible: dict[Any, bool] = {}
        self._fulfilled: dict[Any, tuple[list[Asked], bool]] = {}
        self._written: dict[Any, Written] = {}

    def _spaces(self) -> dict[str, Space]:
        spaces: dict[str, Space] = {}
        for name, (sort, optional, nullable) in self.params.items():
            unknown = nullable or (optional and self._absent(name) is UNKNOWN)
            spaces[name] = Space(sort, unknown=unknown)
        return _with_elements(spaces)

    def _note(self, node: Residual) -> None:
        """Gather the constants that each argument is compared with."""
        if not isinstance(node, Node):
            return
        head, parts = node.head, node.parts
        if head == "cmp" and parts[0] in ("=", "!="):
            self._mentioned.setdefault(parts[1], {})[hashed(parts[2])] = parts[2]
        elif head == "in":
            self._mentioned.setdefault(parts[0], {}).update(parts[1])
        elif head == "case":
            argument, rows, other, absent = parts
            self._mentioned.setdefault(argument, {}).update({key: value for key, (value, _) in rows.items()})
            for part in (*(part for _, part in rows.values()), other, absent):
                self._note(part)
        elif head in ("and", "or", "not"):
            for part in parts:
                self._note(part)
        else:
            self._odd |= node.names

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
        for rule, node in self.rules:
            left = reduced(node, args)
            if left is not True and not self._search.is_possible([(left, True)]):
                return rule
        return None

    def narrowing(self, name: str, args: Args) -> str | None:
        """Id of a rule that leaves an undecided argument only some of its values."""
        for rule, node in self.rules:
            left = reduced(node, args)
            if isinstance(left, Node) and name in left.names:
                domain = self._search.domain(name, [(left, True)])
                if domain != self._search.spaces[name].domain:
                    return rule
        return next((rule for rule, node in self.rules if isinstance(node, Node) and name in node.names), None)

    def possible(self, args: Args) -> bool:
        """Whether some values of the undecided arguments may satisfy all rules together."""
        place = _place(args)
        if place not in self._possible:
            asked = self._asked(args, place)
            self._possible[place] = asked is not None and all(map(self._can_hold, _apart(asked)))
        return self._possible[place]

    def _asked(self, args: Args, place: Any) -> list[Asked] | None:
        """What the rules still ask; None: one is certainly not true."""
        if place not in self._left:
            left = [reduced(node, args) for _, node in self.rules]
            wrong = any(node is False or node is None for node in left)
            self._left[place] = None if wrong else [(node, True) for node in left if node is not True]
        return self._left[place]

    def _can_hold(self, asked: list[Asked]) -> bool:
        place = frozenset(id(node) for node, _ in asked)
        if place not in self._fulfilled:  # kept with its nodes: an identity is that of a living node
            self._fulfilled[place] = (asked, self._search.is_possible(asked))
        return self._fulfilled[place][1]

    # --- one argument ----------------------------------------------------------------------------------------------

    def key(self, name: str) -> bytes:
        """The argument's name as it is written, without the opening quote."""
        return self._keys[name]

    @property
    def keys(self) -> Collection[bytes]:
        """All arguments' names so."""
        return self._keys.values()

    def is_free(self, name: str) -> bool:
        """Whether no rule says anything about the argument, and the grammar writes only what is of its sort."""
        is_told = name in self._mentioned or name in self._odd or element(name) in self._odd
        return not is_told and self._search.spaces[name].is_free

    def is_uniform(self, name: str) -> bool:
        """Whether all texts that no rule mentions stand on the same footing."""
        return self.params[name][0].kind in ("Str", "Id") and name not in self._odd

    def ends(self, name: str, written: bytes) -> list[bytes]:
        """What is missing, without the closing quote, of the mentioned texts that begin with `written`."""
        texts = [quoted(value)[:-1] for value in self._mentioned.get(name, {}).values() if isinstance(value, str)]
        return [text[len(written) :] for text in texts if text.startswith(written)]

    def stands_alone(self, name: str, args: Args) -> bool:
        """Whether nothing that is still open hangs on the argument's value."""
        asked = self._asked(args, _place(args)) or []
        return all(node.names == {name} for node, _ in asked if isinstance(node, Node) and name in node.names)

    def written(self, name: str, args: Args) -> Written:
        """The values that an undecided argument can take while it is present."""
        place = (name, _place(args))
        if place not in self._written:
            sort, _, nullable = self.params[name]
            domain = self._domain(name, args)
            self._written[place] = Written(domain.some, sort, null=nullable and domain.unknown)
        return self._written[place]

    def _domain(self, name: str, args: Args) -> Domain:
        space, asked = self._search.spaces[name], self._asked(args, _place(args))
        if asked is None:
            return space.constant(False)
        groups = _apart(asked)
        mine = [group for group in groups if any(isinstance(node, Node) and name in node.names for node, _ in group)]
        if not all(self._can_hold(group) for group in groups if group not in mine):
            return space.constant(False)
        return self._search.domain(name, mine[0]) if mine else space.domain

    def can_take(self, name: str, args: Args) -> bool:
        """Whether the argument may be present at all."""
        return not self.written(name, args).is_empty


def _with_elements(spaces: dict[str, Space]) -> dict[str, Space]:
    """Give list arguments their elements, to any depth."""
    inner = {
        element(name): Space(space.sort.element, unknown=False)
        for name, space in spaces.items()
        if space.sort.kind == "List" and space.sort.element is not None
    }
    if not inner:
        return spaces
    search = Search(_with_elements(inner))
    return {
        name: Space(space.sort, unknown=space.unknown, elements=OfElements(element(name), search))
        if element(name) in inner
        else space
        for name, space in spaces.items()
    }


def _place(args: Mapping[str, Any]) -> Any:
    return frozenset((name, hashed(value)) for name, value in args.items())


def _apart(asked: Iterable[Asked]) -> list[list[Asked]]:
    """Put together what shares an open argument; groups have nothing to do with each other."""
    groups: list[tuple[set[str], list[Asked]]] = []
    for one in asked:
        names = set(one[0].names) if isinstance(one[0], Node) else set[str]()
        joined = [group for group in groups if group[0] & names]
        merged = [each for _, group in joined for each in group]
        groups = [group for group in groups if not group[0] & names]
        groups.append((names.union(*(group[0] for group in joined)), [*merged, one]))
    return [group for _, group in groups]


# --- complete arguments ----------------------------------------------------------------------------------------------

TRUE, FALSE, UNSURE = 1, 2, 4


def worth(node: Residual, args: Args) -> int:
    """The truth values that a residual can still take, as bits; all of them where that is open."""
    left = reduced(node, args)
    if isinstance(left, Node):
        return TRUE | FALSE | UNSURE
    return UNSURE if left is None else (TRUE if left else FALSE)
