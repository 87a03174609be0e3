"""Any order of orders, steps and disk faults on an engine with a small pool, and what must hold after each.

The laws are those of `aios.engine.pages`: every frame, host frame and disk slot belongs to exactly one page that a
table or a prefix tree holds, with the right counts. In the end killing everything gives everything back. The decoder
is deterministic, so every generation that ends also owes the tokens that it has alone.
"""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aios.abi.core import AnyMessage, AnyOrder, Cancel, Describe, Drop, Finished, Fork, Refused, Resume, Suspend
from aios.engine.pages import Page, PageTable
from aios.ids import ContextId
from tests.engine.deterministic import alone, cached_pages, engine, order
from tests.engine.schedules import again
from tests.engine.tiny import PAGE_TOKENS

PAGES, HOST_PAGES = 20, 8
NAMES = [ContextId(f"{pid}:{part}") for pid in (1, 2, 3) for part in ("main", "side")]
names, numbers = st.sampled_from(NAMES), st.integers(0, 9)
EXPECTED = {"E-NO-CONTEXT", "E-BUSY", "E-EXISTS"}
"""Refusals that the machine provokes by not looking first."""


class EngineMachine(RuleBasedStateMachine):
    """Orders come from kernels that are killed, slow or confused; the disk fails and heals."""

    operations: ClassVar[Counter[str]] = Counter()
    """What was done by all machines of this process, teardown not counted, and what ended with its tokens."""

    @initialize()
    def started(self) -> None:
        self.folder = TemporaryDirectory()
        self.disk = Path(self.folder.name) / "kv"
        self.engine = engine(self.disk, pages=PAGES, host_pages=HOST_PAGES, quantum=2)
        self.asked: dict[ContextId, int] = {}

    def teardown(self) -> None:
        self.mended()
        for name in NAMES:
            self.engine.do(Drop(context=name, epoch=self.epoch(name) + 1))
        assert not self.engine.contexts
        self.every_place_belongs_to_one_page()
        memory = self.engine.memory
        assert memory.num_available == PAGES
        assert memory.disk is not None
        assert memory.disk.num_pages == 0
        assert not list(self.disk.glob("*.part"))
        self.engine.close()
        self.folder.cleanup()

    # --- orders --------------------------------------------------------------------------------------------

    @rule(name=names, number=numbers, is_newer=st.booleans())
    def submitted(self, name: ContextId, number: int, is_newer: bool) -> None:
        is_free = name not in self.engine.contexts or self.engine.contexts[name].turn is None
        if is_free or is_newer:
            self.asked[name] = number
        self.do(again(order(number), name, self.epoch(name) + is_newer))

    @rule()
    def stepped(self) -> None:
        self.engine.step()
        self.read("step")

    @rule(count=st.integers(2, 4))
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
                self.do(Drop(context=name, epoch=self.epoch(name) + 1))
                assert name not in self.engine.contexts

    @rule(name=names)
    def told_by_a_kernel_of_the_past(self, name: ContextId) -> None:
        if self.epoch(name) > 0:
            before = self.engine.contexts[name].table.tokens
            self.engine.do(Cancel(context=name, epoch=self.epoch(name) - 1))
            (refused,) = (message for message in self.read("stale") if isinstance(message, Refused))
            assert (refused.code, self.engine.contexts[name].table.tokens) == ("E-STALE", before)

    # --- the disk ------------------------------------------------------------------------------------------

    @rule()
    def broken(self) -> None:
        """Take the disk away: nothing can be written or read."""
        self.operations["broken"] += 1
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
        for file in sorted(self.disk.glob("*.kv"))[-1:]:
            data = bytearray(file.read_bytes())
            data[-1] ^= 0xFF
            file.write_bytes(data)

    # --- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def every_place_belongs_to_one_page(self) -> None:
        memory = self.engine.memory
        holders = [*self.holders(), *cached_pages(memory)]
        frames = [page.frame for page in holders if page.frame is not None]
        assert sorted(frames) == sorted(memory.device.taken)
        assert sorted(page.host for page in holders if page.host is not None) == sorted(memory.host.taken)
        assert memory.disk is not None
        assert sum(page.disk is not None for page in holders) == memory.disk.num_pages

    @invariant()
    def counts_are_those_of_the_tables(self) -> None:
        for page, tables in self.holders().items():
            assert page.refs == len(tables)
            assert page.users == sum(table.resident for table in tables)
            assert (page.frame is not None) == (page.users > 0)
            assert not page.is_lost

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

    # --- plumbing ------------------------------------------------------------------------------------------

    def epoch(self, name: ContextId) -> int:
        return self.engine.contexts[name].epoch if name in self.engine.contexts else 0

    def do(self, one: AnyOrder) -> None:
        self.engine.do(one)
        self.read(type(one).__name__)

    def read(self, what: str) -> list[AnyMessage]:
        """Take what the engine says; an ended generation owes its tokens."""
        self.operations[what] += 1
        messages = self.engine.take_messages()
        for message in messages:
            if isinstance(message, Refused):
                assert message.code in EXPECTED or what == "stale", message
            if isinstance(message, Finished) and message.generation.finish != "cancelled":
                self.operations["finished"] += 1
                assert message.generation.tokens == alone(self.asked[message.context])
        return messages
