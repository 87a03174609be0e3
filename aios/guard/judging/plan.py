"""Plans: the shortest list of calls after which a refused call is admitted.

Breadth-first over what the explanations say is missing, each step tried on a twin of the gate; so a plan is
re-checked by construction, for the results that it wishes for. Bounded; no plan found is None.
"""

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from aios.abi.guard import TraceEvent
from aios.formats.canonical import canonical
from aios.guard.judging.ending import objections
from aios.guard.judging.explain import Explainer, Missing
from aios.guard.judging.moves import Move
from aios.guard.judging.wishes import ANY
from aios.guard.language.sorts import example
from aios.guard.language.syntax import Tool
from aios.guard.language.values import UNKNOWN

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Shown = dict[str, Any]
_MAX_STEPS = 6
_MAX_STATES = 40


class Step(NamedTuple):
    """Moves that belong together (several people confirm one call), and how a plan shows them."""

    moves: tuple[Move, ...]
    shown: Shown

    def try_on(self, gate: "RuleGate", pid: int) -> bool:
        """Do them on a twin; whether all can be done."""
        return all(move.try_on(gate, pid) for move in self.moves)


def find_plan(gate: "RuleGate", event: TraceEvent) -> tuple[Shown, ...] | None:
    """Return the steps after which `event` is admitted; None if none was found within the bound."""
    queue: deque[tuple[tuple[Step, ...], RuleGate]] = deque([((), gate)])
    seen: set[str] = set()
    for _ in range(_MAX_STATES):
        if not queue:
            return None
        steps, state = queue.popleft()
        for step in next_steps(state, event):
            path, after = (*steps, step), state.twin(event.pid)
            if not step.try_on(after, event.pid):
                continue
            if after.allows(replace(event, seq=after.version + 1)):
                return tuple(step.shown for step in path)
            key = canonical(sorted(canonical(step.shown) for step in path))
            if len(path) < _MAX_STEPS and key not in seen:
                seen.add(key)
                queue.append((path, after))
    return None


def next_steps(gate: "RuleGate", event: TraceEvent) -> Iterator[Step]:
    """Yield what could be done now towards `event`: what it misses, or else what that misses in turn."""
    for missing in _next(gate, replace(event, seq=gate.version + 1), set()):
        step = _step(gate, event.pid, missing)
        if step is not None:
            yield step


def _next(gate: "RuleGate", event: TraceEvent, asked: set[str]) -> list[Missing]:
    """Walk back over what is missing; nothing is `asked` twice, for many calls may miss the same."""
    found: list[Missing] = []
    for missing in _members(gate, _missing(gate, event)):
        if missing.kind in ("confirm", "user"):
            found.append(missing)
            continue
        step = _step(gate, event.pid, missing)
        if step is None or missing.text in asked:
            continue
        asked.add(missing.text)
        move = step.moves[0]
        proposed = move.event(gate.version + 1, event.time, event.pid)
        if gate.passes(proposed):
            found.append(missing)
        else:
            found += _next(gate, proposed, asked)
    return found


def _missing(gate: "RuleGate", event: TraceEvent) -> list[Missing]:
    call = gate.read(event)
    explainer = Explainer(gate.program, gate.monitor, event.pid, call)
    found = [
        missing
        for rule, _, env in gate.monitor.denials(event.pid, call)
        for finding in explainer.findings(rule, env)
        for missing in finding.missing
    ]
    for objection in objections(gate.monitor, event.pid, call):
        found += objection.missing
    if not found and event.kind == "start" and gate.passes(event):  # only the way to the end stands against it
        return _missing(gate, TraceEvent(event.seq, event.time, event.pid, "finish"))
    merged: dict[str, Missing] = {}
    for missing in found:
        merged.setdefault(missing.text, missing).wishes.join(missing.wishes)
    return list(merged.values())


def _members(gate: "RuleGate", missing: list[Missing]) -> list[Missing]:
    """Spread groups over their members, in file order of tools."""
    order = list(gate.program.symbols.tools)
    spread: list[Missing] = []
    for item in missing:
        tools = gate.program.symbols.groups.get(item.tool, tuple(order) if item.tool == "any" else (item.tool,))
        for tool in sorted(tools, key=lambda name: order.index(name) if name in order else len(order)):
            spread.append(replace(item, tool=tool, text=item.text if tool == item.tool else f"{item.text} by {tool}"))
    return spread


# --- steps -----------------------------------------------------------------------------------------------------------


def _step(gate: "RuleGate", pid: int, missing: Missing) -> Step | None:
    """What makes the missing event happen; None where nothing plainly does."""
    if missing.kind == "confirm":
        return _confirmation(gate, missing)
    args = {name: json_value(value) for name, value in missing.args.items()}
    if any(map(_is_open, args.values())):
        return None
    if missing.kind == "say":
        said = {"text": "", **args}
        return Step((Move("say", args=said),), {"say": args})
    if missing.kind == "user":
        return Step((Move("user", args={"text": "", **args}),), {"user": args})
    tool = gate.program.symbols.tools.get(missing.tool)
    if tool is None or missing.kind not in ("ok", "start") or not set(args) <= {param.name for param in tool.params}:
        return None
    shown = {name: None if args.get(name) is ANY else args.get(name) for name in _needed(tool, args)}
    move = call_move(tool, args, None)
    before = gate.last_answer(TraceEvent(gate.version + 1, 0, pid, "start", tool.name, move.args))
    return Step((replace(move, result=result_of(tool, missing, before)),), {"tool": tool.name, "args": shown})


def _is_open(value: Any) -> bool:
    """Whether something in it is unknown: a confirmed call may hold what is no value of its sort."""
    if isinstance(value, list | dict):
        return any(map(_is_open, value.values() if isinstance(value, dict) else value))
    return value is UNKNOWN


def _confirmation(gate: "RuleGate", missing: Missing) -> Step | None:
    tool, args, answer = missing.tool, missing.args, "yes"
    if "digest" in args and tool == "confirm":
        return None  # whose digest it is, nobody knows
    args = {name: json_value(value) for name, value in args.items()}
    people = [f"principal {number}" for number in range(missing.times)]
    moves = tuple(Move("confirm", tool, args, answer, by=by) for by in people)
    return Step(moves, {"confirm": {"tool": tool, "args": args}})


def call_move(tool: Tool, args: dict[str, Any], result: Any) -> Move:
    """A successful call with these arguments, what else it needs filled in."""
    params = {param.name: param for param in tool.params}
    full = {name: args[name] if name in args else example(params[name].sort) for name in _needed(tool, args)}
    return Move("call", tool.name, full, "ok", result)


def _needed(tool: Tool, args: dict[str, Any]) -> list[str]:
    return [param.name for param in tool.params if param.name in args or not param.optional]


def json_value(value: Any) -> Any:
    """A rule value as JSON."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return {key: json_value(item) for key, item in value.items()} if isinstance(value, dict) else value


def result_of(tool: Tool, missing: Missing, before: Any = None) -> Any:
    """A result of the declared sort that holds what is wished for; for the rest what the call brought last time."""
    known = {} if tool.result is None else example(tool.result)
    return missing.wishes.fill(deepcopy(before) if type(before) is type(known) else known)
