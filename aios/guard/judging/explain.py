"""Why a rule said no: the part of its formula that failed, in words, and what is missing.

Evaluates parts of formulas in the frame of the refusal; decides nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from aios.guard.judging.seeking import Seeker
from aios.guard.judging.wishes import Wishes
from aios.guard.language.sorts import example
from aios.guard.language.syntax import (
    After,
    And,
    Apply,
    Arg,
    Call,
    Compare,
    Confirmed,
    Event,
    Forbid,
    Happens,
    Holds,
    Implies,
    Limit,
    Literal,
    Name,
    Not,
    On,
    Or,
    Past,
    Phi,
    Quantified,
    Register,
    Since,
    Term,
)
from aios.guard.language.values import UNKNOWN, Truth, show
from aios.guard.language.wording import event_text, phi_text, term_text
from aios.guard.monitor.evaluate import literal
from aios.guard.monitor.facts import Frame, Happening
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.program import CompiledRule, Program


@dataclass(slots=True)
class Missing:
    """An event whose absence is a reason. `wishes` say what its result should hold: path → value."""

    kind: str
    tool: str
    args: dict[str, Any]
    text: str
    wishes: Wishes = field(default_factory=Wishes)
    times: int = 1


@dataclass(slots=True)
class Finding:
    """One reason, and the events that would remove it."""

    text: str
    missing: list[Missing] = field(default_factory=list)


class Explainer:
    """Explains the refusals of one proposed call."""

    def __init__(self, program: Program, monitor: Monitor, pid: int, call: Happening) -> None:
        self._program, self._call = program, call
        self._frame = monitor.frame(pid, call)

    @property
    def program(self) -> Program:
        """The rules."""
        return self._program

    @property
    def frame(self) -> Frame:
        """The frame of the refusal."""
        return self._frame

    def explain(self, rule: CompiledRule, env: dict[str, Any]) -> tuple[str, list[str]]:
        """Return the reason in words and the missing events' patterns."""
        found = self.findings(rule, env)
        texts = list(dict.fromkeys(finding.text for finding in found))
        missing = list(dict.fromkeys(item.text for finding in found for item in finding.missing))
        return "; ".join(texts), missing

    def findings(self, rule: CompiledRule, env: dict[str, Any]) -> list[Finding]:
        """Return the reasons."""
        self._frame.env = dict(env)
        body = rule.rule.body
        assert not isinstance(body, After)  # it denies nothing by itself
        if isinstance(body, Limit):
            return [Finding(self._limit(rule, body))]
        if isinstance(body, Forbid):
            return [Finding("it is forbidden")] if body.phi is None else list(self.why(body.phi, False))
        return list(self.why(body.phi, True))

    def wanted(self, call: Call, known: dict[str, Any]) -> Missing:
        """Return the call that a duty asks for, as an event that is missing."""
        missing = self.event(Event("say" if call.name == "say" else "ok", call), known)
        confirmed = self._frame.own.confirmed_calls.get(missing.args.get("digest", ""))
        if call.name == "any" and confirmed is not None:
            missing.tool, missing.args = confirmed
        return missing

    def _limit(self, rule: CompiledRule, body: Limit) -> str:
        limit, frame = rule.limit, self._frame
        assert limit is not None
        total = limit.total(frame, limit.key(frame), (limit.amount(frame),))
        what = body.aggregate if body.term is None else f"{body.aggregate}({term_text(body.term, {})})"
        return f"{what} of {body.call.name} would be {show(total)}, the limit is {show(limit.bound(frame))}"

    def _value(self, phi: Phi) -> Truth:
        return self._program.formulas[id(phi)](self._frame)

    def why(self, phi: Phi, wanted: bool) -> Iterator[Finding]:
        """Yield why `phi` is not `wanted`."""
        if isinstance(phi, Not):
            yield from self.why(phi.phi, not wanted)
        elif isinstance(phi, And | Or):
            yield from self._parts(phi, wanted)
        elif isinstance(phi, Implies):
            yield from self.why(phi.right, True) if wanted else [Finding(f"{phi_text(phi, self._frame.env)} holds")]
        elif isinstance(phi, Past | Since):
            yield self._past(phi, wanted)
        else:
            yield from self._atom(phi, wanted)

    def _parts(self, phi: And | Or, wanted: bool) -> Iterator[Finding]:
        failing = [part for part in phi.parts if self._value(part) is not wanted]
        if isinstance(phi, And) is wanted:
            for part in failing:
                yield from self.why(part, wanted)
            return
        ways = [list(self.why(part, wanted)) for part in failing]
        missing = ([item for finding in way for item in finding.missing] for way in ways)
        text = " and ".join(finding.text for way in ways for finding in way)
        yield Finding(text, next((way for way in missing if way), []))

    def _past(self, phi: Past | Since, wanted: bool) -> Finding:
        text = phi_text(phi, self._frame.env)
        unknown = self._value(phi) is None
        state = self._doubt(phi) if unknown else ("is false" if wanted else "is true")
        if wanted and isinstance(phi, Past) and phi.kind == "once":
            missing = list(self._wanted(phi.phi))
            if missing and not unknown:
                return Finding(f"'{missing[0].text}' has not happened{' in time' * (phi.window is not None)}", missing)
            return Finding(f"'{text}' {state}", missing)
        anchors = list(self._wanted(phi.right)) if wanted and isinstance(phi, Since) else []
        return Finding(f"'{text}' {state}", anchors)

    def _doubt(self, phi: Past | Since) -> str:
        """Why nobody knows: calls may still be answered, or what was answered does not tell."""
        frame = self._frame
        settled = replace(frame, own_extension=None, shared_extension=None)
        if self._program.formulas[id(phi)](settled) is None:
            return "is unknown: an event does not tell"
        waiting = {
            call.seq
            for extension in (frame.own_extension, frame.shared_extension)
            for call in (extension.events if extension is not None else ())
        }
        return f"is not certain while calls are without an answer: {', '.join(map(str, sorted(waiting)))}"

    def _wanted(self, phi: Phi) -> Iterator[Missing]:
        if isinstance(phi, Happens):
            yield self.event(phi.event, self._frame.env)
        elif isinstance(phi, And):
            for part in phi.parts:
                yield from self._wanted(part)
        elif isinstance(phi, Or):
            yield from self._wanted(phi.parts[0])
        elif isinstance(phi, Past) and phi.kind == "once":
            yield from self._wanted(phi.phi)

    def event(self, event: Event, known: dict[str, Any]) -> Missing:
        """Return an event of this pattern, as one that is missing."""
        known = {**known, **self._simple(event.call.args, known)}
        args = {arg.name: known.get(_key(arg), UNKNOWN) for arg in event.call.args}
        kept = {name: value for name, value in args.items() if value is not UNKNOWN}
        return Missing(event.kind, event.call.name, kept, event_text(event, known))

    def _simple(self, args: tuple[Arg, ...], known: dict[str, Any]) -> dict[str, Any]:
        """Values of constants and literals in argument position, under the key that `_key` gives them."""
        found = {}
        for arg in args:
            term = arg.term
            if isinstance(term, Literal):
                found[_key(arg)] = literal(term)
            elif isinstance(term, Name) and term.name not in known and id(term) in self._program.terms:
                found[_key(arg)] = self._program.terms[id(term)](self._frame)
        return found

    # --- atoms -----------------------------------------------------------------------------------------------------

    def _atom(self, phi: Phi, wanted: bool) -> Iterator[Finding]:
        if isinstance(phi, Confirmed):
            yield self._confirmed(phi, wanted)
        elif isinstance(phi, Compare):
            yield self._compare(phi)
        elif isinstance(phi, Happens) and wanted:
            text = phi_text(phi, self._frame.env)
            yield Finding(f"'{text}' is {_word(self._value(phi))}", list(self._wanted(phi)))
        elif isinstance(phi, Holds) and isinstance(phi.term, Apply) and phi.term.function == "known" and wanted:
            yield Finding(
                f"{term_text(phi.term.terms[0], self._frame.env)} is unknown", self.readings(phi.term.terms[0], None)
            )
        else:
            text, missing = phi_text(phi, self._frame.env), []
            if isinstance(phi, Quantified) and wanted:
                missing = list(Seeker(self).seek(phi))
            yield Finding(f"'{text}' is {_word(self._value(phi))}", missing)

    def _confirmed(self, phi: Confirmed, wanted: bool) -> Finding:
        if not wanted:
            return Finding("the call is confirmed")
        args = ", ".join(f"{name} = {show(value)}" for name, value in self._call.args.items())
        text = f"confirm {self._call.tool}({args})"
        missing = Missing("confirm", self._call.tool, self._call.args, text, times=phi.by)
        return Finding(f"exactly this call is not {phi_text(phi, {})}", [missing])

    def _compare(self, phi: Compare) -> Finding:
        sides = [(side, self._program.terms[id(side)](self._frame)) for side in (phi.left, phi.right)]
        unknown = [(side, other) for (side, value), (_, other) in (sides, sides[::-1]) if value is UNKNOWN]
        if unknown:
            texts = [f"{term_text(side, self._frame.env)} is unknown" for side, _ in unknown]
            missing = [
                item for side, other in unknown for item in self.readings(side, other if phi.sign == "=" else None)
            ]
            return Finding(" and ".join(texts), missing)
        told = [
            f"{term_text(side, self._frame.env)} is {show(value)}"
            for side, value in sides
            if term_text(side, self._frame.env) != show(value) and not isinstance(side, Literal)
        ]
        text = f"'{phi_text(phi, self._frame.env)}' is {_word(self._value(phi))}"
        return Finding(text + (f": {', '.join(told)}" if told else ""))

    def readings(self, term: Term, value: Any) -> list[Missing]:
        """The events that would set an unknown register, from its `on` clauses."""
        register = self._program.symbols.registers.get(term.name) if isinstance(term, Name) else None
        if register is None or not isinstance(term, Name):
            return []
        keys = [self._program.terms[id(key)](self._frame) for key in term.keys or ()]
        setting = [clause for clause in register.clauses if not _is_unknown(clause.terms[0])]
        return [self._reading(register, clause, keys, value) for clause in setting]

    def _reading(self, register: Register, clause: On, keys: list[Any], value: Any) -> Missing:
        names = register.keys if clause.keys is None else tuple(_plain(key) for key in clause.keys)
        known = {name: key for name, key in zip(names, keys, strict=True) if name and key is not UNKNOWN}
        missing = self.event(clause.event, known)
        term = clause.terms[0]
        wished = example(register.sort) if value is None or value is UNKNOWN else value
        if isinstance(term, Name) and term.name == "result":
            missing.wishes.wish(term.path, wished)
        elif isinstance(term, Name) and term.name == clause.each:
            at = clause.keys or ()
            element = {
                key.path: one
                for key, one in zip(at, keys, strict=True)
                if isinstance(key, Name) and _is_of(key, term.name)
            }
            Seeker(self).wish_element(missing, clause, {**element, term.path: wished})
        return missing


def _key(arg: Arg) -> str:
    term = arg.term
    if term is None:
        return arg.name
    return term.name if isinstance(term, Name) and term.keys is None and not term.path else f"={arg.name}"


def _is_of(term: Term, name: str) -> bool:
    return isinstance(term, Name) and term.name == name


def _plain(term: Term) -> str:
    return term.name if isinstance(term, Name) and term.keys is None and not term.path else ""


def _is_unknown(term: Term) -> bool:
    return isinstance(term, Literal) and term.value is None


def _word(value: Truth) -> str:
    return "unknown" if value is None else str(value).lower()
