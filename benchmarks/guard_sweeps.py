"""How the guard's costs grow: with events and rules for the gate, with candidates and the vocabulary for the mask.

Results only; the targets judge the corners (10^4 events, 40 rules, 1,000 candidates) in `benchmarks.guard`.
"""

import statistics
from collections.abc import Sequence

import numpy as np

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.engine.loader import LoadedModel
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.mask import CallMasks
from benchmarks.common import Sheet
from benchmarks.timing import cpu

EVENTS, RULES = (10, 100, 1_000, 10_000), (1, 5, 10, 20, 40)
CANDIDATES = (10, 100, 1_000)
LARGE = 152_064
"""Tokens of a Qwen vocabulary."""
_KINDS = (
    "require once ok get_order(order_id = o) before refund(order_id = o)",
    "limit count of refund(order_id = o) per o to 3",
    "forbid refund(order_id = o) when once within 1h err refund(order_id = o)",
    "require count of ok refund() within 24h < 1000000 before refund()",
    'forbid refund(order_id) when order_id = "#W-"',
)


class Sweeps:
    """All sweeps."""

    def __init__(self, loaded: LoadedModel, tools: tuple[ToolSpec, ...], *, quick: bool) -> None:
        self._loaded, self._tools, self._quick = loaded, tools, quick

    async def gate_by_events_and_rules(self, sheet: Sheet) -> None:
        """Median microseconds of judging one call, and of taking in one event."""
        judged: dict[str, float] = {}
        taken: dict[str, float] = {}
        for events in EVENTS[:3] if self._quick else EVENTS:
            for rules in RULES:
                gate = compile_rules(written(rules), tools=self._tools)
                place = f"{events} events, {rules} rules"
                taken[place] = statistics.median(_fill(gate, events)) * 1e6
                call = TraceEvent(gate.version + 1, 1e6, 1, "start", "refund", {"order_id": "#W0"})
                assert gate.judge(call).allow, gate.judge(call)
                judged[place] = statistics.median(cpu(lambda: gate.judge(call)) for _ in range(300)) * 1e6  # noqa: B023 - called at once
        sheet.results["gate_us"], sheet.results["monitor_step_us"] = judged, taken

    async def mask_by_candidates_and_vocabulary(self, sheet: Sheet) -> None:
        """Milliseconds of the first mask of an argument, cold."""
        found: dict[str, float] = {}
        tokenizer = self._loaded.tokenizer
        small = list(tokenizer.token_bytes)
        for name, texts in (("49k", small), ("152k", enlarged(small, LARGE))):
            masks = CallMasks(texts, tokenizer.special_ids)
            for candidates in CANDIDATES:
                samples = [self._cold(masks, candidates) for _ in range(5 if self._quick else 20)]
                found[f"{name}, {candidates} candidates"] = statistics.median(samples) * 1e3
        sheet.results["mask_cold_ms"] = found

    def _cold(self, masks: CallMasks, candidates: int) -> float:
        gate = compile_rules(written(1), tools=self._tools)
        _fill(gate, candidates * 2)
        mask = masks.open(gate.mask_state(1, 1e6), self._tools)
        head = '<tool_call>\n{"name": "refund", "arguments": {"order_id": "#W'
        for token in self._loaded.tokenizer.encode(head):
            mask.accept(token)
        bits = np.full(masks.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)
        return cpu(lambda: mask.restrict(bits))


def written(rules: int) -> str:
    """So many rules, of five kinds in turn, all about the same call."""
    return "".join(f"rule r{number}: {_KINDS[number % len(_KINDS)]}\n" for number in range(rules))


def enlarged(texts: Sequence[bytes], size: int) -> list[bytes]:
    """A vocabulary of `size` tokens: the given ones, and pairs of them that are not among them."""
    found, known = list(texts), set(texts)
    plain = [text for text in texts if 1 < len(text) < 8]
    step = 0
    while len(found) < size:
        step += 1
        for number in range(len(plain)):
            pair = plain[number] + plain[(number * 7919 + step * 104_729) % len(plain)]
            if pair not in known and len(found) < size:
                known.add(pair)
                found.append(pair)
    return found


def _fill(gate: RuleGate, events: int) -> list[float]:
    """Look up orders until there were so many events; the seconds of each."""
    samples = []
    for number in range(events // 2):
        seq = gate.version + 1
        start = TraceEvent(seq, float(seq), 1, "start", "get_order", {"order_id": f"#W{number}"})
        answer = TraceEvent(seq + 1, float(seq + 1), 1, "ok", cause=seq, result={"status": "sent"})
        samples += [cpu(lambda: gate.record(start)), cpu(lambda: gate.record(answer))]  # noqa: B023 - called at once
    return samples
