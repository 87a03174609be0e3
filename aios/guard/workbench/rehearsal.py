"""Scenarios run: the examples inside a rule file, each on an empty trace of its own.

`allow` judges a call or `finish` and lets it happen; `deny` judges it and it does not happen; `by` names exactly the
file's rules that must deny. `ok`, `err`, `lost` answer the last call that was allowed. One process, pid 1.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate
from aios.guard.language.lexer import Span
from aios.guard.language.syntax import Among, Arg, Call, Literal, Name, Scenario, Step, Term
from aios.guard.language.wording import call_text
from aios.guard.monitor.evaluate import literal

_PID = 1


class Failure(NamedTuple):
    """A step that went otherwise than it says."""

    scenario: str
    at: Span
    message: str


@dataclass(slots=True)
class Rehearsal:
    """One scenario under way."""

    gate: RuleGate
    seq: int = 0
    time: float = 0.0
    call: int | None = None
    """The last call that was allowed."""

    def run(self, scenario: Scenario) -> Failure | None:
        """Return the first step that fails; None if all hold."""
        for step in scenario.steps:
            wrong = self._step(step)
            if wrong is not None:
                return Failure(scenario.title, step.at, wrong)
        return None

    def _step(self, step: Step) -> str | None:
        if step.kind in ("allow", "deny"):
            return self._expect(step)
        if step.kind in ("ok", "err", "lost"):
            return self._answer(step)
        if step.kind == "wait":
            assert isinstance(step.value, int)
            self.time = round(self.time + step.value / 1_000_000, 6)
            self.gate.record(self._event("tick"))
            return None
        return self._say(step) if step.kind == "say" else self._told(step)

    def _event(self, kind: str, **fields: Any) -> TraceEvent:
        self.seq += 1
        return TraceEvent(self.seq, self.time, _PID, kind, **fields)  # type: ignore[arg-type]  # one of the kinds

    def _expect(self, step: Step) -> str | None:
        assert step.call is not None
        is_end = step.call.name == "finish"
        event = self._event(
            "finish" if is_end else "start", tool="" if is_end else step.call.name, args=self._args(step.call)
        )
        verdict = self.gate.judge(event)
        what = "finish" if is_end else call_text(step.call, {})
        if step.kind == "allow":
            if not verdict.allow:
                reasons = "; ".join(f"{denial.rule}: {denial.reason}" for denial in verdict.denials)
                return f"{what} is denied: {reasons}"
            self.gate.record(event)
            self.call = None if is_end else event.seq
            return None
        if verdict.allow:
            return f"{what} is allowed"
        denying = {rule for rule in verdict.rules if not rule.startswith("!")}
        if step.by and denying != set(step.by):
            return f"{what} is denied by {', '.join(verdict.rules)}, not by {', '.join(step.by)}"
        return None

    def _answer(self, step: Step) -> str | None:
        if self.call is None:
            return f"no call to answer with '{step.kind}'"
        self.gate.record(self._event(step.kind, cause=self.call, result=step.value))
        if step.kind != "lost":
            self.call = None
        return None

    def _say(self, step: Step) -> str | None:
        assert step.call is not None
        event = self._event("assistant", args=self._args(step.call))
        verdict = self.gate.judge(event)
        if not verdict.allow:
            return f"the message is denied by {', '.join(verdict.rules)}"
        self.gate.record(event)
        return None

    def _told(self, step: Step) -> str | None:
        assert step.call is not None
        if step.kind == "user":
            self.gate.record(self._event("user", args={"text": "", **self._args(step.call)}))
        else:
            by = step.by[0] if step.by else "user"
            self.gate.record(self._event("confirm", tool=step.call.name, args=self._args(step.call), by=by))
        return None

    def _args(self, call: Call) -> dict[str, Any]:
        return {arg.name: _json(self._value(arg)) for arg in call.args}

    def _value(self, arg: Arg) -> Any:
        term: Term = arg.term if arg.term is not None else Name(arg.name)
        if isinstance(term, Among):
            return [literal(item) for item in term.items]
        if isinstance(term, Name):
            term = self.gate.program.symbols.consts[term.name].value
        assert isinstance(term, Literal)  # the checker lets nothing else through
        return literal(term)


def _json(value: Any) -> Any:
    """A rule value as JSON; numbers stay exact."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return [_json(item) for item in value] if isinstance(value, list) else value


def rehearse(gate: RuleGate) -> list[tuple[Scenario, Failure | None]]:
    """Run all scenarios of a rule file."""
    scenarios = [decl for decl in gate.program.file.decls if isinstance(decl, Scenario)]
    return [(scenario, Rehearsal(gate.fresh()).run(scenario)) for scenario in scenarios]
