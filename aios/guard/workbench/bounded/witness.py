"""A model of a symbolic run as a trace, and its trial at the real gate.

Owns the way back from symbols to JSON lines (RULES.md section 5). Nothing that the solver found is shown before the
gate has judged it; where the two disagree, one of them is wrong, and that is told.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from aios.guard.judging.gate import RuleGate
from aios.guard.language.syntax import Param, Sort
from aios.guard.workbench.bounded.universe import FRESH
from aios.guard.workbench.bounded.values import Listing, Loose, Record, Scalar, Value
from aios.guard.workbench.bounded.world import SECOND, World
from aios.guard.workbench.bounded.writing import Model
from aios.guard.workbench.replay import Replay, written

_ABSENT = object()
PID = 1


@dataclass(frozen=True, slots=True)
class Run:
    """A trace as JSON lines, and the tools that its calls are of."""

    lines: tuple[str, ...]
    tools: tuple[str, ...]
    """Of the calls that ended well."""

    def data(self) -> list[bytes]:
        """The lines as a file has them."""
        return [line.encode() for line in self.lines]


@dataclass(slots=True)
class Teller:
    """Tells the run of a model."""

    world: World
    model: Model
    length: int
    """Of the run: so many events happen."""

    def run(self, *, is_proposal: bool = False, finish: bool = False) -> Run:
        """The trace, and at its end one event more that is only proposed, or `finish`."""
        lines = [dict(line) for line in self._lines(is_proposal, finish)]
        tools = [self._tool(slot) for slot in range(self.length) if self._is_ok_call(slot)]
        numbered = [{"seq": seq, **line} for seq, line in enumerate(lines, 1)]
        started = 0
        for line in numbered:
            if line["kind"] == "start":
                started = line["seq"]
            elif line["kind"] in ("ok", "err"):
                line["cause"] = started
        return Run(tuple(written(_ordered(line)) for line in numbered), tuple(dict.fromkeys(tools)))

    def _lines(self, is_proposal: bool, finish: bool) -> Iterator[dict[str, Any]]:
        for slot in range(self.length):
            yield {"time": self._time(slot), "pid": PID, **self._event(slot)}
            if self._is(slot, "call"):
                yield {"time": self._time(slot), "pid": PID, **self._answer(slot)}
        if is_proposal:
            yield {"time": self._time(self.length), "pid": PID, **self._event(self.length)}
        if finish:
            yield {"time": self._time(self.length), "pid": PID, "kind": "finish"}

    def _is(self, slot: int, kind: str) -> bool:
        return self.model.holds(self.world.is_kind(slot, kind))

    def _is_ok_call(self, slot: int) -> bool:
        return self._is(slot, "call") and self.model.holds(self.world.is_ok(slot))

    def _time(self, slot: int) -> Any:
        told = [other for other in range(self.length + 1) if self.model.matters(f"v_time_{other}")]
        if not told:
            return slot  # time does not matter: let it pass
        slot = max((other for other in told if other <= slot), default=-1)
        if slot < 0:
            return 0
        return _number(Fraction(self.model.of(self.world.time(slot))) / SECOND)

    def _tool(self, slot: int) -> str:
        tools = self.world.symbols.tools
        return next(name for name in tools if self.model.holds(self.world.is_of(slot, name)))

    def _event(self, slot: int) -> dict[str, Any]:
        if self._is(slot, "call"):
            return {"kind": "start", "tool": self._tool(slot), "args": self._args(slot)}
        if self._is(slot, "confirm"):
            found = {"kind": "confirm", "tool": self._tool(slot), "args": self._args(slot)}
            found["by"] = self._one_of(self.world.principal(slot), self.world.texts.principals)
            answer = self._one_of(self.world.answer(slot), ("yes", "no", "withdraw"))
            return {**found, **({} if answer == "yes" else {"answer": answer})}
        said = self._json(self.world.said(slot), Sort("Str"))
        if self._is(slot, "say"):
            return {"kind": "assistant", "args": {"text": said}}
        facts = {param.name: self._json(self.world.fact(slot, param), param.sort) for param in self.world.symbols.facts}
        told = {name: value for name, value in facts.items() if value is not _ABSENT}
        return {"kind": "user", "args": {"text": said, **told}, **self._labels(2 * slot)}

    def _one_of(self, value: Scalar, texts: tuple[str, ...]) -> str:
        found = self._json(value, Sort("Str"))
        return found if found in texts else texts[0]

    def _labels(self, position: int) -> dict[str, Any]:
        items = self.world.labels_of(position).items
        held = [word for present, word in items if self.model.holds(present)]
        return {"labels": [self._json(word, Sort("Str")) for word in held]}

    def _answer(self, slot: int) -> dict[str, Any]:
        tool = self.world.symbols.tools[self._tool(slot)]
        if not self.model.holds(self.world.is_ok(slot)):
            failed = self._json(self.world.failure(slot), Sort("Json"))
            return {"kind": "err", "result": "failed" if failed in (_ABSENT, None) else failed}
        result = self._json(self.world.result(slot, tool), tool.result or Sort("Json"))
        return {"kind": "ok", **({} if result is _ABSENT else {"result": result}), **self._labels(2 * slot + 1)}

    def _args(self, slot: int) -> dict[str, Any]:
        found = {}
        for param in self.world.symbols.tools[self._tool(slot)].params:
            if not param.optional or self._is_given(slot, param):
                value = self._json(self.world.argument(slot, param)[1], param.sort)
                found[param.name] = None if value is _ABSENT else value
        return found

    def _is_given(self, slot: int, param: Param) -> bool:
        return self.model.holds(self.world.argument(slot, param)[0])

    # --- values ----------------------------------------------------------------------------------------------------

    def _json(self, value: Value, sort: Sort) -> Any:
        """A value as JSON of its sort; what is unknown is absent."""
        if not self.model.holds(value.known):
            return _ABSENT
        if isinstance(value, Record):
            inside = dict(sort.fields)
            parts = {name: self._json(part, inside.get(name, Sort("Json"))) for name, part in value.fields.items()}
            return {name: part for name, part in parts.items() if part is not _ABSENT}
        if isinstance(value, Listing):
            return self._list(value, sort)
        return self._loose(value) if isinstance(value, Loose) else self._scalar(value, sort)

    def _list(self, value: Listing, sort: Sort) -> Any:
        inner = sort.element or Sort("Json")
        items = [self._json(item, inner) for held, item in value.items if self.model.holds(held)]
        if sort.kind != "Map":
            return items
        keys = [self._json(key, Sort("Str")) for key in value.entries]
        fresh = (f"{key}_{at}" if key in keys[:at] else key for at, key in enumerate(keys))  # where no rule reads them
        return dict(zip(fresh, items, strict=False))

    def _loose(self, value: Loose) -> Any:
        if value.is_object is not None and self.model.holds(value.is_object):
            parts = {name: self._json(part, Sort("Json")) for name, part in value.fields.items()}
            return {name: part for name, part in parts.items() if part is not _ABSENT}
        if value.is_list is not None and self.model.holds(value.is_list):
            return [] if value.listing is None else self._list(value.listing, Sort("List"))
        return self._scalar(value.scalar, Sort("Json"))

    def _scalar(self, value: Scalar, sort: Sort) -> Any:
        for kind, (present, payload) in value.parts.items():
            if self.model.holds(present):
                return self._payload(kind, self.model.of(payload), sort)
        return _ABSENT

    def _payload(self, kind: str, value: Any, sort: Sort) -> Any:
        if kind == "text":
            texts = self.world.texts.texts
            text = texts[value] if value < len(texts) else FRESH[0]
            return text if sort.kind != "Enum" or text in sort.values else sort.values[0]
        if kind == "number":
            return _number(Fraction(value) / SECOND if sort.kind in ("Time", "Duration") else Fraction(value))
        return bool(value) if kind == "flag" else None


def _number(value: Fraction) -> Any:
    """A number as JSON has it: whole where it is whole, exact else."""
    return int(value) if value.denominator == 1 else Decimal(value.numerator) / Decimal(value.denominator)


def _ordered(line: dict[str, Any]) -> dict[str, Any]:
    order = ("seq", "time", "pid", "kind", "tool", "args", "cause", "result", "by", "answer", "labels")
    return {name: line[name] for name in order if name in line}


# --- the trial -----------------------------------------------------------------------------------------------------


def tried(gate: RuleGate, run: Run) -> Replay:
    """Replay a run on a gate of its own, as `aios rules replay` does."""
    return Replay(gate.fresh()).run(run.data())


def is_compliant(gate: RuleGate, run: Run) -> str | None:
    """Return what speaks against a run that should be admitted throughout; None if nothing does."""
    trial = tried(gate, run)
    if trial.faults:
        return f"line {trial.faults[0].line}: {trial.faults[0].message}"
    for event, verdict in trial.judged:
        if not verdict.allow:
            return f"event {event.seq} is denied by {', '.join(verdict.rules)}"
    violations = trial.gate.monitor.violations
    return f"the duty of '{violations[0].rule}' is {violations[0].what}" if violations else None


def is_forbidden(gate: RuleGate, run: Run, rules: tuple[str, ...]) -> str | None:
    """Return what speaks against a run whose last event alone should be denied, by exactly these rules."""
    trial = tried(gate, run)
    if trial.faults:
        return f"line {trial.faults[0].line}: {trial.faults[0].message}"
    for event, verdict in trial.judged[:-1]:
        if not verdict.allow:
            return f"event {event.seq} is denied by {', '.join(verdict.rules)}"
    last = trial.judged[-1][1]
    if last.allow:
        return "its last event is allowed"
    return None if last.rules == rules else f"its last event is denied by {', '.join(last.rules)}"


def parsed(run: Run) -> list[dict[str, Any]]:
    """The lines as objects."""
    return [json.loads(line) for line in run.lines]
