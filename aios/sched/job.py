"""What the policies keep of one generation between its arrival and its end."""

from dataclasses import dataclass

from aios.abi.process import ProcessClass
from aios.abi.sched import Call
from aios.ids import ContextId

_CLASS_LEVEL = {
    ProcessClass.DEADLINE: 0,
    ProcessClass.INTERACTIVE: 40,
    ProcessClass.BATCH: 80,
    ProcessClass.BACKGROUND: 120,
}


@dataclass(slots=True)
class Job:
    """A generation that is ready to be served. Owned by one planner."""

    context: ContextId
    pid: int
    klass: ProcessClass
    nice: int
    arrived_s: float
    waiting_since_s: float
    """When it arrived or its last turn ended."""
    remaining_tokens: int
    """Completion tokens that it may still make."""
    number: int
    """Arrival number: breaks ties."""
    had_turn: bool = False

    @classmethod
    def of(cls, call: Call, number: int) -> "Job":
        """Make the job of a call that arrived as the `number`-th."""
        return cls(
            context=call.context,
            pid=call.pid,
            klass=call.klass,
            nice=call.nice,
            arrived_s=call.arrived_s,
            waiting_since_s=call.arrived_s,
            remaining_tokens=call.max_new_tokens,
            number=number,
        )

    @property
    def level(self) -> int:
        """Priority as a number, smaller goes first: classes lie 40 apart, as far as niceness reaches."""
        return _CLASS_LEVEL[self.klass] + self.nice
