"""Several cores as one: chooses where a generation runs, and moves it when its core cannot.

Owns where each context is and which cores are up. Does not know what a core is made of. A generation that moves goes
on behind its text where the next core can continue one, else it begins anew; its rows stay numbered without a gap.
Invariant: a call that names a model runs on a core that serves it; of a context only the messages of the core where
it is are heard; every Submit ends once; while one core is up, the loss of another is not told as `Lost`.
`start` and `aclose` belong to one task (between them a task group is open).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import anyio
import msgspec

from aios.abi import core as c
from aios.abi.chat import Generation
from aios.abi.outbox import Outbox
from aios.errors import AiosError, EngineLost
from aios.ids import ContextId
from aios.kernel.affinity import Beginning, Remembered, beginnings

AboutContext = c.Suspend | c.Resume | c.Fork | c.Drop | c.Cancel | c.Describe | c.Steer
_STEERING = ("none", "schemas", "mask")
"""From the weakest: several cores steer as well as the one that can least."""
OfContext = c.Admitted | c.Called | c.Finished | c.Refused | c.Switched | c.Described
CorePolicy = Literal["first", "least-loaded", "prefix-affinity"]
NO_CORE = "E-NO-CORE"
MOST_AHEAD = 8
"""Calls by which a core that has had a prompt's beginning may be ahead of the others and still get the next one."""


@dataclass(slots=True)
class Call:
    """One generation under way."""

    order: c.Submit
    text: list[str]
    """Text that the answer can be gone on with; all of it comes from position `since` on."""
    tokens: list[int]
    """All that were made; -1 where the core knew no ids."""
    prompt: Sequence[Beginning] = ()
    since: int = 0
    model_sha256: str = ""
    """Whose token ids `tokens` are; empty: of those that were there before, which only a local core makes."""
    offset: int = 0
    """Rows that earlier cores made and this one does not number."""
    failed: set[str] = field(default_factory=set)
    is_restarted: bool = False

    @property
    def count(self) -> int:
        """Rows so far."""
        return len(self.tokens)

    def take(self, row: c.TokenRow, since: int) -> None:
        """Take in the next row; `since` is where the text that counts behind it begins."""
        if since > self.since:
            self.since = since
            self.text.clear()
        if self.count >= since:
            self.text.append(row.text)
        self.tokens.append(row.token)


@dataclass(slots=True)
class Member:
    """One core."""

    name: str
    core: c.Core
    models: tuple[str, ...] = ()
    """Names by which its model can be asked for."""
    ready: c.Ready | None = None
    is_up: bool = False
    may_return: bool = False
    """Whether it is being started again."""
    reason: str = ""
    """Why it is not up, or why a call last left it."""
    asked: dict[int, c.ContextOrder] = field(default_factory=dict)
    """Orders that wait for `Described`, by ticket."""
    statistics: c.Statistics | None = None
    remembered: Remembered = field(default_factory=Remembered)

    def serves(self, model: str) -> bool:
        """Whether a call that names `model` may run here; a call that names none may everywhere."""
        return not model or model in self.models


class Cores:
    """See the module.

    `transient` are the codes of a refused Submit that another core may do better with; `models` are the names by which
    each core's model can be asked for.
    """

    def __init__(
        self,
        cores: Mapping[str, c.Core],
        policy: CorePolicy,
        transient: frozenset[str],
        models: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        named = models or {}
        self._members = [Member(name, core, named.get(name, ())) for name, core in cores.items()]
        self._policy, self._transient = policy, transient
        self._places: dict[ContextId, Member] = {}
        self._calls: dict[ContextId, Call] = {}
        self._suspended: dict[ContextId, c.Suspend] = {}
        self._outbox = Outbox()
        self._stack = AsyncExitStack()

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
        self._tell()
        return first if len(self._members) == 1 else msgspec.structs.replace(first, device=self._devices())

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
        return self._outbox

    async def aclose(self) -> None:
        """End all; idempotent."""
        self._outbox.close()
        await self._stack.aclose()
        for member in reversed(self._members):
            await member.core.aclose()

    # --- orders ----------------------------------------------------------------------------------------------

    async def _submit(self, order: c.Submit) -> None:
        if not any(member.is_up for member in self._members):
            return  # all are down: the kernel submits again after `Ready`
        prompt = beginnings(order) if self._policy == "prefix-affinity" else ()
        call = Call(order, [order.generated_text], list(order.generated), prompt)
        self._calls[order.context] = call
        here = self._places.get(order.context)
        is_kept = self._policy != "first" and here is not None and here.is_up and here.serves(order.request.model)
        member = here if is_kept else self._chosen(call)
        if member is None:
            self._set_aside(call)
        else:
            await self._give(call, member)

    def _chosen(self, call: Call) -> Member | None:
        """Pick a core that is up, serves the model and has not failed this call."""
        model = call.order.request.model
        able = [one for one in self._members if one.is_up and one.serves(model) and one.name not in call.failed]
        if not able or self._policy == "first":
            return able[0] if able else None
        idlest = min(able, key=self._load)
        if self._policy == "least-loaded":
            return idlest
        nearest = max(able, key=lambda one: (one.remembered.common(call.prompt), -self._load(one)))
        return nearest if self._load(nearest) - self._load(idlest) <= MOST_AHEAD else idlest

    def _set_aside(self, call: Call) -> None:
        """Keep a call for a core that is being started again; where there is none, refuse it."""
        order = call.order
        self._places.pop(order.context, None)
        serving = [member for member in self._members if member.serves(order.request.model)]
        if any(member.may_return and not member.is_up for member in serving):
            return
        del self._calls[order.context]
        why = "; ".join(f"{member.name}: {member.reason or 'failed'}" for member in serving) or "none serves it"
        reason = f"no core can go on with model {order.request.model or 'of any name'!r} ({why})"
        self._say(c.Refused(context=order.context, epoch=order.epoch, code=NO_CORE, reason=reason))

    def _load(self, member: Member) -> int:
        return sum(self._places.get(context) is member for context in self._calls)

    async def _give(self, call: Call, member: Member) -> None:
        order = self._fitted(call, member)
        self._places[order.context] = member
        member.remembered.note(call.prompt)
        self._tell()
        if order.context in self._suspended:
            await member.core.send(msgspec.structs.replace(self._suspended[order.context], ticket=0))
        await member.core.send(order)

    def _fitted(self, call: Call, member: Member) -> c.Submit:
        """Write the order as this core can take it: text for those without token ids, ids where they mean the same."""
        order, text = call.order, "".join(call.text)
        assert member.ready is not None
        call.offset = 0
        if member.ready.vocab_size == 0:
            return msgspec.structs.replace(order, generated=(-1,) * call.count, generated_text=text)
        if -1 not in call.tokens and call.model_sha256 in ("", member.ready.model_sha256):
            call.model_sha256 = member.ready.model_sha256
            return msgspec.structs.replace(order, generated=tuple(call.tokens), generated_text=text)
        call.offset, call.is_restarted = call.count, True
        call.model_sha256 = member.ready.model_sha256
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
        is_set_aside = order.context in self._calls and order.context not in self._places
        if isinstance(order, c.Drop) or (is_set_aside and isinstance(order, c.Cancel)):
            self._end(order.context)
            self._places.pop(order.context, None)
        if member is None or not member.is_up or is_set_aside:
            self._answer(order)
            return
        if order.ticket:
            member.asked[order.ticket] = order
        await member.core.send(order)

    def _end(self, context: ContextId) -> None:
        """Cancel a call whose core will not be heard any more, if there is one."""
        call = self._calls.pop(context, None)
        if call is not None:
            found = Generation(text="".join(call.text), finish="cancelled")
            self._say(c.Finished(context=context, epoch=call.order.epoch, generation=found))

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
                await self._ready(member, message)
            case c.Members():
                pass  # a core that is several itself is one here
            case c.Admitted() | c.Called() | c.Finished() | c.Refused() | c.Switched() | c.Described():
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
        since = row.since + call.offset if row.since or call.offset else 0
        if position == call.count:
            call.take(row, since)
        return msgspec.structs.replace(row, position=position, since=since)

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
            member.reason = "" if isinstance(message, c.Finished) else member.reason
            self._say(self._marked(call, message) if isinstance(message, c.Finished) else message)
            self._tell()

    def _marked(self, call: Call, message: c.Finished) -> c.Finished:
        if not call.is_restarted:
            return message
        found = message.generation.model_copy(update={"recovery": "restarted"})
        return msgspec.structs.replace(message, generation=found)

    async def _move(self, call: Call, member: Member, last: c.Refused | None) -> None:
        """Let another core go on with a call; where there is none, tell the refusal or set it aside."""
        call.failed.add(member.name)
        other, order = self._chosen(call), call.order
        if other is None and last is not None:
            del self._calls[order.context]
            self._say(last)
            self._tell()
            return
        if other is None:
            self._set_aside(call)
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
        member.is_up, member.may_return, member.reason = False, message.restarting, message.reason
        asked, member.asked = list(member.asked.values()), {}
        if not any(one.is_up for one in self._members):
            self._calls.clear()
            self._places.clear()
            self._tell()
            may_return = any(one.may_return for one in self._members)
            self._say(msgspec.structs.replace(message, restarting=may_return))
            return
        for order in asked:
            self._answer(order)
        moving = [call for context, call in self._calls.items() if self._places.get(context) is member]
        waiting = [call for context, call in self._calls.items() if context not in self._places]
        for context in [context for context, place in self._places.items() if place is member]:
            del self._places[context]
        for call in moving:
            await self._move(call, member, None)
        for call in waiting:
            self._set_aside(call)
        self._tell()

    async def _ready(self, member: Member, message: c.Ready) -> None:
        was_down = not any(one.is_up for one in self._members)
        member.ready, member.is_up, member.may_return, member.reason = message, True, False, ""
        self._tell()
        if was_down:
            self._say(message)
            return
        for call in [call for context, call in self._calls.items() if context not in self._places]:
            if member.serves(call.order.request.model):
                call.failed.discard(member.name)
                await self._give(call, member)

    def _statistics(self, newest: c.Statistics) -> c.Statistics:
        """The newest numbers, with the sums of what is countable over all cores."""
        known = [member.statistics for member in self._members if member.statistics is not None]
        return msgspec.structs.replace(
            newest,
            running=sum(one.running for one in known),
            waiting=sum(one.waiting for one in known),
            suspended=sum(one.suspended for one in known),
            contexts=tuple(pages for one in known for pages in one.contexts),
            steering=min((one.steering for one in known), key=_STEERING.index),
        )

    def _devices(self) -> str:
        return ", ".join(f"{one.name}: {one.device if one.is_up else f'down ({one.reason})'}" for one in self._states())

    def _states(self) -> tuple[c.CoreState, ...]:
        return tuple(
            c.CoreState(
                name=member.name,
                models=member.models,
                device=member.ready.device if member.ready is not None else "",
                is_up=member.is_up,
                calls=self._load(member),
                reason=member.reason,
            )
            for member in self._members
        )

    def _tell(self) -> None:
        self._say(c.Members(cores=self._states()))

    def _say(self, message: c.AnyMessage) -> None:
        self._outbox.say(message)
