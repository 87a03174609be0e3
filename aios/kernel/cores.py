"""Several cores as one: chooses where a generation runs, and moves it when its core cannot.

Owns where each context is and which cores are up. Does not know what a core is made of. A generation that moves goes
on behind its text where the next core can continue one, else it begins anew; its rows stay numbered without a gap.
Invariant: of a context only the messages of the core where it is are heard; every Submit ends once; while one core is
up, the loss of another is not told as `Lost`.
`start` and `aclose` belong to one task (between them a task group is open).
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import anyio
import msgspec

from aios.abi import core as c
from aios.errors import AiosError, EngineLost
from aios.ids import ContextId

AboutContext = c.Suspend | c.Resume | c.Fork | c.Drop | c.Cancel | c.Describe | c.Steer
OfContext = c.Admitted | c.Finished | c.Refused | c.Switched | c.Described
CorePolicy = Literal["first", "least-loaded", "prefix-affinity"]


@dataclass(slots=True)
class Call:
    """One generation under way."""

    order: c.Submit
    text: list[str]
    count: int
    offset: int = 0
    """Rows that earlier cores made and this one does not number."""
    failed: set[str] = field(default_factory=set)
    is_restarted: bool = False


@dataclass(slots=True)
class Member:
    """One core."""

    name: str
    core: c.Core
    ready: c.Ready | None = None
    is_up: bool = False
    reason: str = ""
    """Why it is not up, or why a call last left it."""
    asked: dict[int, c.ContextOrder] = field(default_factory=dict)
    """Orders that wait for `Described`, by ticket."""
    statistics: c.Statistics | None = None


class Cores:
    """See the module. `transient` are the codes of a refused Submit that another core may do better with."""

    def __init__(self, cores: Mapping[str, c.Core], policy: CorePolicy, transient: frozenset[str]) -> None:
        self._members = [Member(name, core) for name, core in cores.items()]
        self._policy, self._transient = policy, transient
        self._places: dict[ContextId, Member] = {}
        self._calls: dict[ContextId, Call] = {}
        self._suspended: dict[ContextId, c.Suspend] = {}
        self._outbox: deque[c.AnyMessage] = deque()
        self._said = anyio.Event()
        self._stack = AsyncExitStack()
        self._is_open = self._is_closed = False

    # --- Core ------------------------------------------------------------------------------------------------

    async def start(self) -> c.Ready:
        """Start all; ready when one is. Raises what the last one raised when none is."""
        problem: AiosError = EngineLost("no core is set")
        for member in self._members:
            try:
                member.ready = await member.core.start()
                member.is_up = True
            except AiosError as error:
                problem, member.reason = error, str(error)
        first = next((member.ready for member in self._members if member.ready is not None), None)
        if first is None:
            raise problem
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        for member in self._members:
            if member.is_up:
                tasks.start_soon(self._listen, member)
        return msgspec.structs.replace(first, device=", ".join(self._described()))

    async def send(self, order: c.AnyOrder) -> None:
        """Hand an order to the core where its context is; a new context is placed by the policy."""
        if isinstance(order, c.Reclassify | c.Shutdown):
            for member in self._members:
                if member.is_up:
                    await member.core.send(order)
            return
        if isinstance(order, c.Submit):
            await self._submit(order)
            return
        await self._about(order)

    def messages(self) -> AsyncIterator[c.AnyMessage]:
        """Everything that the cores say, as one. One reader."""
        return _Messages(self)

    async def aclose(self) -> None:
        """End all; idempotent."""
        self._is_closed = True
        self._said.set()
        await self._stack.aclose()
        for member in reversed(self._members):
            await member.core.aclose()

    async def next_message(self) -> c.AnyMessage | None:
        """Wait for the next message; None when closed."""
        while not self._outbox:
            if self._is_closed:
                return None
            self._said = anyio.Event()
            await self._said.wait()
        return self._outbox.popleft()

    # --- orders ----------------------------------------------------------------------------------------------

    async def _submit(self, order: c.Submit) -> None:
        call = Call(order, [order.generated_text], len(order.generated))
        self._calls[order.context] = call
        here = self._places.get(order.context)
        member = here if here is not None and here.is_up and self._policy != "first" else self._chosen(call, order)
        if member is None:
            return  # all are down: the kernel submits again after `Ready`
        await self._give(call, member)

    def _chosen(self, call: Call, order: c.Submit) -> Member | None:
        """Pick a core that is up and has not failed this call."""
        open_now = [member for member in self._members if member.is_up and member.name not in call.failed]
        if not open_now or self._policy == "first":
            return open_now[0] if open_now else None
        if self._policy == "prefix-affinity":
            for name, place in self._places.items():
                if place in open_now and _owner_of(name) == _owner_of(order.context):
                    return place  # contexts of one process mostly begin the same
        return min(open_now, key=self._load)

    def _load(self, member: Member) -> int:
        return sum(self._places.get(context) is member for context in self._calls)

    async def _give(self, call: Call, member: Member) -> None:
        order = self._fitted(call, member)
        self._places[order.context] = member
        if order.context in self._suspended:
            await member.core.send(msgspec.structs.replace(self._suspended[order.context], ticket=0))
        await member.core.send(order)

    def _fitted(self, call: Call, member: Member) -> c.Submit:
        """Write the order as this core can take it: text for those without token ids, ids where they mean the same."""
        order = call.order
        assert member.ready is not None
        call.offset = 0
        if member.ready.vocab_size == 0:
            unknown = (-1,) * call.count
            return msgspec.structs.replace(order, generated=unknown, generated_text="".join(call.text))
        if call.count == len(order.generated) and not call.failed and -1 not in order.generated:
            return order
        call.offset, call.is_restarted = call.count, call.count > 0
        left = max(1, order.lease_tokens - call.count)
        return msgspec.structs.replace(order, generated=(), generated_text="", lease_tokens=left)

    async def _about(self, order: AboutContext) -> None:
        member = self._places.get(order.context) or next((one for one in self._members if one.is_up), None)
        if isinstance(order, c.Suspend):
            self._suspended[order.context] = order
        elif isinstance(order, c.Resume | c.Drop):
            self._suspended.pop(order.context, None)
        if isinstance(order, c.Fork) and member is not None:
            self._places[order.into] = member
        if isinstance(order, c.Drop):
            self._places.pop(order.context, None)
        if member is None or not member.is_up:
            self._answer(order)
            return
        if order.ticket:
            member.asked[order.ticket] = order
        await member.core.send(order)

    def _answer(self, order: c.ContextOrder) -> None:
        """Answer for a core that is gone: of its contexts nothing is left."""
        if order.ticket:
            name = order.into if isinstance(order, c.Fork) else order.context
            self._say(
                c.Described(context=name, epoch=order.epoch, ticket=order.ticket, tier="dropped", tokens=0, pages=0)
            )

    # --- messages --------------------------------------------------------------------------------------------

    async def _listen(self, member: Member) -> None:
        async for message in member.core.messages():
            await self._take(member, message)

    async def _take(self, member: Member, message: c.AnyMessage) -> None:
        match message:
            case c.Stepped():
                self._stepped(member, message)
            case c.Statistics():
                member.statistics = message
                self._say(self._statistics(message))
            case c.Lost():
                await self._lost(member, message)
            case c.Ready():
                self._ready(member, message)
            case c.Admitted() | c.Finished() | c.Refused() | c.Switched() | c.Described():
                await self._about_context(member, message)

    def _stepped(self, member: Member, message: c.Stepped) -> None:
        rows = tuple(self._numbered(row) for row in message.rows if self._places.get(row.context) is member)
        if rows:
            self._say(c.Stepped(step=message.step, rows=rows))

    def _numbered(self, row: c.TokenRow) -> c.TokenRow:
        call = self._calls.get(row.context)
        if call is None or row.epoch != call.order.epoch:
            return row
        position = row.position + call.offset
        if position == call.count:
            call.count += 1
            call.text.append(row.text)
        return msgspec.structs.replace(row, position=position)

    async def _about_context(self, member: Member, message: OfContext) -> None:
        asked = member.asked.get(message.ticket)
        if asked is not None and isinstance(message, c.Described | c.Refused):
            del member.asked[message.ticket]
        elif asked is None and self._places.get(message.context) is not member:
            return  # it has moved
        call = self._calls.get(message.context)
        is_own = call is not None and message.epoch == call.order.epoch and message.ticket == 0
        if call is None or not is_own or not isinstance(message, c.Finished | c.Refused):
            self._say(message)
        elif isinstance(message, c.Refused) and message.code in self._transient:
            member.reason = f"{message.code}: {message.reason}"
            await self._move(call, member, message)
        else:
            del self._calls[message.context]
            self._say(self._marked(call, message) if isinstance(message, c.Finished) else message)

    def _marked(self, call: Call, message: c.Finished) -> c.Finished:
        if not call.is_restarted:
            return message
        found = message.generation.model_copy(update={"recovery": "restarted"})
        return msgspec.structs.replace(message, generation=found)

    async def _move(self, call: Call, member: Member, last: c.Refused | None) -> None:
        """Let another core go on with a call; where there is none, tell the refusal (or leave it to the kernel)."""
        call.failed.add(member.name)
        other, order = self._chosen(call, call.order), call.order
        if other is None:
            if last is not None:
                del self._calls[order.context]
                self._say(last)
            return
        self._say(
            c.Switched(
                context=order.context,
                epoch=order.epoch,
                direction="moved",
                tier="dropped",
                reason=f"fail-over from {member.name} to {other.name}: {member.reason}",
                pages=0,
                bytes=0,
                mid_generation=True,
                generated=call.count,
            )
        )
        await self._give(call, other)

    async def _lost(self, member: Member, message: c.Lost) -> None:
        member.is_up, member.reason = False, message.reason
        asked, member.asked = list(member.asked.values()), {}
        if not any(one.is_up for one in self._members):
            self._calls.clear()
            self._places.clear()
            self._say(message)
            return
        for order in asked:
            self._answer(order)
        moving = [call for context, call in self._calls.items() if self._places.get(context) is member]
        for context in [context for context, place in self._places.items() if place is member]:
            del self._places[context]
        for call in moving:
            await self._move(call, member, None)

    def _ready(self, member: Member, message: c.Ready) -> None:
        was_down = not any(one.is_up for one in self._members)
        member.ready, member.is_up, member.reason = message, True, ""
        if was_down:
            self._say(message)

    def _statistics(self, newest: c.Statistics) -> c.Statistics:
        """The newest numbers, with the sums of what is countable over all cores."""
        known = [member.statistics for member in self._members if member.statistics is not None]
        return msgspec.structs.replace(
            newest,
            running=sum(one.running for one in known),
            waiting=sum(one.waiting for one in known),
            suspended=sum(one.suspended for one in known),
            contexts=tuple(pages for one in known for pages in one.contexts),
        )

    def _described(self) -> list[str]:
        return [
            f"{member.name}: {member.ready.device}" if member.ready else f"{member.name}: down ({member.reason})"
            for member in self._members
        ]

    def _say(self, message: c.AnyMessage) -> None:
        self._outbox.append(message)
        self._said.set()


def _owner_of(context: ContextId) -> str:
    return context.partition(":")[0]


class _Messages:
    """Iterates over what the cores say. (A generator that is left half read would leak.)"""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> c.AnyMessage:
        message = await self._cores.next_message()
        if message is None:
            raise StopAsyncIteration
        return message
