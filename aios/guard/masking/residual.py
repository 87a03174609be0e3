"""Rules partially evaluated for one process: what is left to ask of a call's arguments.

A residual is JSON, free of quantifiers over rows and of the trace:

    true, false, null (unknown)          ["and", …]   ["or", …]   ["not", r]
    ["cmp", sign, arg, const]            ["in", arg, [const, …]]
    ["case", arg, [[const, r], …], else, if absent]
    ["call", [[arg, const], …]]          exactly these arguments
    ["text", kind, arg, text]            `matches` a pattern, or `starts`, `ends`, `contains` a text
    ["len", sign, arg, const]            of a text or a list; ["lens", sign, arg, arg] of two lists
    ["seen", arg, scope, rest]           occurs in one of the state's `!texts` of the scope; `rest`: else unknown
    ["pair", sign, arg, arg]             two open arguments compared
    ["lin", sign, [[factor, arg], …], const]      a sum of multiples of numbers
    ["all", [arg, …], r]  ["some", …]    of the elements of a list (of two: pairwise, unknown if their lengths differ);
                                         an element of `xs` is the argument `xs[]` of r
    ["subset", xs, ys]  ["subbag", …]    each an argument or a list
    ["opaque"]                           only the gate can tell

Constants: texts and truth values as they are, `{"n": "1.5"}` a number, `{"j": "…"}` any other JSON.
A rule allows a call where its residual is true. What is unknown stays unknown (strong Kleene logic, RULES.md S1): an
absent argument makes every form that compares it unknown.
"""

from collections.abc import Collection
from typing import Any

from aios.guard.language.sorts import sort_json
from aios.guard.language.syntax import Arg, Tool
from aios.guard.language.values import UNKNOWN
from aios.guard.masking.choices import TEXTS
from aios.guard.masking.joining import OPAQUE, conjunction, const_json
from aios.guard.masking.kept import Kept
from aios.guard.masking.partial import MOST_TEXT, Partial
from aios.guard.monitor.duties import pressing
from aios.guard.monitor.facts import Duty, Facts, Frame, Happening
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.program import CompiledRule, Program


def residuals(
    program: Program,
    monitor: Monitor,
    pid: int,
    now: int,
    kept: Kept | None = None,
    *,
    asking: Collection[str] = (),
) -> dict[str, Any]:
    """Return per tool its parameters and `[rule id, residual]` of each rule that says something about it.

    Under `!texts` the texts that values came from, by scope, where rules ask for them. `kept`: what was found before;
    what still holds is taken from there. `asking`: tools whose every call is put to a person before it is judged; one
    confirmation is then no matter of writing the call.
    """
    frame = monitor.frame(pid, Happening(0, "start", "", {}, now))
    finder = _Finder(program, frame, kept or Kept(program), pid, frozenset(asking))
    found = {name: finder.tool(name, tool) for name, tool in program.symbols.tools.items()}
    if not program.origins:
        return found
    return {**found, TEXTS: {"own": _texts(frame.own), "shared": _texts(frame.shared)}}


def _texts(facts: Facts) -> list[str]:
    """The texts that values came from, as far as masks are told."""
    texts = facts.origins.texts if facts.origins is not None else {}
    return sorted(texts) if sum(map(len, texts)) <= MOST_TEXT else []


class _Finder:
    """Finds the residuals of one process."""

    def __init__(self, program: Program, frame: Frame, kept: Kept, pid: int, asking: frozenset[str]) -> None:
        self._program, self._frame, self._kept, self._asking = program, frame, kept, asking
        self._entries = kept.entries(pid)
        self._pressing = list(pressing(program.duties, frame.own, frame.shared))

    def tool(self, name: str, tool: Tool) -> dict[str, Any]:
        rules = [self._entry(name, rule) for rule in self._program.rules_for(name)]
        rules += [["!duty", self._owed(name, duty)] for duty in self._pressing]
        return {
            "params": {p.name: [sort_json(p.sort), p.optional, p.nullable] for p in tool.params},
            "rules": [entry for entry in rules if entry[1] is not True],
        }

    def _owed(self, tool: str, duty: Duty) -> Any:
        """A duty that the next call must do: what is left to ask of the arguments of `tool`."""
        call = self._program.duties[duty.rule].wanted.call
        members = self._program.symbols.members(call.name, call.at)
        if members is not None and tool not in members:
            return False
        self._frame.env = duty.env
        return conjunction([self._owed_argument(arg, duty) for arg in call.args])

    def _owed_argument(self, arg: Arg, duty: Duty) -> Any:
        value = duty.env[arg.name] if arg.term is None else self._program.terms[id(arg.term)](self._frame)
        if value is UNKNOWN:
            return None
        return OPAQUE if arg.name == "digest" else ["cmp", "=", arg.name, const_json(value)]

    def _entry(self, tool: str, rule: CompiledRule) -> list[Any]:
        found: list[Any] | None = self._entries.get((tool, rule.index))
        if found is None:
            partial = Partial(self._program, self._frame, tool, rule, is_asking=tool in self._asking)
            found = [rule.name, partial.residual()]
            if self._kept.can_keep(rule):
                self._entries[tool, rule.index] = found
        return found
