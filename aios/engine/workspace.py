"""Contexts with their pages and turns, and what the engine has to say about them.

Owns the contexts, the planner's view of who runs, the switches between tiers and the messages not yet sent.
Knows neither orders nor logits.
Invariants: the planner knows exactly the scheduled contexts; a held context is off the device.
"""

from collections.abc import Callable, Iterator

from aios.abi.chat import Finish
from aios.abi.core import AnyMessage, ContextPages, Described, Finished, Switched
from aios.abi.sched import Call, Load, Planner
from aios.engine.context import Context, Turn
from aios.engine.pages import OutOfFrames, Tier
from aios.engine.tiers import Memory, Moved
from aios.ids import ContextId


class Workspace:
    """All contexts of one engine."""

    def __init__(self, memory: Memory, planner: Planner, clock: Callable[[], float]) -> None:
        self.memory, self.planner, self.clock = memory, planner, clock
        self.contexts: dict[ContextId, Context] = {}
        self.num_switches = self.num_swapped = 0
        self._outbox: list[AnyMessage] = []

    # --- saying --------------------------------------------------------------------------------------------

    def say(self, message: AnyMessage) -> None:
        """Queue a message for the kernel."""
        self._outbox.append(message)

    def take_messages(self) -> list[AnyMessage]:
        """Return what was said since the last call, in order."""
        messages, self._outbox = self._outbox, []
        return messages

    def describe(self, context: Context, ticket: int, seconds: float = 0.0) -> None:
        """Answer an order with the context as it is now; digests are computed from the bytes where they lie."""
        self.say(
            Described(
                context=context.id,
                epoch=context.epoch,
                ticket=ticket,
                tier=Tier.DROPPED if context.outstanding and not context.table.pages else context.table.tier,
                tokens=context.table.tokens,
                pages=len(context.table.pages),
                shared_pages=context.table.num_shared,
                digests=self.memory.digests(context.table),
                seconds=seconds,
            )
        )

    # --- turns ---------------------------------------------------------------------------------------------

    def scheduled(self) -> Iterator[tuple[Context, Turn]]:
        """Contexts that the planner knows, with their turns."""
        for context in self.contexts.values():
            if context.turn is not None and not context.is_held:
                yield context, context.turn

    def begin(self, context: Context, turn: Turn) -> None:
        """Start a turn."""
        assert context.turn is None
        context.turn = turn
        if not context.is_held:
            self.enter(context, turn)

    def enter(self, context: Context, turn: Turn) -> None:
        """Tell the planner that a turn wants to be served."""
        facts = turn.order.facts
        self.planner.arrived(
            Call(
                context=context.id,
                pid=facts.pid,
                klass=facts.klass,
                nice=facts.nice,
                arrived_s=turn.arrived_s,
                prompt_tokens=context.outstanding,
                max_new_tokens=max(1, turn.most_tokens - len(turn.generated)),
                attained_tokens=facts.attained_tokens,
            )
        )

    def end(self, context: Context, finish: Finish) -> None:
        """End the running turn and report it; the KV stays."""
        turn = self.withdraw(context)
        turn.output.close()
        generation = turn.result(finish, self.clock())
        order = turn.order
        self.say(Finished(context=context.id, epoch=context.epoch, ticket=order.ticket, generation=generation))

    def withdraw(self, context: Context) -> Turn:
        """Take the running turn away without a report."""
        turn = context.turn
        assert turn is not None
        self.planner.left(context.id)
        context.turn, context.used_s = None, self.clock()
        self.answer_resume(context)
        return turn

    def forget(self, context: Context) -> None:
        """Give up a context and its pages."""
        self.memory.release(context.table)
        del self.contexts[context.id]

    def load(self, context: Context) -> Load:
        """A context's demand for the coming step."""
        table = context.table
        return Load(
            context=context.id,
            prefill_tokens=context.outstanding if context.outstanding > 1 else 0,
            pages_held=table.num_exclusive,
            pages_away=table.num_away,
            page_room=table.room,
        )

    # --- switches ------------------------------------------------------------------------------------------

    def switch_out(self, context: Context, tier: Tier, reason: str, ticket: int = 0) -> float:
        """Take a context off the device; return the seconds that it took. `ticket`: of the order that asked."""
        before, began = context.table.tier, self.clock()
        moved = self.memory.suspend(context.table, tier)
        seconds = self.clock() - began
        if moved.pages and moved.tier is not before:
            self.num_swapped += moved.pages
            self._switched(context, "out", moved, reason, seconds, ticket=ticket)
        return seconds

    def switch_in(self, context: Context, reason: str) -> float | None:
        """Bring a context back; None if there are not enough frames, else the seconds that it took.

        A Resume that waited for this is answered here: nothing has been computed since, the digests are those of then.
        """
        if context.table.resident:
            return 0.0
        began = self.clock()
        try:
            moved = self.memory.resume(context.table)
        except OutOfFrames:
            return None
        seconds = self.clock() - began
        self._switched(context, "in", moved, "order" if context.resuming else reason, seconds, ticket=context.resuming)
        self.answer_resume(context, seconds)
        return seconds

    def answer_resume(self, context: Context, seconds: float = 0.0) -> None:
        """Answer the Resume that the context waits for, if there is one."""
        if context.resuming:
            ticket, context.resuming = context.resuming, 0
            self.describe(context, ticket, seconds)

    def idle(self) -> list[Context]:
        """Contexts that hold frames and have nothing to do, the longest idle first."""
        idle = [c for c in self.contexts.values() if c.turn is None and c.table.resident and c.table.pages]
        return sorted(idle, key=lambda context: context.used_s)

    def reclaim(self, frames: int) -> None:
        """Make `frames` frames free, as far as contexts with nothing to do hold them."""
        if self.memory.device.num_free >= frames:
            return
        for context in self.idle():
            self.switch_out(context, Tier.HOST, "idle")
            if self.memory.device.num_free >= frames:
                return

    def pages(self) -> tuple[ContextPages, ...]:
        """Pages of each context by the tier that holds them."""
        return tuple(_count_pages(context) for context in self.contexts.values())

    def _switched(
        self, context: Context, direction: str, moved: Moved, reason: str, seconds: float, *, ticket: int
    ) -> None:
        turn = context.turn
        if direction == "out":
            self.num_switches += 1
            if turn:
                turn.switches += 1
        self.say(
            Switched(
                context=context.id,
                epoch=context.epoch,
                ticket=ticket,
                direction=direction,
                tier=moved.tier,
                reason=reason,
                pages=moved.pages,
                bytes=moved.bytes,
                mid_generation=turn is not None,
                generated=len(turn.generated) if turn else 0,
                seconds=seconds,
            )
        )


def _count_pages(context: Context) -> ContextPages:
    tiers = [page.tier for page in context.table.pages]
    return ContextPages(
        context=context.id,
        tokens=context.table.tokens,
        device=tiers.count(Tier.DEVICE),
        host=tiers.count(Tier.HOST),
        disk=tiers.count(Tier.DISK),
    )
