"""What may still become of a call that is being written: the test behind the mask.

Owns the verdict on a parser's state, for one process's residuals. Knows no tokens.
"""

from collections.abc import Sequence
from typing import Any

from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec
from aios.formats.arguments import Spot
from aios.formats.calls import CallParser, Place
from aios.guard.language.sorts import defaults
from aios.guard.language.values import UNKNOWN, fits, hashed
from aios.guard.masking.asking import Asking
from aios.guard.masking.choices import TEXTS, Args, Choices

_OUTSIDE = (Place.TEXT, Place.TAG, Place.AFTER)


class Rulebook:
    """The residuals of one mask state, for the tools that are offered."""

    def __init__(
        self,
        state: MaskState,
        tools: Sequence[ToolSpec],
        before: "Rulebook | None" = None,
        asking: Asking | None = None,
        *,
        in_order: bool = False,
    ) -> None:
        """`before`: the book for the same tools that this one follows; what did not change is taken over.

        `asking`: who is asked about related numbers. `in_order`: arguments are written in the order of their schema.
        """
        self._in_order = in_order
        self.version = state.version
        self._rules, self._asking = state.rules, asking
        self._residuals = state.residuals
        self._texts = state.residuals.get(TEXTS, {})
        self._choices = {
            tool.name: self._choices_of(tool, before)
            for tool in tools
            if tool.name in state.residuals and "params" in state.residuals[tool.name]
        }
        self.enabled: frozenset[str] = frozenset()
        """Names of the tools that some arguments are allowed for, as far as it is known."""
        self.is_settled = self.settle()
        """Whether it is known of all tools."""

    def settle(self) -> bool:
        """Find out anew which tools are enabled; return whether all answers for that are there."""
        # First whether the answers are there: one may come between the two.
        self.is_settled = all([choices.is_settled({}) for choices in self._choices.values()])
        self.enabled = frozenset(name for name, choices in self._choices.items() if choices.possible({}))
        return self.is_settled

    def _choices_of(self, tool: ToolSpec, before: "Rulebook | None") -> Choices:
        found = self._residuals[tool.name]
        if before is not None and tool.name in before._choices and before._residuals[tool.name] == found:
            known = before._choices[tool.name]
            if not known.reads_texts or before._texts == self._texts:
                return known
        return Choices(
            found, defaults(tool), self._texts, system=f"{self._rules} {tool.name}", asking=self._asking,
            order=tuple(tool.parameters.get("properties", ())) if self._in_order else (),
        )  # fmt: skip

    def choices(self, tool: str) -> Choices:
        """The residuals of an offered tool."""
        return self._choices[tool]

    def blamed(self, tool: str, args: Args) -> str | None:
        """A rule that forbids the tool with these arguments decided; None if none alone does."""
        if tool not in self._choices:
            return "!tool"
        found = self._choices[tool].denying(args)
        if found is None and not self._choices[tool].possible(args):
            return self._choices[tool].rules[0][0]
        return found

    def narrowing(self, tool: str, arguments: dict[str, Any], name: str) -> str | None:
        """A rule that leaves the argument `name` only some values."""
        choices = self._choices[tool]
        return choices.narrowing(name, _read(choices, arguments) or {}) if name in choices.params else None

    def is_ready(self, parser: CallParser) -> bool:
        """Whether all answers are there that the test needs where the parser stands; asks for those that are not."""
        if not self.is_settled and not self.settle():
            return False
        tool, reader = parser.tool, parser.reader
        if reader is None or tool not in self.enabled:
            return True
        assert tool is not None
        choices, args = self._choices[tool], _read(self._choices[tool], parser.arguments)
        if args is None or not choices.relates:
            return True
        name = argument_name(parser)
        if name and name not in args:
            return name not in choices.params or choices.is_settled(choices.before(name, args), [name])
        # where a key comes next, only arguments that may be left out are in doubt: the others can be if anything can
        doubtful = [name for name, param in choices.params.items() if param[1] and name not in args]
        if not doubtful:
            return choices.is_settled(args)
        return all([choices.is_settled(choices.before(name, args), [name]) for name in doubtful])

    # --- the test --------------------------------------------------------------------------------------------------

    def can_go_on(self, parser: CallParser, calls: int) -> bool:
        """Whether what the parser has read can be completed to allowed calls. `calls` of them are judged already."""
        if parser.place is Place.ERROR:
            return False
        if any(not self.accepts(call.name, call.arguments) for call in parser.calls[calls:]):
            return False
        if parser.place in _OUTSIDE:  # after a call, whoever begins what stands between two must make another one
            return bool(self.enabled) or parser.place is not Place.TAG or not parser.calls
        if len(parser.calls) > calls:
            return False  # no token leads into a call before the one before it counts
        if parser.place is Place.HEAD:
            return bool(self.enabled)
        if parser.place is Place.NAME:
            name = parser.name.decode("utf-8", "replace")
            return any(tool.startswith(name) for tool in self.enabled)
        return parser.tool in self.enabled and self._arguments(parser)

    def accepts(self, tool: str, arguments: dict[str, Any]) -> bool:
        """Whether a complete call is allowed."""
        if tool not in self.enabled:
            return False
        choices = self._choices[tool]
        args = _read(choices, arguments)
        if args is None or any(name not in arguments and not choices.params[name][1] for name in choices.params):
            return False
        return choices.possible(choices.complete(args))

    def _arguments(self, parser: CallParser) -> bool:
        tool = parser.tool
        assert tool is not None
        choices = self._choices[tool]
        if parser.place is Place.TAIL:
            return self.accepts(tool, parser.arguments)
        args = _read(choices, parser.arguments)
        if args is None or not choices.possible(args):
            return False
        reader = parser.reader
        if reader is None or parser.place is Place.CLOSED:
            return True
        if reader.depth == 1 and reader.spot in (Spot.KEY, Spot.COMMA, Spot.NEXT_KEY):
            return self._key(choices, args, reader.key[1:] if reader.spot is Spot.KEY else b"")
        if parser.place is Place.VALUE or (parser.place is Place.KEY and reader.spot in (Spot.COLON, Spot.VALUE)):
            return self.value_can_go_on(choices, args, argument_name(parser), parser)
        return True

    def _key(self, choices: Choices, args: Args, written: bytes) -> bool:
        """Whether a key that begins so can be opened: its argument is not decided and may be present."""
        return any(
            choices.key(name).startswith(written)
            and name not in args
            and choices.can_follow(name, args)
            and choices.can_take(name, choices.before(name, args))
            for name in choices.params
        )

    def value_can_go_on(self, choices: Choices, args: Args, name: str, parser: CallParser) -> bool:
        """Whether the value under way can become an allowed one."""
        if name not in choices.params or name in args:
            return False
        args, written = choices.before(name, args), written_value(parser)
        if not written:
            return choices.can_take(name, args)
        return choices.written(name, args).can_grow(written, parser.reader)


def argument_name(parser: CallParser) -> str:
    """Name of the top-level argument whose value is under way; empty where none is."""
    path = parser.path
    return str(path[0]) if path else ""


def written_value(parser: CallParser) -> bytes:
    """The JSON bytes so far of the value under way."""
    reader = parser.reader
    return b"" if reader is None or reader.spot in (Spot.COLON, Spot.VALUE) else reader.value


def decided(choices: Choices, parser: CallParser) -> Args:
    """The decided arguments of the call under way, as rule values; what does not fit is left out."""
    return choices.before(argument_name(parser), _read(choices, parser.arguments) or {})


def _read(choices: Choices, arguments: dict[str, Any]) -> Args | None:
    """Read decided arguments; None if one is wrong."""
    found: Args = {}
    for name, value in arguments.items():
        param = choices.params.get(name)
        if param is None or not (fits(value, param[0]) or (value is None and param[2])):
            return None
        found[name] = choices.read(name, value) if fits(value, param[0]) else UNKNOWN
    return choices.written_so_far(found)


def place_of(parser: CallParser) -> Any:
    """A key for what the test depends on."""
    reader = parser.reader
    if reader is None:
        return parser.place, parser.done, parser.name, parser.held, parser.fixed, bool(parser.calls)
    args = tuple((name, hashed(value)) for name, value in reader.arguments.items())
    spot = (reader.spot, reader.depth, lead_of(parser))
    return parser.place, parser.done, parser.name, spot, reader.key, reader.value, args


def lead_of(parser: CallParser) -> bytes:
    """The fixed bytes before the value begins: what is left of `: `."""
    if parser.reader is None or parser.reader.spot is not Spot.COLON:
        return b""
    trial = parser.fork()
    trial.feed(b" ")
    return b" " if trial.place is not Place.ERROR else b": "
