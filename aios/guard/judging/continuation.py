"""Continuations: moves by which a process comes to an admitted end, searched on twins of the gate.

First along what the explanations say is missing for the end, then, in a small world, along every move with the values
that occur. What is found was tried step by step as the gate judges. Bounded: finding none within the bound is no
proof, and is told apart from having tried everything that was to be tried.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

from aios.abi.guard import TraceEvent
from aios.guard.judging.certainty import Certainty
from aios.guard.judging.fingerprint import fingerprint
from aios.guard.judging.hopeless import is_hopeless
from aios.guard.judging.moves import Move
from aios.guard.judging.offers import Offers
from aios.guard.judging.plan import next_steps
from aios.guard.judging.slots import Slots
from aios.guard.language.sorts import example
from aios.guard.language.syntax import Extent
from aios.guard.language.tree import walk
from aios.guard.language.values import UNKNOWN
from aios.guard.monitor.facts import Happening, Outstanding

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Plan = tuple[Move, ...]
Moves = Callable[["RuleGate", int], Iterator[tuple[Move, ...]]]
_LIKELY, _ALL = 60, 240
"""Moves tried."""
_LONGEST = 10
"""Moves of a plan."""
_MOST_WAITING = 4
"""Unanswered calls whose answers may come in any order."""


class Continuation:
    """Tries and searches for the processes of one program."""

    def __init__(self, slots: Slots) -> None:
        self._slots, self._level = slots, slots.table.level
        self._offers, self._certainty = Offers(slots.table.program), Certainty(slots.table.program)
        parts = [part for decl in slots.table.program.file.decls for part in walk(decl)]
        self._counts_calls = any(isinstance(part, Extent) and part.calls for part in parts)
        windows = [made.window for made in slots.table.program.duties.values()]
        self._longest = 1 + max([window.amount for window in windows if window and not window.calls], default=-1)

    def holds(self, gate: "RuleGate", pid: int, plan: Plan) -> bool:
        """Whether the plan, after an answer to each call that it does not speak of, leads to the end.

        V1: done on the gate itself, which is a twin already. V2: the answers come first, in any order.
        """
        waiting = list(gate.monitor.facts(pid).outstanding.values())
        if self._level == "V2":
            rest = tuple(move for move in plan if move.kind != "answer")
            orders = self._orders(waiting)
            return bool(orders) and all(self._leads(gate, pid, (*order, *rest)) for order in orders)
        spoken = {move.cause for move in plan}
        first = (self._answers(one)[0] for one in waiting if one.call.seq not in spoken)
        return self._is_led(gate, pid, (*first, *plan), wait=0)

    def _orders(self, waiting: list[Outstanding]) -> list[Plan]:
        """The orders in which unanswered calls may be answered; none where there are too many."""
        answers = [move for one in waiting for move in self._answers(one)[:1]]
        return list(permutations(answers)) if len(answers) <= _MOST_WAITING else []

    def _leads(self, gate: "RuleGate", pid: int, moves: Plan) -> bool:
        """Whether these moves lead to the end; under V2 also if every deadline passes before each of them."""
        if self._level != "V2":
            return self._is_led(gate.twin(pid), pid, moves, wait=0)
        return all(self._is_led(gate.twin(pid), pid, moves, wait=wait) for wait in dict.fromkeys((0, self._longest)))

    def _is_led(self, twin: "RuleGate", pid: int, moves: Plan, *, wait: int) -> bool:
        for move in moves:
            if wait:
                Move("wait", wait=wait).try_on(twin, pid)
                twin.monitor.violations.clear()  # what time alone makes overdue has its `else`
            if not self._may_count_with(twin, pid, move) or not move.try_on(twin, pid):
                return False
        return self.is_safe(twin, pid)

    def _may_count_with(self, gate: "RuleGate", pid: int, move: Move) -> bool:
        """Whether the move is one to be counted with: under V2 only what is certain is."""
        if self._level != "V2" or move.kind == "answer":
            return True
        hanging = self._certainty.hanging(gate, pid)
        return move.kind in ("call", "say") and self._certainty.of_call(move.tool or "say", hanging)

    def settle(self, gate: "RuleGate", pid: int) -> None:
        """Let all that is outstanding succeed, on a twin: to tell what would then be owed."""
        for one in list(gate.monitor.facts(pid).outstanding.values()):
            for move in self._answers(one)[-1:]:
                move.try_on(gate, pid)

    def is_safe(self, gate: "RuleGate", pid: int) -> bool:
        """Whether the process may end here, or the table says that it will."""
        seq, now = gate.version + 1, gate.now
        nothing = Happening(seq, "tick", "", {}, round(now * 1_000_000))
        if self._slots.suffice(gate.monitor, pid, nothing):
            return True
        is_sure = self._level != "V2" or self._certainty.of_end(self._certainty.hanging(gate, pid))
        return is_sure and gate.passes(TraceEvent(seq, now, pid, "finish"))

    def search(self, gate: "RuleGate", pid: int) -> tuple[Plan | None, bool]:
        """Return a plan from here to the end, and whether all that could be tried was."""
        if self._leads(gate, pid, ()):
            return (), True
        if self._level != "V2":
            return self._search(gate, pid)
        orders = self._orders(list(gate.monitor.facts(pid).outstanding.values()))
        plans: list[Plan] = []
        for order in orders:
            twin = gate.twin(pid)
            if not all(move.try_on(twin, pid) for move in order):
                return None, True
            plan, is_all = self._search(twin, pid)
            if plan is None:
                return None, is_all
            plans.append(plan)
        return (plans[0], True) if plans else (None, False)

    def _search(self, gate: "RuleGate", pid: int) -> tuple[Plan | None, bool]:
        if self._leads(gate, pid, ()):
            return (), True
        found, _ = self._walk(gate, pid, self._likely, _LIKELY)
        return (found, True) if found is not None else self._walk(gate, pid, self._offers.all_of, _ALL)

    def _walk(self, gate: "RuleGate", pid: int, moves: Moves, most: int) -> tuple[Plan | None, bool]:
        if is_hopeless(self._slots.table, gate, pid):
            return None, True
        queue: deque[tuple[Plan, RuleGate]] = deque([((), gate)])
        seen, tried = {fingerprint(gate, pid, counts_calls=self._counts_calls)}, 0
        is_all = True
        while queue:
            path, state = queue.popleft()
            for step in self._next(state, pid, moves):
                if not step[0].is_possible(state, pid) or not self._may_count_with(state, pid, step[0]):
                    continue
                tried += 1
                if tried > most:
                    return None, False
                after = state.twin(pid)
                if not all(move.try_on(after, pid) for move in step):
                    continue
                if self.is_safe(after, pid) and (self._level != "V2" or self._leads(gate, pid, (*path, *step))):
                    return (*path, *step), True
                key = fingerprint(after, pid, counts_calls=self._counts_calls)
                if len(path) + len(step) >= _LONGEST:
                    is_all = False
                elif key not in seen and not is_hopeless(self._slots.table, after, pid):
                    queue.append(((*path, *step), after))
                seen.add(key)
        return None, is_all

    # --- what to try -------------------------------------------------------------------------------------------------

    def _likely(self, gate: "RuleGate", pid: int) -> Iterator[tuple[Move, ...]]:
        """What is missing for the end, and what voids a duty."""
        ending = TraceEvent(gate.version + 1, gate.now, pid, "finish")
        yield from (step.moves for step in next_steps(gate, ending))
        yield from self._offers.voiding(gate, pid)

    def _next(self, gate: "RuleGate", pid: int, moves: Moves) -> Iterator[tuple[Move, ...]]:
        """The moves to try: answers while something is outstanding, for one call after the other."""
        for waiting in gate.monitor.facts(pid).outstanding.values():
            answers = self._answers(waiting)
            if answers:
                return ((move,) for move in answers)
        if self._level != "V2":
            return moves(gate, pid)
        return (tuple(replace(move, result=UNKNOWN) for move in step) for step in moves(gate, pid))

    def _answers(self, waiting: Outstanding) -> list[Move]:
        """The answers to count with, the quieter one first. V2: whatever may come, told as what is least known."""
        call = waiting.call
        tool = self._slots.table.program.symbols.tools.get(call.tool)
        is_certain = tool is not None and tool.always_ok
        result = UNKNOWN if self._level == "V2" else {} if tool is None or tool.result is None else example(tool.result)
        ok = Move("answer", call.tool, answer="ok", result=result, cause=call.seq)
        if is_certain:
            return [ok]
        if self._level == "V2":
            return [] if waiting.lost else [Move("answer", call.tool, answer="lost", cause=call.seq)]
        return [Move("answer", call.tool, answer="err", result="", cause=call.seq), ok]
