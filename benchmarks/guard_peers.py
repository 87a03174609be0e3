"""The alternatives to our guard on the same input: what judging and steering cost where nothing is compiled.

- *naive Z3*: the whole trace as assertions, each check a fresh solver; the past as a quantifier over positions, and
  once more unrolled over them (ids as integers, which is kind: strings are slower).
- *whole-trace re-evaluation*: the same compiled rules, but the trace taken in anew for every check.
- *resample only*: no mask; a call is written to its end, judged, and written anew when it is refused.

Each peer gives the same verdicts as the gate on what it is asked, or the probe fails.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import z3

from aios.abi.chat import Message, Sampling, ToolCall
from aios.abi.core import Finished, MaskState, ProcessFacts, Submit
from aios.abi.guard import TraceEvent
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.engine.loader import LoadedModel
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.ids import ContextId
from benchmarks.common import BenchmarkError, Sheet

RULE = "rule look_first: require once ok get_order(order_id = o) before refund(order_id = o)\n"
LENGTHS = (10, 100, 1_000, 10_000)
_PATIENCE_S = 20.0
"""A check of a peer that takes longer is the last one of its kind."""
_STARTED, _OK = 0, 1
_LOOK, _REFUND = 0, 1


class Ordered(NamedTuple):
    """A trace of look-ups: events as the gate reads them, and the number of each order."""

    events: list[TraceEvent]
    orders: int


def look_ups(length: int) -> Ordered:
    """`length` events: orders looked up one after another."""
    events = []
    for seq in range(1, length + 1):
        order = f"#W{(seq - 1) // 2}"
        if seq % 2:
            events.append(TraceEvent(seq, float(seq), 1, "start", "get_order", {"order_id": order}))
        else:
            events.append(TraceEvent(seq, float(seq), 1, "ok", cause=seq - 1, result={"status": "sent"}))
    return Ordered(events, length // 2)


def proposals(trace: Ordered) -> list[tuple[int, bool]]:
    """Orders to refund, and whether that is allowed: the first, the last, one never seen."""
    return [(0, True), (trace.orders - 1, True), (trace.orders + 7, False)]


class JudgingPeers:
    """Judging one proposed refund after n events."""

    def __init__(self, tools: tuple[ToolSpec, ...], *, quick: bool) -> None:
        self._tools = tools
        self._lengths = LENGTHS[:2] if quick else LENGTHS

    async def judging(self, sheet: Sheet) -> None:
        """Ours and the peers on the same traces, in turns."""
        peers: dict[str, Callable[[Ordered, int], bool]] = {
            "z3_quantified": quantified,
            "z3_unrolled": unrolled,
            "whole_trace": self._whole_trace,
        }
        found: dict[str, Any] = {name: {} for name in ("gate", *peers)}
        for length in self._lengths:
            trace = look_ups(length)
            gate = self._gate(trace)
            found["gate"][length] = self._timed(trace, partial(_judged, gate), rounds=100)
            for name, peer in peers.items():
                before = [cost for cost in found[name].values() if cost is not None]
                tired = bool(before) and before[-1] > _PATIENCE_S * 1000
                found[name][length] = None if tired else self._timed(trace, peer)
        sheet.results["judging_ms_by_events"] = found
        last = {name: [cost for cost in costs.values() if cost is not None] for name, costs in found.items()}
        sheet.results["judging_peer_over_gate"] = {
            name: {length: cost / found["gate"][length] for length, cost in found[name].items() if cost is not None}
            for name in peers
            if last[name]
        }

    def _timed(self, trace: Ordered, judge: Callable[[Ordered, int], bool], rounds: int = 1) -> float:
        """Median milliseconds of CPU for one check. Raises BenchmarkError for a wrong verdict."""
        samples = []
        for order, allowed in proposals(trace) * rounds:
            began = time.thread_time()
            verdict = judge(trace, order)
            samples.append((time.thread_time() - began) * 1000)
            if verdict is not allowed:
                raise BenchmarkError(f"refund of order {order} after {len(trace.events)} events: {verdict}")
        return statistics.median(samples)

    def _gate(self, trace: Ordered) -> RuleGate:
        gate = compile_rules(RULE, tools=self._tools)
        for event in trace.events:
            gate.record(event)
        return gate

    def _whole_trace(self, trace: Ordered, order: int) -> bool:
        return _judged(self._gate(trace), trace, order)


def _judged(gate: RuleGate, trace: Ordered, order: int) -> bool:
    seq = len(trace.events) + 1
    return gate.allows(TraceEvent(seq, float(seq), 1, "start", "refund", {"order_id": f"#W{order}"}))


# --- naive Z3 --------------------------------------------------------------------------------------------------------


def quantified(trace: Ordered, order: int) -> bool:
    """The trace as functions of the position; the past as a quantifier."""
    kind, tool, arg = (z3.Function(name, z3.IntSort(), z3.IntSort()) for name in ("kind", "tool", "arg"))
    solver, i, o = z3.Solver(), z3.Int("i"), z3.Int("o")
    for position, (is_ok, number) in enumerate(_facts(trace)):
        solver.add(kind(position) == (_OK if is_ok else _STARTED), tool(position) == _LOOK, arg(position) == number)
    looked = z3.And(i >= 0, i < len(trace.events), kind(i) == _OK, tool(i) == _LOOK, arg(i) == o)
    solver.add(o == order, z3.Exists([i], looked))
    return _is_sat(solver)


def unrolled(trace: Ordered, order: int) -> bool:
    """The past as a disjunction over all positions."""
    solver, o = z3.Solver(), z3.Int("o")
    solver.add(o == order, z3.Or([o == number for is_ok, number in _facts(trace) if is_ok]))
    return _is_sat(solver)


def _facts(trace: Ordered) -> list[tuple[bool, int]]:
    return [(event.kind == "ok", index // 2) for index, event in enumerate(trace.events)]


def _is_sat(solver: z3.Solver) -> bool:
    answer = solver.check()
    if answer == z3.unknown:
        raise BenchmarkError(f"z3 answers unknown: {solver.reason_unknown()}")
    return bool(answer == z3.sat)


# --- resample only ---------------------------------------------------------------------------------------------------


class ResamplePeer:
    """The real model writes refunds of an order that it must look up first; without a mask, against with one."""

    def __init__(self, loaded: LoadedModel, tools: tuple[ToolSpec, ...], model: str, *, quick: bool) -> None:
        self._loaded, self._tools, self._model = loaded, tools, model
        self._calls, self._tries = (3, 4) if quick else (12, 8)

    async def resampling(self, sheet: Sheet) -> None:
        """Tokens spent for each admitted call."""
        gate = compile_rules(RULE, tools=self._tools)
        state = gate.mask_state(1, 0.0)
        found = {name: self._spent(gate, mask) for name, mask in (("mask", state), ("resample", None))}
        sheet.results["tokens_per_admitted_call"] = found

    def _spent(self, gate: RuleGate, mask: MaskState | None) -> dict[str, float | int | None]:
        tokens = admitted = refused = given_up = 0
        for number in range(self._calls):
            for attempt in range(self._tries):
                calls, count = self._written(number, attempt, mask)
                tokens += count
                if calls and all(self._allowed(gate, call) for call in calls):
                    admitted += 1
                    break
                refused += 1
            else:
                given_up += 1
        return {
            "tokens": tokens / admitted if admitted else None,
            "refused": refused,
            "admitted": admitted,
            "given_up": given_up,
        }

    @staticmethod
    def _allowed(gate: RuleGate, call: ToolCall) -> bool:
        return gate.allows(TraceEvent(1, 0.0, 1, "start", call.name, call.arguments))

    def _written(self, number: int, attempt: int, mask: MaskState | None) -> tuple[tuple[ToolCall, ...], int]:
        """The calls of one generation, and its tokens."""
        settings = HostSettings(model=self._model, pool_pages=48, host_pages=8, step_tokens=512, max_rows=1)
        engine = make_engine(self._loaded, make_memory(self._loaded, settings), settings)
        text = f"Refund order #W{1000 + number} now. Call refund."
        request = LlmGenerate(
            messages=(Message(role="user", content=text),),
            tool_choice="required",
            sampling=Sampling(max_tokens=96, temperature=1.0, seed=number * 100 + attempt),
        )
        engine.do(
            Submit(
                context=ContextId("1:main"), epoch=1, request=request, tools=self._tools, facts=ProcessFacts(pid=1),
                mask=mask, lease_tokens=96,
            )
        )  # fmt: skip
        try:
            while True:
                if not engine.step() and not engine.wait_for_grammar():
                    raise BenchmarkError("a generation stopped without an end")
                for said in engine.take_messages():
                    if isinstance(said, Finished):
                        return said.generation.tool_calls, len(said.generation.tokens)
        finally:
            engine.close()
