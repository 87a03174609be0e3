"""What a decision point costs where the solver must be asked: the mask's side, the child's, and the way between.

Rules: a parcel whose size, weight and insurance lie in one of six tariffs, under a budget that changes with the trace.
A decision: a tool was chosen, or a key opened; it ends when the spans of the argument are there. CPU time of both
processes, the child's from the scheduler's own account (`/proc/PID/schedstat`, nanoseconds); where there is none, the
wall time from the question to the answer.
"""

import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from aios.abi.guard import TraceEvent
from aios.boot.solver import open_solver
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.asking import Asking
from aios.guard.masking.choices import Choices
from aios.guard.solving.client import Solver
from benchmarks.common import BenchmarkError, Sheet, percentile

RULES = """
viability V0
tool budget() -> {left: Decimal(2)}
tool ship(size: Int, weight: Int, insured: Decimal(2))
register left: Decimal(2) on ok budget() set result.left
rule box: require size >= 1 and weight >= 1 and insured >= 0 before ship(size, weight, insured)
rule tariff: require size + weight <= 10 or (size - weight >= 8 and insured <= 500)
  or (2 * size + 3 * weight <= 60 and insured >= 10) or (weight >= 40 and weight - 2 * size <= 5)
  or (3 * size - 2 * weight >= 20 and size <= 70) or size + 4 * weight <= 90
  before ship(size, weight, insured)
rule cost: require 1.50 * size + 0.75 * weight + 0.02 * insured <= left before ship(size, weight, insured)
"""
_STARTS = 3
"""Decisions until everything is warm; not counted, as the child is started ahead of need."""
_STATES = 12
_PATIENCE_S = 10.0


class SolverProbes:
    """Decisions about `ship`, in ever new states of the trace."""

    def __init__(self, *, quick: bool) -> None:
        self.rounds = 60 if quick else 600
        self._answered = threading.Event()

    async def decisions(self, sheet: Sheet) -> None:
        """One decision each time: the tool chosen, or one of its keys opened behind what was decided at random."""
        with open_solver(on_answer=self._answered.set) as solver:
            samples, here = self._samples(solver)
            seen = solver.statistics()
        if seen.unknown:
            raise BenchmarkError(f"the solver had no answer: {dict(seen.unknown)}")
        sheet.keep("decision_with_solver", samples, "us")
        sheet.keep("decision_without_solver", here, "us")
        sheet.values["decision_with_solver_us"] = statistics.median(samples)
        sheet.values["decision_with_solver_p99_ms"] = percentile(samples, 99) / 1000
        if _child_cpu(0) is None:
            reason = "wall time: this system does not tell the child's CPU time finely enough"
            sheet.why |= dict.fromkeys(("decision_with_solver_us", "decision_with_solver_p99_ms"), reason)

    def _samples(self, solver: Solver) -> tuple[list[float], list[float]]:
        """Microseconds of the decisions for which the solver was asked, and of those that needed none."""
        dice, gate = random.Random(1), compile_rules(RULES)
        asked: list[float] = []
        here: list[float] = []
        for number in range(self.rounds + _STARTS):
            if number % (self.rounds // _STATES) == 0 or number < _STARTS:
                _spend(gate, dice)
            choices = _choices(gate, Asking(solver))
            decided: dict[str, Any] = {}
            for name in (None, *dice.sample(["size", "weight", "insured"], 3)):
                before = solver.statistics().asked
                spent = self._decide(solver, choices, decided, name)
                if number >= _STARTS:
                    (asked if solver.statistics().asked > before else here).append(spent * 1e6)
                if name is not None:
                    decided[name] = _some(choices, decided, name, dice)
        return asked, here

    def _decide(self, solver: Solver, choices: Choices, decided: dict[str, Any], name: str | None) -> float:
        """Return the seconds that a decision takes."""
        names = [] if name is None else [name]
        pid = solver.statistics().pid
        is_told = pid is not None and _child_cpu(pid) is not None
        clock = time.process_time if is_told else time.perf_counter
        # reading the child's account costs as much as a tenth of a decision: it stays outside
        there, here = (_child_cpu(pid or 0) or 0.0) if is_told else 0.0, clock()
        while True:
            self._answered.clear()
            if choices.is_settled(decided, names):
                spent = clock() - here
                return spent + ((_child_cpu(pid or 0) or 0.0) - there if is_told else 0.0)
            if not self._answered.wait(_PATIENCE_S):
                raise BenchmarkError(f"no answer within {_PATIENCE_S:g} s")


def _choices(gate: RuleGate, asking: Asking) -> Choices:
    state = gate.mask_state(1, 1e6)
    return Choices(state.residuals["ship"], {}, system=f"{state.rules} ship", asking=asking)


def _spend(gate: RuleGate, dice: random.Random) -> None:
    """Let the trace go on: another amount is left."""
    seq = gate.version
    gate.record(TraceEvent(seq + 1, 0.0, 1, "start", "budget", {}))
    left = dice.randrange(5_000, 20_000) / 100
    gate.record(TraceEvent(seq + 2, 0.0, 1, "ok", cause=seq + 1, result={"left": left}))


def _some(choices: Choices, decided: dict[str, Any], name: str, dice: random.Random) -> Any:
    """A value that the argument can have."""
    numbers: Any = choices.written(name, decided).some
    low, high = dice.choice(numbers.spans)
    first = 0 if low is None else low
    return numbers.value(dice.randint(first, first + 50 if high is None else min(high, first + 50)))


def _child_cpu(pid: int) -> float | None:
    """Seconds that a process (0: this one) has computed; None where the system does not say."""
    place = Path(f"/proc/{pid or 'self'}/schedstat")
    try:
        return int(place.read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
