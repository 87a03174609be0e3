"""What the guard costs, in CPU time: judging and recording in the kernel, masks and their share of an engine's step.

    python -m benchmarks.guard [--json [OUT]] [--check] [--quick]

Rules: `retail.rules` beside this file. Traces: a desk that looks up ever new orders and acts on some. Masks: on the
vocabulary of the embedded model, calls written in the model's own tokens, asked twice: behind the grammar, as the
engine asks, which the targets judge, and with all tokens set (`mask_unconstrained`, results only). Share of a step:
the real model decodes guarded calls, `TokenMask.restrict` and `accept` timed within.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios.abi.chat import Message, Sampling, ToolCall
from aios.abi.core import MaskState, ProcessFacts, Stepped, Submit
from aios.abi.guard import TraceEvent
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.boot.engine_host import HostSettings, make_engine, make_memory, physical_cores
from aios.engine import modelstore
from aios.engine.grammar import Grammars
from aios.engine.loader import LoadedModel, load_model
from aios.formats.calls import render_call
from aios.formats.grammar import generation_grammar
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.mask import CallMasks, TokenMask
from aios.ids import ContextId
from benchmarks.common import BenchmarkError, Sheet, main, percentile
from benchmarks.guard_peers import JudgingPeers, ResamplePeer
from benchmarks.guard_solver import SolverProbes
from benchmarks.guard_sweeps import Sweeps
from benchmarks.timing import cpu

MODEL = "smollm2-135m"
RULES = Path(__file__).with_name("retail.rules")
LOOK_FIRST = "rule look_first: require once ok get_order(order_id = o) before refund(order_id = o)\n"
ONCE = "rule refund_once: limit count of refund(order_id = o) per o to 1\n"
MANY = 1000
"""Candidates of the cold mask."""
_ORDER = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}},
    "required": ["order_id"],
    "additionalProperties": False,
}
TOOLS = (ToolSpec(name="get_order", parameters=_ORDER), ToolSpec(name="refund", parameters=_ORDER))
Bits = NDArray[np.uint32]


class Trace:
    """A desk at work: a gate, and events that go into it. Each event's time is kept."""

    def __init__(self, text: str, tools: tuple[ToolSpec, ...] = ()) -> None:
        self.gate: RuleGate = compile_rules(text, tools=tools)
        self.steps: list[float] = []

    def event(self, kind: Any, tool: str = "", cause: int | None = None, result: Any = None, **args: Any) -> TraceEvent:
        """Make the next event."""
        seq = self.gate.version + 1
        return TraceEvent(seq, float(seq), 1, kind, tool, args, cause=cause, result=result)

    def done(self, tool: str, result: Any = None, **args: Any) -> None:
        """A call and its success."""
        start = self.event("start", tool, **args)
        self.steps.append(cpu(lambda: self.gate.record(start)))
        answer = self.event("ok", cause=start.seq, result=result)
        self.steps.append(cpu(lambda: self.gate.record(answer)))


def retail(length: int) -> Trace:
    """A trace of about `length` events; a tenth of the orders is cancelled."""
    trace = Trace(RULES.read_text())
    trace.done("find_user_id_by_email", "ann", email="a@b.c")
    trace.done("get_user_details", {"payment_methods": ["card", "gift"], "balance": 5}, user_id="ann")
    number = 0
    while trace.gate.version < length:
        number += 1
        order = {"user_id": "ann", "status": "pending", "items": [{"item_id": "i1"}], "payment": "card"}
        trace.done("get_order_details", order, order_id=f"#W{number}")
        if number % 10 == 0:
            trace.done("cancel_pending_order", "ok", order_id=f"#W{number}", reason="no longer needed")
    return trace


def proposals(trace: Trace) -> list[TraceEvent]:
    """Calls that are allowed, one of each kind; a refusal also makes an explanation, which has a target of its own."""
    return [
        trace.event("start", "get_order_details", order_id="#W1"),
        trace.event("start", "cancel_pending_order", order_id="#W1", reason="no longer needed"),
        trace.event("start", "modify_pending_order_address", order_id="#W1", address="Elm Street 1"),
        trace.event("start", "get_user_details", user_id="ann"),
        trace.event("start", "find_user_id_by_email", email="x@y.z"),
    ]


def judged(trace: Trace, rounds: int) -> list[float]:
    """Microseconds of judging each proposal, `rounds` times."""
    calls = proposals(trace)
    assert all(trace.gate.judge(call).allow for call in calls), [trace.gate.judge(call).rules for call in calls]
    return [cpu(lambda call=call: trace.gate.judge(call)) * 1e6 for _ in range(rounds) for call in calls]  # type: ignore[misc]  # mypy cannot infer a lambda with a default


# --- gate and monitor ------------------------------------------------------------------------------------------------


class GateProbes:
    """Judging, recording, compiling, and what goes to the core."""

    def __init__(self, *, quick: bool) -> None:
        self.rounds = 200 if quick else 2000
        self.few, self.many = retail(10), retail(10_000)

    async def gate(self, sheet: Sheet) -> None:
        """Judge after 10 and after 10^4 events, in turns."""
        few, many = [], []
        for _ in range(5):
            few += judged(self.few, self.rounds // 5)
            many += judged(self.many, self.rounds // 5)
        sheet.keep("gate_10_events", few, "us")
        sheet.keep("gate_10k_events", many, "us")
        sheet.values["gate_median_us"] = statistics.median(many)
        sheet.values["gate_p99_us"] = percentile(many, 99)
        sheet.values["gate_10k_vs_10_events"] = statistics.median(many) / statistics.median(few)

    async def monitor(self, sheet: Sheet) -> None:
        """Record; the samples were taken while the long trace was made."""
        steps = [seconds * 1e6 for seconds in self.many.steps]
        sheet.keep("monitor_step", steps, "us")
        sheet.values["monitor_step_us"] = statistics.median(steps)

    async def compile(self, sheet: Sheet) -> None:
        """Compile 40 rules: those of the file and copies under other names."""
        text = RULES.read_text()
        lines = text.splitlines(keepends=True)
        single = [line for line in lines if line.startswith("rule ") and " before " in line]
        copies = [line.replace("rule ", "rule again_", 1) for line in single][: 40 - text.count("\nrule ")]
        full = text + "".join(copies)
        assert full.count("\nrule ") == 40, full.count("\nrule ")
        samples = [cpu(lambda: compile_rules(full)) * 1e3 for _ in range(5)]
        sheet.keep("compile_40_rules", samples, "ms")
        sheet.values["compile_40_rules_ms"] = statistics.median(samples)

    async def mask_states(self, sheet: Sheet) -> None:
        """Residuals for the core: all anew, and again after an event that no rule hears."""
        for name, trace in (("10", self.few), ("10k", self.many)):
            for _ in range(3):
                trace.done("transfer_to_human_agents", "no", summary="x")
                fresh = cpu(lambda: trace.gate.mask_state(1, 1e6)) * 1e3  # noqa: B023 - called at once
                sheet.raw.setdefault(f"mask_state_{name}_events", []).append(fresh)
            sheet.keep(f"mask_state_{name}_events", sheet.raw[f"mask_state_{name}_events"], "ms")


# --- masks -----------------------------------------------------------------------------------------------------------


class MaskProbes:
    """Masks on the model's vocabulary."""

    def __init__(self, loaded: LoadedModel, *, quick: bool) -> None:
        tokenizer = loaded.tokenizer
        self.tokenizer, self.quick = tokenizer, quick
        self.masks = CallMasks(tokenizer.token_bytes, tokenizer.special_ids)
        self.grammars = Grammars(tokenizer)
        text = generation_grammar(TOOLS, "required")
        assert text is not None
        self.pending = self.grammars.open(text)
        self.pending.wait()
        self.open_all().restrict(self.everything())  # tables of the vocabulary are made at the first use

    def everything(self) -> Bits:
        """All tokens."""
        return np.full(self.masks.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)

    def state(self, orders: int) -> MaskState:
        """Residuals of a desk that has looked up so many orders."""
        trace = Trace(LOOK_FIRST + ONCE, TOOLS)
        for number in range(orders):
            trace.done("get_order", {"status": "sent"}, order_id=f"#W{1000 + number}")
        return trace.gate.mask_state(1, 1e6)

    def open_all(self) -> TokenMask:
        """A new mask of a desk that knows three orders."""
        return self.masks.open(self.state(3), TOOLS)

    def written(self, tool: str, order: str) -> list[int]:
        """The tokens of a call."""
        return self.tokenizer.encode(render_call(ToolCall(id="c", name=tool, arguments={"order_id": order})))

    def sampled(self, mask: TokenMask, tokens: list[int], *, grammatical: bool) -> Iterator[tuple[float, float]]:
        """Write a call; yield the microseconds of each step's mask, cold and asked again."""
        grammar = self.pending.take() if grammatical else None
        for token in tokens:
            bits = grammar.bits() if grammar is not None else self.everything()
            again = bits.copy()
            cold = cpu(lambda: mask.restrict(bits)) * 1e6  # noqa: B023 - called at once
            yield cold, cpu(lambda: mask.restrict(again)) * 1e6  # noqa: B023 - called at once
            mask.accept(token)
            if grammar is not None:
                grammar.accept([token])

    async def masks_of_calls(self, sheet: Sheet) -> None:
        """Write calls to different orders; every mask is asked cold (a new mask for each call) and warm."""
        dice = random.Random(1)
        cold, warm, wide = [], [], []
        for number in range(20 if self.quick else 100):
            tool, order = dice.choice(("get_order", "refund")), f"#W{1000 + number % 3}"
            tokens = self.written(tool, order)
            for one, other in self.sampled(self.open_all(), tokens, grammatical=True):
                cold.append(one)
                warm.append(other)
            wide += [one for one, _ in self.sampled(self.open_all(), tokens, grammatical=False)]
        sheet.keep("mask", cold, "us")
        sheet.keep("mask_warm", warm, "us")
        sheet.keep("mask_unconstrained", wide, "us")
        sheet.values["mask_median_us"] = statistics.median(cold)
        sheet.values["mask_p99_ms"] = percentile(cold, 99) / 1000
        sheet.values["mask_warm_us"] = statistics.median(warm)

    async def many_candidates(self, sheet: Sheet) -> None:
        """The first mask of an argument that may have one of a thousand values, newly opened each time."""
        state = self.state(MANY)
        samples, opening = [], []
        for _ in range(20 if self.quick else 100):
            opened: list[TokenMask] = []
            opening.append(cpu(lambda: opened.append(self.masks.open(state, TOOLS))) * 1e3)  # noqa: B023 - at once
            mask = opened[0]
            for token in self.tokenizer.encode('<tool_call>\n{"name": "refund", "arguments": {"order_id": "#W'):
                mask.accept(token)
            bits = self.everything()
            samples.append(cpu(lambda: mask.restrict(bits)) * 1e3)  # noqa: B023 - called at once
        sheet.keep("mask_cold_1000", samples, "ms")
        sheet.keep("mask_open_1000", opening, "ms")
        sheet.values["mask_cold_1000_p99_ms"] = percentile(samples, 99)


# --- beside the real model -------------------------------------------------------------------------------------------


class Meter:
    """CPU time of all masks while it is on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Time `restrict` and `accept` of every mask."""
        before = TokenMask.restrict, TokenMask.accept
        TokenMask.restrict = self._timed(before[0])  # type: ignore[method-assign]  # put back below
        TokenMask.accept = self._timed(before[1])  # type: ignore[method-assign]  # put back below
        try:
            yield
        finally:
            TokenMask.restrict, TokenMask.accept = before  # type: ignore[method-assign]  # as they were

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(mask: TokenMask, argument: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(mask, argument)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


class StepProbes:
    """Guarded decoding on the real model. Wall time on both sides of each ratio: a step's matrices use all cores."""

    def __init__(self, loaded: LoadedModel, *, quick: bool) -> None:
        self.loaded, self.steps = loaded, 8 if quick else 24

    async def batch(self, sheet: Sheet) -> None:
        """32 rows in one step."""
        share, steps = self.share(32)
        sheet.keep("step_32_rows", steps, "ms")
        sheet.values["batch32_share_of_step"] = share

    async def loss(self, sheet: Sheet) -> None:
        """8 rows: what is lost of the tokens that the same steps would make without masks."""
        share, steps = self.share(8)
        sheet.keep("step_8_rows", steps, "ms")
        sheet.values["tokens_per_s_loss"] = share
        sheet.why["tokens_per_s_loss"] = "masks' share of the steps' time; gate and residuals run in the kernel"

    def share(self, rows: int) -> tuple[float, list[float]]:
        """Decode calls in `rows` contexts; return the masks' share of the decode steps, and the steps in ms."""
        settings = HostSettings(model=MODEL, pool_pages=rows * 32, host_pages=8, step_tokens=512, max_rows=rows)
        engine = make_engine(self.loaded, make_memory(self.loaded, settings), settings)
        state = Trace(LOOK_FIRST + ONCE, TOOLS).gate.mask_state(1, 0.0)
        for number in range(rows):
            engine.do(_ask(number + 1, state, 40 + rows))
        meter, steps = Meter(), list[tuple[float, float]]()
        with meter.on():
            while len(steps) < self.steps:
                began, spent = time.perf_counter(), meter.seconds
                if not engine.step():
                    if engine.wait_for_grammar():
                        continue
                    break
                whole = time.perf_counter() - began
                made = sum(len(said.rows) for said in engine.take_messages() if isinstance(said, Stepped))
                if made == rows:
                    steps.append((whole, meter.seconds - spent))
        engine.close()
        if not steps:
            raise BenchmarkError(f"no step had all {rows} rows")
        share = sum(guard for _, guard in steps) / sum(whole for whole, _ in steps)
        return share, [whole * 1000 for whole, _ in steps]


def _ask(pid: int, state: MaskState, tokens: int) -> Submit:
    request = LlmGenerate(
        messages=(Message(role="user", content=f"Refund order #W{1000 + pid}."),),
        tool_choice="required",
        sampling=Sampling(max_tokens=tokens, temperature=1.0, seed=pid),
    )
    return Submit(
        context=ContextId(f"{pid}:main"), epoch=1, request=request, tools=TOOLS, facts=ProcessFacts(pid=pid),
        mask=state, lease_tokens=tokens,
    )  # fmt: skip


async def measure(quick: bool) -> Sheet:
    """Run all probes."""
    model = modelstore.find(MODEL)
    loaded = load_model(model.path, threads=physical_cores(), native=True)
    real = {"engine": "torch", "model_sha256": loaded.sha256, "durability": "none", "transport": "in process"}
    sheet = Sheet(real)
    gate = GateProbes(quick=quick)
    await sheet.attempt(gate.gate, "gate_median_us", "gate_p99_us", "gate_10k_vs_10_events")
    await sheet.attempt(gate.monitor, "monitor_step_us")
    await sheet.attempt(gate.compile, "compile_40_rules_ms")
    await sheet.attempt(gate.mask_states)
    masks = MaskProbes(loaded, quick=quick)
    await sheet.attempt(masks.masks_of_calls, "mask_median_us", "mask_p99_ms", "mask_warm_us")
    await sheet.attempt(masks.many_candidates, "mask_cold_1000_p99_ms")
    masks.grammars.close()
    sweeps = Sweeps(loaded, TOOLS, quick=quick)
    await sheet.attempt(sweeps.gate_by_events_and_rules)
    await sheet.attempt(sweeps.mask_by_candidates_and_vocabulary)
    await sheet.attempt(JudgingPeers(TOOLS, quick=quick).judging)
    await sheet.attempt(ResamplePeer(loaded, TOOLS, MODEL, quick=quick).resampling)
    solver = SolverProbes(quick=quick)
    await sheet.attempt(solver.decisions, "decision_with_solver_us", "decision_with_solver_p99_ms")
    steps = StepProbes(loaded, quick=quick)
    await sheet.attempt(steps.batch, "batch32_share_of_step")
    await sheet.attempt(steps.loss, "tokens_per_s_loss")
    return sheet


if __name__ == "__main__":
    main("guard", measure)
