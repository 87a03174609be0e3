"""Contexts with their pages and turns, and what the engine has to say about them.

Owns the contexts, the planner's view of who runs, the switches between tiers and the messages not yet sent.
Knows neither orders nor logits.
Invariants: the planner knows exactly the scheduled contexts; `compiling` are those of them whose grammar is not there
yet; a held context is off the device.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from aios.abi.chat import Finish
from aios.abi.core import AnyMessage, Called, ContextPages, Described, Finished, Refused, Switched
from aios.abi.sched import Call, Load, Planner, Retention
from aios.engine.arrivals import Arrival, Moved
from aios.engine.context import Context, Turn
from aios.engine.disk import SnapshotError
from aios.engine.grammar import PendingGrammar
from aios.engine.pages import OutOfFrames, PageTable, Tier
from aios.engine.tiers import Memory
from aios.ids import ContextId


@dataclass(frozen=True, slots=True)
class _Return:
    """A context on its way back to the device."""

    arrival: Arrival
    reason: str
    began_s: float


@dataclass(slots=True)
class _Answer:
    """An order to be answered when the context's pages are where they should be and their digests are known."""

    context: Context
    ticket: int
    seconds: float
    told: Described | None = None
    look: Future[tuple[str, ...]] | None = None
    is_last_try: bool = False


class Workspace:
    """All contexts of one engine. `may_drop`: pages may be given up although there is room for them elsewhere."""

    def __init__(
        self,
        memory: Memory,
        planner: Planner,
        clock: Callable[[], float],
        retention: Retention,
        *,
        may_drop: bool = True,
    ) -> None:
        self.memory, self.planner, self.clock = memory, planner, clock
        self._retention, self.may_drop = retention, may_drop
        self.contexts: dict[ContextId, Context] = {}
        self.compiling: dict[ContextId, Context] = {}
        self._scheduled: dict[ContextId, Context] = {}
        self.num_switches = self.num_swapped = 0
        self._returns: dict[ContextId, _Return] = {}
        self._answers: list[_Answer] = []
        self._outbox: list[AnyMessage] = []

    # --- saying --------------------------------------------------------------------------------------------

    def say(self, message: AnyMessage) -> None:
        """Queue a message for the kernel."""
        self._outbox.append(message)

    def say_called(self, context: Context) -> None:
        """Tell the kernel of the calls that a turn has completed."""
        assert context.turn is not None
        self.say(Called(context=context.id, epoch=context.epoch, calls=context.turn.output.tool_calls))

    def take_messages(self) -> list[AnyMessage]:
        """Return what was said since the last call, in order."""
        messages, self._outbox = self._outbox, []
        return messages

    def describe(self, context: Context, ticket: int, seconds: float = 0.0) -> None:
        """Answer an order with the context as it is when its pages rest; digests are those of the bytes there."""
        self._answers.append(_Answer(context, ticket, seconds))
        self._answer()

    def settle(self) -> None:
        """Take in the copies and digests that have ended, and say what follows."""
        self.memory.settle()
        if self._returns:
            self._report_returns()
        if self._answers:
            self._answer()

    def finish(self) -> None:
        """Wait for all that is under way."""
        self.memory.drain()
        self.settle()
        while self._answers:
            self.memory.drain()
            self.settle()

    def _answer(self) -> None:
        self._answers = [answer for answer in self._answers if not self._is_answered(answer)]

    def _is_answered(self, answer: _Answer) -> bool:
        """Begin to look at the pages, or say what was found."""
        if answer.look is None:
            table = answer.context.table
            if any(Tier.DISK in page.coming for page in table.pages):
                return False
            self.memory.cut_lost(table)
            answer.told, answer.look = self._description(answer), self.memory.look(table)
        if not answer.look.done():
            return False
        assert answer.told is not None
        try:
            self.say(msgspec.structs.replace(answer.told, digests=answer.look.result()))
        except SnapshotError as error:
            return self._has_given_up(answer, error)
        return True

    def _has_given_up(self, answer: _Answer, error: SnapshotError) -> bool:
        """Look again, once: the page may have been moved meanwhile."""
        if not answer.is_last_try:
            answer.look, answer.is_last_try = None, True
            return self._is_answered(answer)
        context = answer.context
        self.say(
            Refused(context=context.id, epoch=context.epoch, ticket=answer.ticket, code="E-SNAPSHOT", reason=str(error))
        )
        return True

    def _description(self, answer: _Answer) -> Described:
        context = answer.context
        return Described(
            context=context.id,
            epoch=context.epoch,
            ticket=answer.ticket,
            tier=Tier.DROPPED if context.outstanding and not context.table.pages else context.table.tier,
            tokens=context.table.tokens,
            pages=len(context.table.pages),
            shared_pages=context.table.num_shared,
            seconds=answer.seconds,
        )

    # --- contexts ------------------------------------------------------------------------------------------

    def open(self, name: ContextId, epoch: int, table: PageTable) -> Context:
        """Make a context with the pages of `table`."""
        context = self.contexts[name] = Context(name, epoch, table, used_s=self.clock())
        self.memory.shelf.joined(table.owner)
        return context

    def forget(self, context: Context) -> None:
        """Give up a context and its pages."""
        self._returns.pop(context.id, None)
        self.memory.release(context.table)
        self.memory.shelf.left(context.table.owner)
        del self.contexts[context.id]

    # --- turns ---------------------------------------------------------------------------------------------

    def scheduled(self) -> Iterator[tuple[Context, Turn]]:
        """Contexts that the planner knows, with their turns, in the order of their coming."""
        for context in self._scheduled.values():
            assert context.turn is not None
            yield context, context.turn

    def begin(self, context: Context, turn: Turn) -> None:
        """Start a turn."""
        assert context.turn is None
        context.turn = turn
        if not context.is_held:
            self.enter(context, turn)

    def enter(self, context: Context, turn: Turn) -> None:
        """Tell the planner that a turn wants to be served."""
        self._scheduled[context.id] = context
        turn.waits_since = None  # what it waited while it was held does not count
        if isinstance(turn.grammar, PendingGrammar):
            self.compiling[context.id] = context
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

    def leave(self, context: Context) -> None:
        """Tell the planner that a turn is not to be served any more; a context without one is ignored."""
        self._scheduled.pop(context.id, None)
        self.compiling.pop(context.id, None)
        self.planner.left(context.id)

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
        self.leave(context)
        context.turn, context.used_s = None, self.clock()
        self.answer_resume(context)
        return turn

    def load(self, context: Context) -> Load:
        """A context's demand for the coming step."""
        table, outstanding = context.table, context.outstanding
        ahead = context.turn.ahead if context.turn is not None else 0
        return Load(
            context=context.id,
            prefill_tokens=outstanding if outstanding > 1 + ahead else 0,
            decode_tokens=outstanding if outstanding <= 1 + ahead else 1,
            pages_held=table.num_exclusive,
            pages_away=table.num_away,
            page_room=table.room,
        )

    # --- switches ------------------------------------------------------------------------------------------

    def evict(self, context: Context, reason: str) -> float:
        """Take a context off the device, to wherever that costs least."""
        footprint, room = self.memory.footprint(context.table), self.memory.room(may_drop=self.may_drop)
        refuge = self._retention.refuge(footprint, room, self.memory.gauges.rates)
        return self.switch_out(context, Tier(refuge), reason)

    def switch_out(self, context: Context, tier: Tier, reason: str, ticket: int = 0) -> float:
        """Take a context off the device; return the seconds that it took. `ticket`: of the order that asked."""
        self._returns.pop(context.id, None)
        before, began = context.table.tier, self.clock()
        moved = self.memory.suspend(context.table, tier)
        seconds = self.clock() - began
        if moved.pages and moved.tier is not before:
            self.num_swapped += moved.pages
            self._switched(context, "out", moved, reason, seconds, ticket=ticket)
        return seconds

    def switch_in(self, context: Context, reason: str) -> bool:
        """Bring a context back; whether it is there. If not, there are too few frames, or its pages are on their way.

        A Resume that waited for this is answered when they have come: the digests are those of then.
        """
        if context.table.resident:
            return True
        if context.id not in self._returns:
            began = self.clock()
            try:
                arrival = self.memory.fetch(context.table)
            except OutOfFrames:
                return False
            self._returns[context.id] = _Return(arrival, "order" if context.resuming else reason, began)
        self._report_returns()
        return context.table.resident

    def _report_returns(self) -> None:
        """Say which contexts have come back since the last time."""
        for name, back in [*self._returns.items()]:
            moved = back.arrival.moved
            if moved is None:
                continue
            del self._returns[name]
            context, seconds = self.contexts[name], self.clock() - back.began_s
            reason = f"{back.reason}; computed again from token {context.table.tokens}: {moved.fault}"
            self._switched(
                context, "in", moved, reason if moved.fault else back.reason, seconds, ticket=context.resuming
            )
            self.answer_resume(context, seconds)

    def answer_resume(self, context: Context, seconds: float = 0.0) -> None:
        """Answer the Resume that the context waits for, if there is one."""
        if context.resuming:
            ticket, context.resuming = context.resuming, 0
            self.describe(context, ticket, seconds)

    def idle(self) -> list[Context]:
        """Contexts that hold frames and have nothing to do, the greatest waste of memory first."""
        idle = [c for c in self.contexts.values() if c.turn is None and c.table.resident and c.table.pages]
        now, room, rates = self.clock(), self.memory.room(may_drop=self.may_drop), self.memory.gauges.rates

        def waste(context: Context) -> float:
            return self._retention.waste(self.memory.footprint(context.table, now - context.used_s), room, rates)

        return sorted(idle, key=waste, reverse=True)

    def reclaim(self, frames: int) -> None:
        """Make `frames` frames free, as far as contexts with nothing to do hold them."""
        if self.memory.num_available >= frames:
            return
        for context in self.idle():
            self.evict(context, "idle")
            if self.memory.num_available >= frames:
                return

    def on_host(self, context: Context) -> list[Context]:
        """Other contexts of its tenant that keep pages on the host, those first that were used last longest ago."""
        owner = context.table.owner
        there = [one for one in self.contexts.values() if one.table.owner == owner and one is not context]
        on_host = [
            one for one in there if not one.table.is_active and any(page.host is not None for page in one.table.pages)
        ]
        return sorted(on_host, key=lambda one: one.used_s)

    def give_way(self, context: Context) -> None:
        """Take a context off the host, for pages of other tenants that its own tenant pushes off the device."""
        room = self.memory.room(may_drop=self.may_drop)
        if room.disk >= len(context.table.pages):
            self.switch_out(context, Tier.DISK, "pages")
        elif self.may_drop:
            self.switch_out(context, Tier.DROPPED, "pages")

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
