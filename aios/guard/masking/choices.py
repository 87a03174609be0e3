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
from aios.guard.masking.asking import Asking, Deferred, NotYet
from aios.guard.masking.joint import joint_of
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
        *,
        system: str = "",
        asking: Asking | None = None,
        order: Sequence[str] = (),
    ) -> None:
        """`texts`: what `seen` asks about, by scope. `asking`: who is asked about related numbers, as `system`.

        `order`: in which arguments are written, if whoever writes keeps one; what is passed over then stays absent.
        """
        self._order = {name: place for place, name in enumerate(order)}
        self.params: dict[str, tuple[Sort, bool, bool]] = {
            name: (sort_from_json(sort), optional, nullable)
            for name, (sort, optional, nullable) in found["params"].items()
        }
        reader = Reader(self.params, texts)
        self.reads_texts = bool(texts)
        """Whether the residuals may ask what occurs in the texts."""
        self.rules: list[tuple[str, Residual]] = [(rule, reader.node(node)) for rule, node in found["rules"]]
        self._defaults = defaults
        self._search = Search(self._spaces())
        self._asking = Asking() if asking is None else asking
        self._joint = joint_of(system, (node for _, node in self.rules), self._search.spaces, self._asking)
        self._keys = {name: quoted(name)[1:] for name in self.params}
        self._mentioned: dict[str, dict[Any, Any]] = {}
        self._odd: set[str] = set()
        """Arguments that are asked about otherwise than by their values."""
        for _, node in self.rules:
            self._note(node)
        self._dropped: frozenset[int] = frozenset()
        """Identities of the residuals that are left to the gate, because the solver has no answer."""
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

    def before(self, name: str, args: Args) -> Args:
        """What is decided once an argument is begun: with an order, what it passes over is absent."""
        return {**{other: self._absent(other) for other in self._passed(name, args)}, **args}

    def can_follow(self, name: str, args: Args) -> bool:
        """Whether the argument passes over none that must be there."""
        return all(self.params[other][1] for other in self._passed(name, args))

    def _passed(self, name: str, args: Args) -> list[str]:
        if name not in self._order:
            return []
        place, end = self._order[name], len(self._order)
        return [other for other in self.params if self._order.get(other, end) < place and other not in args]

    def written_so_far(self, args: Args) -> Args:
        """The same behind the last of the arguments that are written."""
        placed = [name for name in args if name in self._order]
        return self.before(max(placed, key=self._order.__getitem__), args) if placed else args

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
            try:
                self._possible[place] = self._is_possible(args, place)
            except NotYet:
                return self._follows(args)
            except Deferred:
                self._defer()
                return self.possible(args)
        return self._possible[place]

    def _defer(self) -> None:
        """Leave what relates the numbers to the gate, for as long as these residuals hold.

        Half of it would be worse: what was let pass unasked would turn out to have no end.
        """
        assert self._joint is not None
        related = (node for _, node in self.rules if isinstance(node, Node) and self._joint.relates(node))
        self._dropped = frozenset(map(id, related))
        self._joint = None
        for found in (self._left, self._possible, self._fulfilled, self._written):
            found.clear()

    def _is_possible(self, args: Args, place: Any) -> bool:
        asked = self._asked(args, place)
        if asked is None:
            return False
        return all(self._can_hold(group, args) for group in _apart(asked))

    def _follows(self, args: Args) -> bool:
        """Whether it is known from what an argument could be before it was decided; for what is not answered yet."""
        for name, value in args.items():
            known = self._written.get((name, _place({other: args[other] for other in args if other != name})))
            if known is not None and (known.null if value is UNKNOWN else known.some.has(value)):
                return True
        return False

    @property
    def relates(self) -> bool:
        """Whether rules relate numbers to each other."""
        return self._joint is not None

    def is_settled(self, args: Args, names: Collection[str] = ()) -> bool:
        """Whether all answers are there to say what is possible with `args`, and what `names` may be.

        Asks for those that are not. Without them less counts as possible.
        """
        with self._asking.deciding():
            if self._joint is None:
                return True
            if not names:
                return self._follows(args) or self._is_known(args)
            return all([self._is_known(args, name) for name in names])  # what one can be tells whether anything can

    def _is_known(self, args: Args, name: str | None = None) -> bool:
        try:
            if name is None:
                self._is_possible(args, _place(args))
            else:
                self._values(name, args)
        except NotYet:
            return False
        except Deferred:
            self._defer()
        return True

    def _asked(self, args: Args, place: Any) -> list[Asked] | None:
        """What the rules still ask; None: one is certainly not true."""
        if place not in self._left:
            left = [reduced(node, args) for _, node in self.rules if id(node) not in self._dropped]
            wrong = any(node is False or node is None for node in left)
            self._left[place] = None if wrong else [(node, True) for node in left if node is not True]
        return self._left[place]

    def _can_hold(self, asked: list[Asked], args: Args) -> bool:
        if self._is_joint(asked):
            assert self._joint is not None
            found = self._joint.is_feasible(args)
            if found is False:
                return False
            if found and not self._joint.is_loose:
                return True
        place = frozenset(id(node) for node, _ in asked)
        if place not in self._fulfilled:  # kept with its nodes: an identity is that of a living node
            self._fulfilled[place] = (asked, self._search.is_possible(asked))
        return self._fulfilled[place][1]

    def _is_joint(self, asked: list[Asked]) -> bool:
        """Whether the group relates numbers of which several are open."""
        names = self._joint.names if self._joint is not None else frozenset[str]()
        return any(isinstance(node, Node) and not node.names.isdisjoint(names) for node, _ in asked)

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
        try:
            return self._values(name, args)
        except NotYet:
            return self._as_written(name, self._search.spaces[name].constant(False))
        except Deferred:
            self._defer()
            return self.written(name, args)

    def _values(self, name: str, args: Args) -> Written:
        place = (name, _place(args))
        if place not in self._written:
            self._written[place] = self._as_written(name, self._domain(name, args))
        return self._written[place]

    def _as_written(self, name: str, domain: Domain) -> Written:
        sort, _, nullable = self.params[name]
        return Written(domain.some, sort, null=nullable and domain.unknown)

    def _domain(self, name: str, args: Args) -> Domain:
        found = None
        if self._joint is not None and name in self._joint.names:
            found = self._joint.domain(name, args)
            if found is not None and not self._joint.is_loose:
                return found
        searched = self._searched(name, args)
        return searched if found is None else searched & found

    def _searched(self, name: str, args: Args) -> Domain:
        space, asked = self._search.spaces[name], self._asked(args, _place(args))
        if asked is None:
            return space.constant(False)
        groups = _apart(asked)
        mine = [group for group in groups if any(isinstance(node, Node) and name in node.names for node, _ in group)]
        if not all(self._can_hold(group, args) for group in groups if group not in mine):
            return space.constant(False)
        return self._search.domain(name, mine[0]) if mine else space.domain

    def can_take(self, name: str, args: Args) -> bool:
        """Whether the argument may be present at all."""
        try:
            return not self._values(name, args).is_empty
        except NotYet:  # one that must be there can be, if anything can
            return not self.params[name][1] and self.possible(args)
        except Deferred:
            self._defer()
            return self.can_take(name, args)


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
