"""Any order of orders, steps, copies and disk faults on an engine with a small pool, and what must hold after each.

The laws are those of `aios.engine.pages`: every frame, host frame and disk slot belongs to exactly one page that a
table or a prefix tree holds, or to a copy under way, with the right counts; no page of a tenant is in a table of
another. In the end killing everything gives everything back. The decoder is deterministic, so every generation that
ends also owes the tokens that it has alone.

Hypothesis tells the stories and shortens those that end badly; `walk` throws dice for longer and busier ones.
An engine is drawn for each story: with prefix trees or without, with drafts or without, with a limit to what a tenant
may keep; copies end at once or when the story says so, and grammars are compiled when it says so.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aios.abi.core import AnyMessage, AnyOrder, Cancel, Describe, Drop, Finished, Fork, Refused, Resume, Submit, Suspend
from aios.engine.context import Context
from aios.engine.copier import Lane
from aios.engine.grammar import PendingGrammar
from aios.engine.pages import DiskSlot, Page, PageTable, Tier
from aios.engine.shortcuts import Shortcuts
from aios.engine.storage import Place
from aios.ids import ContextId
from tests.engine import deterministic
from tests.engine.copies import ByHand
from tests.engine.deterministic import HEAD, cached_pages, engine, prompt
from tests.engine.schedules import Tokens, solo
from tests.engine.tiny import PAGE_TOKENS, submit

PAGES, HOST_PAGES = 20, 8
NAMES = [ContextId(f"{pid}:{part}") for pid in (1, 2, 3) for part in ("main", "side")]
TENANTS = {1: "a", 2: "a", 3: "b"}
"""Of each process: two strangers to the third."""
names, numbers = st.sampled_from(NAMES), st.integers(0, 9)
EXPECTED = {"E-NO-CONTEXT", "E-BUSY", "E-EXISTS", "E-QUOTA-PAGES"}
"""Refusals that the machine provokes by not looking first."""
DRAFTS = Shortcuts(speculation="ngram", most_tokens=16, token_cost=0.05)


def order(number: int, name: str = "1:main", epoch: int = 1) -> Submit:
    """One of ten orders: plain ones, common heads, text that repeats itself, a grammar, little room."""
    kinds: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"prompt": prompt(number)},
        lambda: {"prompt": [*HEAD, *prompt(number)]},
        lambda: {"prompt": [21, 22, 23] * 4, "max_tokens": 10 + number},
        lambda: {"prompt": [*HEAD, number], "schema": {"enum": ["yes, indeed", "no"]}, "max_tokens": 20},
        lambda: {"prompt": [*HEAD, *prompt(number)[:8]], "kv_pages": 4, "max_tokens": 9},
    )
    sampling = deterministic.order(number).request.sampling.model_dump(include={"temperature", "top_p", "seed"})
    tenant = TENANTS[int(name.split(":", 1)[0])]
    return submit(name, **({"max_tokens": 6} | sampling | kinds[number % len(kinds)]()), epoch=epoch, tenant=tenant)


@cache
def alone(number: int) -> Tokens:
    """Return the tokens that an order owes."""
    return solo(engine(), order(number))


class HandWorker:
    """Stands in for the thread that compiles grammars: it works when the story says so."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread, self._waiting = thread, list[Callable[[], None]]()

    def submit(self, work: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Queue work."""
        future: Future[Any] = Future()
        self._waiting.append(lambda: future.set_result(work(*arguments)))
        return future

    def finish(self) -> None:
        """Do all that is queued."""
        while self._waiting:
            self._waiting.pop(0)()

    def shutdown(self, **options: bool) -> None:
        """End the thread."""
        self._thread.shutdown(**options)


class EngineMachine(RuleBasedStateMachine):
    """Orders come from kernels that are killed, slow or confused; the disk fails and heals."""

    operations: ClassVar[Counter[str]] = Counter()
    """What was done by all machines of this process, teardown not counted, and what ended with its tokens."""
    moments: ClassVar[Counter[str]] = Counter()
    """What processes were at when they were killed."""

    @initialize(
        shares=st.sampled_from([True, True, True, False]),
        is_slow=st.booleans(),
        drafts=st.booleans(),
        tenant_pages=st.sampled_from([0, 4]),
        begun=st.lists(numbers, min_size=1, max_size=len(NAMES)),
    )
    def started(self, shares: bool, is_slow: bool, drafts: bool, tenant_pages: int, begun: list[int]) -> None:
        self.folder = TemporaryDirectory()
        self.disk = Path(self.folder.name) / "kv"
        self.copier = ByHand() if is_slow else None
        self.shares = shares
        self.engine = engine(
            self.disk,
            pages=PAGES,
            host_pages=HOST_PAGES,
            quantum=2,
            copier=self.copier,
            shares=shares,
            shortcuts=DRAFTS if drafts else Shortcuts(),
            tenant_pages=tenant_pages,
        )
        self.compiler = HandWorker(self.engine.grammars._worker)
        self.engine.grammars._worker = self.compiler  # type: ignore[assignment]
        self.asked: dict[ContextId, int] = {}
        self.has_failed = False
        """Whether the disk ever did; then pages there may be unreadable, and files outlive their pages."""
        for name, number in zip(NAMES, begun, strict=False):
            self.submitted(name, number, is_newer=True)

    def teardown(self) -> None:
        self.mended()
        for name in NAMES:
            self.engine.do(Drop(context=name, epoch=self.epoch(name) + 1))
        assert not self.engine.contexts
        self.every_place_belongs_to_one_page()
        memory = self.engine.memory
        memory.drain()
        assert memory.num_available == PAGES
        memory.clear_shelf()
        assert memory.device.num_free == PAGES
        assert memory.host.taken == {page.host for page in cached_pages(memory)}
        assert memory.disk is not None
        assert memory.disk.num_pages == 0
        assert self.has_failed or not list(self.disk.iterdir())
        assert not list(self.disk.glob("*.part"))
        self.engine.close()
        self.folder.cleanup()

    # --- orders --------------------------------------------------------------------------------------------

    @rule(name=names, number=numbers, is_newer=st.booleans())
    def submitted(self, name: ContextId, number: int, is_newer: bool) -> None:
        wanted = order(number, name, self.epoch(name) + is_newer)
        if not any(isinstance(message, Refused) for message in self.do(wanted)):
            self.asked[name] = number

    @rule()
    def stepped(self) -> None:
        self.engine.step()
        self.read("step")

    @rule(count=st.integers(2, 12))
    def worked(self, count: int) -> None:
        for _ in range(count):
            self.stepped()

    @rule(name=names, tier=st.sampled_from(["host", "disk", "dropped"]))
    def suspended(self, name: ContextId, tier: str) -> None:
        self.do(Suspend(context=name, epoch=self.epoch(name), tier=tier))

    @rule(name=names)
    def resumed(self, name: ContextId) -> None:
        self.do(Resume(context=name, epoch=self.epoch(name)))

    @rule(name=names, into=names)
    def forked(self, name: ContextId, into: ContextId) -> None:
        self.do(Fork(context=name, epoch=max(self.epoch(name), 1), into=into))

    @rule(name=names, kind=st.sampled_from([Drop, Cancel, Describe]))
    def ordered(self, name: ContextId, kind: type[Drop | Cancel | Describe]) -> None:
        self.do(kind(context=name, epoch=self.epoch(name)))

    @rule(pid=st.integers(1, 3))
    def killed(self, pid: int) -> None:
        for name in NAMES:
            if name.startswith(f"{pid}:"):
                self.moments.update(moments(self.engine.contexts.get(name)))
                self.do(Drop(context=name, epoch=self.epoch(name) + 1))
                assert name not in self.engine.contexts

    @rule(name=names)
    def told_by_a_kernel_of_the_past(self, name: ContextId) -> None:
        if self.epoch(name) > 0:
            before = self.engine.contexts[name].table.tokens
            self.engine.do(Cancel(context=name, epoch=self.epoch(name) - 1))
            (refused,) = (message for message in self.read("stale") if isinstance(message, Refused))
            assert (refused.code, self.engine.contexts[name].table.tokens) == ("E-STALE", before)

    # --- what runs beside the loop -------------------------------------------------------------------------

    @rule(lane=st.sampled_from(Lane), count=st.integers(1, 3))
    def copied(self, lane: Lane, count: int) -> None:
        """Let copies or digests end; the engine takes that in when it looks."""
        self.operations["copied"] += 1
        if self.copier is not None:
            self.copier.finish(lane, count)

    @rule()
    def compiled(self) -> None:
        self.operations["compiled"] += 1
        self.compiler.finish()

    # --- the disk ------------------------------------------------------------------------------------------

    @rule()
    def broken(self) -> None:
        """Take the disk away: nothing can be written or read."""
        self.operations["broken"] += 1
        self.has_failed = True
        if self.disk.exists():
            self.disk.rename(self.disk.with_name("away"))

    @rule()
    def mended(self) -> None:
        if not self.disk.exists():
            self.disk.with_name("away").rename(self.disk)

    @rule()
    def damaged(self) -> None:
        """Flip bits at the end of what was written last."""
        self.operations["damaged"] += 1
        self.has_failed = True
        for file in sorted(self.disk.glob("*.kv"))[-1:]:
            data = bytearray(file.read_bytes())
            data[-1] ^= 0xFF
            file.write_bytes(data)

    # --- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def every_place_belongs_to_one_page(self) -> None:
        memory, under_way = self.engine.memory, set(self.places_under_way())
        pages = [*self.holders(), *cached_pages(memory)]
        for tier, allocator in ((Tier.DEVICE, memory.device), (Tier.HOST, memory.host)):
            frames = [page.frame if tier is Tier.DEVICE else page.host for page in pages]
            held = [frame for frame in frames if frame is not None]
            assert len(held) == len(set(held))
            copied = {place.number for place in under_way if not isinstance(place, DiskSlot) and place.tier is tier}
            assert allocator.taken == copied.union(held)
        slots = [page.disk for page in pages if page.disk is not None]
        assert memory.disk is not None
        assert len(slots) + len(self.slots_under_way()) == memory.disk.num_pages

    @invariant()
    def counts_are_those_of_the_tables(self) -> None:
        for page, tables in self.holders().items():
            assert page.refs == len(tables)
            assert page.users == sum(table.is_active for table in tables)
            if page.users:
                assert page.frame is not None or Tier.DEVICE in page.coming or (page.is_lost and self.has_failed)
            else:
                assert page.frame is None or (page.is_being_saved and not page.has_copy)
            assert page.frame is not None or not any(table.resident for table in tables)
            assert page.owner is None or {table.owner for table in tables} == {page.owner}
            assert not page.is_lost or self.copier is not None or self.has_failed

    @invariant()
    def contexts_are_what_they_say(self) -> None:
        for context in self.engine.contexts.values():
            assert len(context.table.pages) == -(-context.table.tokens // PAGE_TOKENS)
            assert context.table.tokens <= len(context.tokens)
            assert not (context.is_held and context.table.resident and context.table.pages)

    def holders(self) -> dict[Page, list[PageTable]]:
        """Return the tables that contain each page."""
        holders: dict[Page, list[PageTable]] = {}
        for context in self.engine.contexts.values():
            for page in context.table.pages:
                holders.setdefault(page, []).append(context.table)
        return holders

    def places_under_way(self) -> Iterator[Place]:
        """Yield what copies and digests read and fill."""
        memory = self.engine.memory
        for transfer in memory.traffic.under_way:
            yield from (*transfer.sources, *transfer.targets)
        yield from memory.looks.held

    def slots_under_way(self) -> list[Place]:
        """Return the slots that are being written."""
        transfers = self.engine.memory.traffic.under_way
        return [target for transfer in transfers for target in transfer.targets if isinstance(target, DiskSlot)]

    # --- plumbing ------------------------------------------------------------------------------------------

    def epoch(self, name: ContextId) -> int:
        return self.engine.contexts[name].epoch if name in self.engine.contexts else 0

    def do(self, one: AnyOrder) -> list[AnyMessage]:
        self.engine.do(one)
        return self.read(type(one).__name__)

    def is_expected(self, refused: Refused) -> bool:
        """Whether the machine has provoked it. What was lost for want of room is cut off, not refused."""
        is_unreadable = refused.code == "E-SNAPSHOT" and "dropped" not in refused.reason
        return refused.code in EXPECTED or (is_unreadable and self.has_failed)

    def read(self, what: str) -> list[AnyMessage]:
        """Take what the engine says; an ended generation owes its tokens."""
        self.operations[what] += 1
        self.operations["shared"] += self.shares
        messages = self.engine.take_messages()
        for message in messages:
            if isinstance(message, Refused):
                assert self.is_expected(message) or what == "stale", message
            if isinstance(message, Finished) and message.generation.finish != "cancelled":
                self.operations["finished"] += 1
                assert message.generation.tokens == alone(self.asked[message.context])
        return messages


def walk(machine: EngineMachine, dice: random.Random, steps: int) -> None:
    """Tell one story by dice, which dwell on what Hypothesis seldom reaches: much at the same time."""
    machine.started(
        shares=dice.random() < 0.75,
        is_slow=dice.random() < 0.75,
        drafts=dice.random() < 0.5,
        tenant_pages=dice.choice((0, 4)),
        begun=[],
    )
    for _ in range(steps):
        _act(machine, dice)
        machine.every_place_belongs_to_one_page()
        machine.counts_are_those_of_the_tables()
        machine.contexts_are_what_they_say()
    machine.teardown()


def _act(machine: EngineMachine, dice: random.Random) -> None:
    name, number = dice.choice(NAMES), dice.randrange(10)
    acts: dict[Callable[[], object], int] = {
        lambda: machine.submitted(name, number, dice.random() < 0.3): 8,
        lambda: machine.worked(dice.randrange(2, 5)): 8,
        machine.stepped: 8,
        lambda: machine.copied(dice.choice(list(Lane)), dice.randrange(1, 4)): 8,
        lambda: machine.suspended(name, dice.choice(("host", "host", "disk", "disk", "dropped"))): 6,
        lambda: machine.resumed(name): 6,
        lambda: machine.forked(name, dice.choice(NAMES)): 4,
        lambda: machine.ordered(name, dice.choice((Drop, Cancel, Describe))): 4,
        machine.compiled: 3,
        lambda: machine.killed(dice.randrange(1, 4)): 3,
        machine.mended: 3,
        lambda: machine.told_by_a_kernel_of_the_past(name): 1,
        machine.damaged: 1,
        machine.broken: 1,
    }
    dice.choices([*acts], [*acts.values()])[0]()


def moments(context: Context | None) -> Iterator[str]:
    """Say what a context is at."""
    if context is None:
        return
    table, turn = context.table, context.turn
    if any(page.is_being_saved for page in table.pages):
        yield "being saved"
    if table.arriving:
        yield "on its way back"
    if table.num_shared:
        yield "sharing pages"
    if turn is not None and isinstance(turn.grammar, PendingGrammar):
        yield "waiting for a grammar"
    if turn is not None and turn.drafted:
        yield "drafting"
    yield f"{table.tier} while {'held' if context.is_held else 'running' if turn else 'idle'}"
