"""Plans: the shortest list of calls after which a refused call is admitted.

Breadth-first over what the explanations say is missing, each step tried on a twin of the gate; so a plan is
re-checked by construction, for the results that it wishes for. Bounded; no plan found is None.
"""

from collections import deque
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aios.abi.guard import TraceEvent
from aios.formats.canonical import canonical
from aios.guard.judging.ending import objections
from aios.guard.judging.explain import Explainer, Missing
from aios.guard.language.sorts import example
from aios.guard.language.values import UNKNOWN

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Step = dict[str, Any]
_MAX_STEPS = 6
_MAX_STATES = 40


def find_plan(gate: "RuleGate", event: TraceEvent) -> tuple[Step, ...] | None:
    """Return the steps after which `event` is admitted; None if none was found within the bound."""
    queue: deque[tuple[tuple[Step, ...], RuleGate]] = deque([((), gate)])
    seen: set[str] = set()
    for _ in range(_MAX_STATES):
        if not queue:
            return None
        steps, state = queue.popleft()
        for missing in _next(state, event, frozenset()):
            done = _try(state, event, missing)
            if done is None:
                continue
            step, after = done
            if after.allows(event):
                return (*steps, step)
            path = (*steps, step)
            if len(path) < _MAX_STEPS and canonical(sorted(map(canonical, path))) not in seen:
                seen.add(canonical(sorted(map(canonical, path))))
                queue.append((path, after))
    return None


def _next(gate: "RuleGate", event: TraceEvent, inside: frozenset[str]) -> list[Missing]:
    """What could be done now towards `event`: what it misses, or else what that misses in turn."""
    found: list[Missing] = []
    for missing in _members(gate, _missing(gate, event)):
        if missing.kind == "confirm":
            found.append(missing)
            continue
        call = _call(gate, event, missing)
        if call is None or missing.text in inside:
            continue
        if gate.allows(call):
            found.append(missing)
        else:
            found += _next(gate, call, inside | {missing.text})
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
    merged: dict[str, Missing] = {}
    for missing in found:
        merged.setdefault(missing.text, missing).wishes.update(missing.wishes)
    return list(merged.values())


def _members(gate: "RuleGate", missing: list[Missing]) -> list[Missing]:
    """Spread groups over their members, in file order of tools."""
    order = list(gate.program.symbols.tools)
    spread: list[Missing] = []
    for item in missing:
        tools = gate.program.symbols.groups.get(item.tool, (item.tool,))
        for tool in sorted(tools, key=lambda name: order.index(name) if name in order else len(order)):
            spread.append(replace(item, tool=tool, text=item.text if tool == item.tool else f"{item.text} by {tool}"))
    return spread


def _call(gate: "RuleGate", event: TraceEvent, missing: Missing) -> TraceEvent | None:
    tool = gate.program.symbols.tools.get(missing.tool)
    if tool is None or missing.kind not in ("ok", "start"):
        return None
    args = {
        param.name: missing.args[param.name] if param.name in missing.args else example(param.sort)
        for param in tool.params
        if param.name in missing.args or not param.optional
    }
    if any(map(_is_open, args.values())):
        return None
    return TraceEvent(gate.version + 1, event.time, event.pid, "start", tool.name, args)


def _is_open(value: Any) -> bool:
    """Whether something in it is unknown: a confirmed call may hold what is no value of its sort."""
    if isinstance(value, list | dict):
        return any(map(_is_open, value.values() if isinstance(value, dict) else value))
    return value is UNKNOWN


def _try(gate: "RuleGate", event: TraceEvent, missing: Missing) -> "tuple[Step, RuleGate] | None":
    """Do one step on a twin, as the gate would."""
    if missing.kind == "confirm":
        return _confirm(gate, event, missing)
    call = _call(gate, event, missing)
    if call is None or not gate.allows(call):
        return None
    twin = gate.twin(event.pid)
    twin.record(call)
    twin.record(TraceEvent(call.seq + 1, event.time, event.pid, "ok", cause=call.seq, result=_result(gate, missing)))
    shown = {name: _json(missing.args.get(name)) for name in call.args}
    return {"tool": call.tool, "args": shown}, twin


def _confirm(gate: "RuleGate", event: TraceEvent, missing: Missing) -> "tuple[Step, RuleGate]":
    twin, args = gate.twin(event.pid), {name: _json(value) for name, value in missing.args.items()}
    for number in range(missing.times):
        confirmation = TraceEvent(
            twin.version + 1, event.time, event.pid, "confirm", missing.tool, args, by=f"principal {number}"
        )
        twin.record(confirmation)
    return {"confirm": {"tool": missing.tool, "args": args}}, twin


def _json(value: Any) -> Any:
    """A rule value as JSON."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_json(item) for item in value]
    return {key: _json(item) for key, item in value.items()} if isinstance(value, dict) else value


def _result(gate: "RuleGate", missing: Missing) -> Any:
    """A result of the declared sort that holds what is wished for."""
    if () in missing.wishes:
        return missing.wishes[()]
    sort = gate.program.symbols.tools[missing.tool].result
    found = {} if sort is None else example(sort)
    for path, value in missing.wishes.items() if isinstance(found, dict) else ():
        here = found
        for step in path[:-1]:
            here = here.setdefault(step, {})
        here[path[-1]] = value
    return found
