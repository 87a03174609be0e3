"""Continuations: moves by which a process comes to an admitted end, searched on twins of the gate.

First along what the explanations say is missing for the end, then, in a small world, along every move with the values
that occur. What is found was tried step by step as the gate judges. Bounded: finding none within the bound is no
proof, and is told apart from having tried everything that was to be tried.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aios.abi.guard import TraceEvent
from aios.guard.judging.fingerprint import fingerprint
from aios.guard.judging.hopeless import is_hopeless
from aios.guard.judging.moves import Move
from aios.guard.judging.offers import Offers
from aios.guard.judging.plan import next_steps
from aios.guard.judging.slots import Slots
from aios.guard.language.sorts import example
from aios.guard.monitor.facts import Happening, Outstanding

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Plan = tuple[Move, ...]
Moves = Callable[["RuleGate", int], Iterator[tuple[Move, ...]]]
_LIKELY, _ALL = 60, 400
"""Moves tried."""


class Continuation:
    """Tries and searches for the processes of one program."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._offers = Offers(slots.table.program)

    def holds(self, gate: "RuleGate", pid: int, plan: Plan) -> bool:
        """Whether the plan, after an answer to each call that it does not speak of, leads to the end."""
        twin = gate.twin(pid)
        spoken = {move.cause for move in plan}
        waiting = [one for seq, one in gate.monitor.facts(pid).outstanding.items() if seq not in spoken]
        moves = (*(self._answers(one)[0] for one in waiting), *plan)
        return all(move.try_on(twin, pid) for move in moves) and self.is_safe(twin, pid)

    def settle(self, gate: "RuleGate", pid: int) -> None:
        """Let all that is outstanding succeed, on a twin: to tell what would then be owed."""
        for one in list(gate.monitor.facts(pid).outstanding.values()):
            self._answers(one)[-1].try_on(gate, pid)

    def is_safe(self, gate: "RuleGate", pid: int) -> bool:
        """Whether the process may end here, or the table says that it will."""
        seq, now = gate.version + 1, gate.now
        nothing = Happening(seq, "tick", "", {}, round(now * 1_000_000))
        return self._slots.suffice(gate.monitor, pid, nothing) or gate.passes(TraceEvent(seq, now, pid, "finish"))

    def search(self, gate: "RuleGate", pid: int) -> tuple[Plan | None, bool]:
        """Return a plan from here to the end, and whether all that could be tried was."""
        if self.is_safe(gate, pid):
            return (), True
        found, _ = self._walk(gate, pid, self._likely, _LIKELY)
        return (found, True) if found is not None else self._walk(gate, pid, self._offers.all_of, _ALL)

    def _walk(self, gate: "RuleGate", pid: int, moves: Moves, most: int) -> tuple[Plan | None, bool]:
        if is_hopeless(self._slots.table, gate, pid):
            return None, True
        queue: deque[tuple[Plan, RuleGate]] = deque([((), gate)])
        seen, tried = {fingerprint(gate, pid)}, 0
        while queue:
            path, state = queue.popleft()
            for step in self._next(state, pid, moves):
                if not step[0].is_possible(state, pid):
                    continue
                tried += 1
                if tried > most:
                    return None, False
                after = state.twin(pid)
                if not all(move.try_on(after, pid) for move in step):
                    continue
                if self.is_safe(after, pid):
                    return (*path, *step), True
                key = fingerprint(after, pid)
                if key not in seen and not is_hopeless(self._slots.table, after, pid):
                    queue.append(((*path, *step), after))
                seen.add(key)
        return None, True

    # --- what to try -------------------------------------------------------------------------------------------------

    def _likely(self, gate: "RuleGate", pid: int) -> Iterator[tuple[Move, ...]]:
        """What is missing for the end, and what voids a duty."""
        ending = TraceEvent(gate.version + 1, gate.now, pid, "finish")
        yield from (step.moves for step in next_steps(gate, ending))
        yield from self._offers.voiding(gate, pid)

    def _next(self, gate: "RuleGate", pid: int, moves: Moves) -> Iterator[tuple[Move, ...]]:
        """The moves to try: answers while something is outstanding, for one call after the other."""
        waiting = next(iter(gate.monitor.facts(pid).outstanding.values()), None)
        if waiting is None:
            return moves(gate, pid)
        return ((move,) for move in self._answers(waiting))

    def _answers(self, waiting: Outstanding) -> list[Move]:
        """The answers that the environment may give, the quieter one first."""
        call = waiting.call
        tool = self._slots.table.program.symbols.tools.get(call.tool)
        result = {} if tool is None or tool.result is None else example(tool.result)
        ok = Move("answer", call.tool, answer="ok", result=result, cause=call.seq)
        if tool is not None and tool.always_ok:
            return [ok]
        return [Move("answer", call.tool, answer="err", result="", cause=call.seq), ok]
