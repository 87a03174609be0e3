"""A whole kernel in memory for tests: a journal in a list, a core that speaks by script, rules that read one line.

Everything here really does what it says: tokens come one a step, orders are answered, a lost core forgets.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from aios.abi import core as c
from aios.abi.chat import Finish, Generation, ToolCall, Usage
from aios.abi.guard import Denial, TraceEvent, Verdict
from aios.abi.kernel import Door
from aios.abi.process import CapSpec
from aios.abi.replies import Denied, Failed, Ok
from aios.abi.store import Record
from aios.abi.syscalls import AnyCall, Request
from aios.abi.tools import ToolSpec
from aios.config import Settings
from aios.errors import RuleError, StoreError, StoreFull
from aios.kernel.guardian import CompileRules
from aios.kernel.journal import poster
from aios.kernel.kernel import Kernel
from aios.kernel.parts import Clock
from aios.kernel.records import to_fact
from aios.kernel.state import KernelState
from aios.tools.toolbox import Toolbox

EVENT = "event"
"""Kind of the records that keep events."""


MAY_SPAWN = (CapSpec(resource="spawn"),)
"""What a root process of a test needs to have children."""


class MemoryJournal:
    """Records in a list. `room` records fit, kept events aside; None: any number."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.room: int | None = None

    async def append(self, records: Sequence[Record]) -> int:
        await anyio.lowlevel.checkpoint()
        outcome = self._take(records)
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def submit(self, records: Sequence[Record], settled: Callable[[int | StoreError], None]) -> None:
        poster()(partial(settled, self._take(records)))

    def _take(self, records: Sequence[Record]) -> int | StoreError:
        needed = sum(record.kind != EVENT for record in records)  # events come when they like: no test counts on it
        if self.room is not None and needed > self.room:
            return StoreFull("the list is full: raise `room`")
        if self.room is not None:
            self.room -= needed
        self.records.extend(records)
        return len(self.records)

    def load(self) -> Iterator[tuple[int, Record]]:
        return iter(list(enumerate(self.records, start=1)))

    def kinds(self) -> list[str]:
        """Kinds of all records except events."""
        return [record.kind for record in self.records if record.kind != EVENT]


READY = c.Ready(
    model="script",
    model_sha256="0" * 64,
    architecture="none",
    dtype="none",
    device="none",
    max_context=4096,
    vocab_size=1000,
    page_tokens=16,
    page_bytes=1,
    pages=100,
)


@dataclass
class _Context:
    epoch: int
    tokens: int = 0
    tier: str = "device"
    order: c.Submit | None = None
    generated: list[int] = field(default_factory=list)
    resumed: anyio.Event = field(default_factory=anyio.Event)


class ScriptCore:
    """A core that says `text_of(request)` token by token; token ids are character codes.

    `hold()` keeps it from stepping until `let(n)` grants steps; `lose()` ends it, and brings it back or not.
    """

    def __init__(self, text_of: Callable[[c.Submit], str] | None = None) -> None:
        self.text_of = text_of or (lambda order: "hello")
        self.orders: list[c.AnyOrder] = []
        self.contexts: dict[str, _Context] = {}
        self.masked: dict[int, c.Masked] = {}
        self.starts = 0
        self._said: deque[c.AnyMessage] = deque()
        self._steps: int | None = None
        self._stepping = anyio.Event()
        self._step = 0
        self._is_closed = False

    # --- Core ------------------------------------------------------------------------------------------------

    async def start(self) -> c.Ready:
        self.starts += 1
        return READY

    async def send(self, order: c.AnyOrder) -> None:
        self.orders.append(order)
        match order:
            case c.Submit():
                self._submit(order)
            case c.Suspend() | c.Resume() | c.Describe() | c.Drop() | c.Fork():
                self._about(order)
            case c.Cancel():
                self._end(order.context, "cancelled")
            case _:
                pass

    async def messages(self) -> AsyncIterator[c.AnyMessage]:
        while not self._is_closed:
            if self._said:
                yield self._said.popleft()
            elif self._can_step():
                self._do_step()
                await anyio.lowlevel.checkpoint()
            else:
                self._stepping = anyio.Event()
                await self._stepping.wait()

    async def aclose(self) -> None:
        self._is_closed = True
        self._stepping.set()

    # --- the test's hand -------------------------------------------------------------------------------------

    def hold(self) -> None:
        self._steps = 0

    def let(self, steps: int | None) -> None:
        """Grant so many further steps; None: all."""
        self._steps = None if steps is None else (self._steps or 0) + steps
        self._stepping.set()

    def lose(self, *, restarting: bool) -> None:
        self.contexts.clear()
        self.say(c.Lost(reason="test", restarting=restarting))

    def come_back(self) -> None:
        self.say(READY)

    def say(self, message: c.AnyMessage) -> None:
        self._said.append(message)
        self._stepping.set()

    def sent(self, kind: type) -> list[Any]:
        return [order for order in self.orders if isinstance(order, kind)]

    # --- inside ----------------------------------------------------------------------------------------------

    def _submit(self, order: c.Submit) -> None:
        context = self.contexts.setdefault(order.context, _Context(order.epoch))
        context.epoch, context.order, context.generated = order.epoch, order, list(order.generated)
        prompt = len(order.request.tokens) or sum(len(message.content) for message in order.request.messages)
        context.tokens = prompt
        self.say(c.Admitted(context=order.context, epoch=order.epoch, prompt_tokens=prompt, cached_tokens=0))

    def _about(self, order: c.Suspend | c.Resume | c.Describe | c.Drop | c.Fork) -> None:
        context = self.contexts.get(order.context)
        where: dict[str, Any] = {"context": order.context, "epoch": order.epoch, "ticket": order.ticket}
        if context is None:
            self.say(c.Refused(**where, code="E-NO-CONTEXT", reason="unknown"))
            return
        if isinstance(order, c.Fork):
            self.contexts[order.into] = _Context(order.epoch, context.tokens)
            where["context"] = order.into
        if isinstance(order, c.Drop):
            self._end(order.context, "cancelled")
            del self.contexts[order.context]
        if isinstance(order, c.Suspend | c.Resume):
            self._switch(order, context)
        tier = "none" if isinstance(order, c.Drop) else context.tier
        self.say(c.Described(**where, tier=tier, tokens=context.tokens, pages=1, digests=("aa", "bb")))

    def _switch(self, order: c.Suspend | c.Resume, context: _Context) -> None:
        out = isinstance(order, c.Suspend)
        context.tier = "host" if out else "device"
        self.say(
            c.Switched(
                context=order.context,
                epoch=order.epoch,
                ticket=order.ticket,
                direction="out" if out else "in",
                tier="host",
                reason="order",
                pages=1,
                bytes=16,
                mid_generation=context.order is not None,
                generated=len(context.generated),
            )
        )

    def _can_step(self) -> bool:
        return self._steps != 0 and any(one.order and one.tier == "device" for one in self.contexts.values())

    def _do_step(self) -> None:
        if self._steps is not None:
            self._steps -= 1
        self._step += 1
        rows = [
            self._row(name, context)
            for name, context in self.contexts.items()
            if context.order is not None and context.tier == "device"
        ]
        self.say(c.Stepped(step=self._step, rows=tuple(row for row in rows if row is not None)))
        for name, context in list(self.contexts.items()):
            if context.order is not None and context.tier == "device":
                self._maybe_end(name, context)

    def _row(self, name: str, context: _Context) -> c.TokenRow | None:
        assert context.order is not None
        text, position = self.text_of(context.order), len(context.generated)
        if position >= min(len(text), self._most(context.order)):
            return None
        context.generated.append(ord(text[position]))
        return c.TokenRow(
            context=context.order.context,
            epoch=context.epoch,
            position=position,
            token=ord(text[position]),
            text=text[position],
            masked=self.masked.get(position),
        )

    @staticmethod
    def _most(order: c.Submit) -> int:
        return min(order.request.sampling.max_tokens, order.lease_tokens)

    def _maybe_end(self, name: str, context: _Context) -> None:
        assert context.order is not None
        text = self.text_of(context.order)
        if len(context.generated) >= min(len(text), self._most(context.order)):
            self._end(name, "stop" if len(context.generated) == len(text) else "length")

    def _end(self, name: str, finish: Finish) -> None:
        context = self.contexts.get(name)
        if context is None or context.order is None:
            return
        text = "".join(map(chr, context.generated))
        usage = Usage(prompt_tokens=context.tokens, completion_tokens=len(context.generated))
        version = context.order.mask.version if context.order.mask is not None else None
        generation = Generation(
            text=text, finish=finish, tokens=tuple(context.generated), usage=usage, mask_version=version
        )
        context.order = None
        self.say(c.Finished(context=context_id(name), epoch=context.epoch, generation=generation))


def assert_folds(kernel: Kernel, journal: MemoryJournal) -> None:
    """The live state is the fold of the journal: nothing else survives a restart, and all of it does."""
    folded = KernelState()
    for record in journal.records:
        folded.apply(to_fact(record), record.time)
    live = kernel.parts.state
    for part in ("instance", "processes", "past", "caps", "approvals", "last_pid", "last_cap", "last_approval"):
        assert getattr(live, part) == getattr(folded, part), part
    assert sorted(live.trace, key=lambda event: event.seq) == sorted(folded.trace, key=lambda event: event.seq)


def context_id(name: str) -> Any:
    return name


class LineGate:
    """Rules of one line each, over the whole trace of a process: `A before B`, `never A`, `at most N A`, `A then B`.

    `A before B`: an `ok A` must precede B; `at most N A` counts all processes; `A before finish` works too.
    """

    def __init__(self, text: str, file: str) -> None:
        self.rules = [line.split("#")[0].split() for line in text.splitlines() if line.split("#")[0].strip()]
        for number, rule in enumerate(self.rules, start=1):
            if not (rule[0] == "never" or rule[:2] == ["at", "most"] or rule[1:2] == ["before"]):
                raise RuleError("not a rule", file=file, line=number, text=" ".join(rule))
        self.events: list[TraceEvent] = []
        self._text = text

    @property
    def digest(self) -> str:
        return f"digest of {self._text}"

    @property
    def version(self) -> int:
        return self.events[-1].seq if self.events else 0

    def declare(self, tools: Sequence[ToolSpec]) -> None:
        pass

    def record(self, event: TraceEvent) -> None:
        self.events.append(event)

    def judge(self, event: TraceEvent) -> Verdict:
        what = event.tool or str(event.args.get("text", "")) or event.kind
        denials = tuple(
            Denial(rule=" ".join(rule), line=number, value="false", reason=reason)
            for number, rule in enumerate(self.rules, start=1)
            if (reason := self._objection(rule, what, event.pid))
        )
        return Verdict(allow=not denials, denials=denials, version=self.version)

    def _objection(self, rule: list[str], what: str, pid: int) -> str:
        if rule[0] == "never":
            return f"{what} is never allowed" if what == rule[1] else ""
        if rule[0] == "at":
            charged = len(self._live_starts(rule[3]))
            return f"{charged} were made" if what == rule[3] and charged >= int(rule[2]) else ""
        return f"no ok {rule[0]}" if what == rule[2] and not self._has_ok(rule[0], pid) else ""

    def _live_starts(self, tool: str) -> list[TraceEvent]:
        released = {event.cause for event in self.events if event.kind == "err"}
        return [one for one in self.events if one.kind == "start" and one.tool == tool and one.seq not in released]

    def _has_ok(self, tool: str, pid: int) -> bool:
        return any(event.kind in ("ok", "confirm") and event.tool == tool and event.pid == pid for event in self.events)

    def owed(self, pid: int) -> tuple[str, ...]:
        """Its rules know no duties."""
        return ()

    def closed(self, pid: int, now: float, tool: str) -> Verdict:
        return self.judge(TraceEvent(self.version + 1, now, pid, "start", tool))

    def rehearse(self, pid: int, now: float, calls: Sequence[ToolCall]) -> tuple[Verdict, ...]:
        twin, verdicts = type(self)(self._text, "<twin>"), list[Verdict]()
        twin.events = [*self.events]
        for call in calls:
            event = TraceEvent(twin.version + 1, now, pid, "start", call.name, dict(call.arguments))
            verdicts.append(twin.judge(event))
            if verdicts[-1].allow:
                twin.record(event)
        return tuple(verdicts)

    def mask_state(self, pid: int, now: float, after: Sequence[ToolCall] = ()) -> c.MaskState:
        done = sorted({event.tool for event in self.events if event.kind == "ok" and event.pid == pid})
        begun = {"begun": [call.name for call in after]} if after else {}
        residuals = {"done": done, **begun}
        return c.MaskState(rules=self.digest, version=self.version, residuals=residuals, calls=len(after))

    def save(self) -> bytes:
        return b""


@dataclass
class World:
    """One journal and what was started on it."""

    journal: MemoryJournal = field(default_factory=MemoryJournal)
    core: ScriptCore = field(default_factory=ScriptCore)
    toolbox: Toolbox = field(default_factory=Toolbox)
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    compile_rules: CompileRules = LineGate
    drain_s: float = 0.0
    """How long the end of a kernel waits for tools; a crash does not."""

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[Kernel]:
        """Start a kernel on the journal."""
        kernel = Kernel(
            Settings(**self.settings),
            self.journal,
            self.core,
            self.toolbox,
            self.compile_rules,
            clock=self.clock,
            secret=b"test",
            drain_s=self.drain_s,
        )
        with anyio.fail_after(20):
            async with kernel:
                yield kernel
                assert_folds(kernel, self.journal)

    @asynccontextmanager
    async def crashed(self) -> AsyncIterator[Kernel]:
        """Start a kernel whose journal loses, at the end of the block, all that came after the block's last line."""
        journal, self.journal = self.journal, MemoryJournal()
        self.journal.records = list(journal.records)
        async with self.kernel() as kernel:
            yield kernel
            kept = list(self.journal.records)
        self.journal.records = kept
        self.core = ScriptCore(self.core.text_of)
        self.toolbox = Toolbox()


_ids = iter(range(1, 1_000_000))


def ask(call: AnyCall, id: str = "", *, stream: bool = False) -> Request:
    """Wrap a call in a request with a fresh or given id."""
    return Request.model_validate({"id": id or f"r{next(_ids)}", "call": call, "stream": stream})


async def done(door: Door, call: AnyCall, id: str = "") -> Any:
    """Do a call that must succeed, and return its value."""
    reply = await door.call(ask(call, id))
    assert isinstance(reply, Ok), reply
    return reply.value


async def refused(door: Door, call: AnyCall, id: str = "") -> Denied:
    """Do a call that must be denied."""
    reply = await door.call(ask(call, id))
    assert isinstance(reply, Denied), reply
    return reply


async def failed(door: Door, call: AnyCall, id: str = "") -> Failed:
    """Do a call that must fail."""
    reply = await door.call(ask(call, id))
    assert isinstance(reply, Failed), reply
    return reply


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()
