"""Laws of copies under way: whatever happens to a context meanwhile, no byte is wrong and no frame leaks."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aios.abi.core import Described, Drop, Resume, Suspend, Switched
from aios.engine.copier import InThreads, Lane
from aios.engine.pages import OutOfFrames, Page, PageTable, Tier
from aios.engine.tiers import Memory
from aios.ids import ContextId
from tests.engine.copies import ByHand
from tests.engine.exact import interrupted_run
from tests.engine.kv import append, read, small_memory
from tests.engine.tiny import one, rows_of, run, submit, tiny_engine, tokens_of

MAIN, A = ContextId("1:main"), ContextId("1:a")
NINE = [float(value) for value in range(1, 10)]


def by_hand(host_pages: int = 8, disk: Path | None = None) -> tuple[Memory, ByHand]:
    copier = ByHand()
    return small_memory(host_pages=host_pages, disk=disk, copier=copier), copier


def test_full_pages_are_copied_ahead_in_the_background() -> None:
    memory, copier = by_hand()
    table = memory.open()
    append(memory, table, NINE)
    assert memory.statistics().pages_host == 2  # frames of copies under way
    copier.finish(Lane.OUT)
    memory.settle()
    assert memory.statistics().pages_host == 0  # mirrors of pages on the device
    assert memory.suspend(table).copied == 1
    assert memory.device.num_free == 8


def test_nothing_is_copied_ahead_where_the_policy_finds_memory_short() -> None:
    asked: list[float] = []

    def refuses(free: float) -> bool:
        asked.append(free)
        return False

    memory = Memory(torch.zeros((8, 2, 2, 1, 4, 2)), host_pages=8, writes_through=refuses)
    table = memory.open()
    append(memory, table, NINE)
    assert (memory.host.num_free, asked) == (8, [1.0])
    assert memory.suspend(table).copied == 3


def test_a_context_that_leaves_before_its_copies_have_ended_keeps_those_frames_until_then() -> None:
    memory, copier = by_hand()
    table = memory.open()
    append(memory, table, NINE)
    assert memory.suspend(table).tier is Tier.HOST
    assert (memory.device.num_free, memory.num_available) == (6, 8)
    copier.finish(Lane.OUT)
    memory.settle()
    assert memory.device.num_free == 8


def test_a_page_written_again_while_it_is_copied_gets_no_stale_copy() -> None:
    memory, copier = by_hand()
    table = memory.open()
    append(memory, table, NINE[:4])
    memory.truncate(table, 3)
    append(memory, table, [77])
    copier.finish(Lane.OUT, 1)  # what the first copy reads now is half old, half new
    memory.settle()
    assert table.pages[0].host is None
    copier.finish(Lane.OUT)
    memory.settle()
    memory.suspend(table)
    memory.fetch(table)
    copier.finish(Lane.IN)
    memory.settle()
    assert read(memory, table) == [1, 2, 3, 77]


def test_a_frame_given_up_while_it_is_copied_goes_to_nobody_before_the_copy_has_ended() -> None:
    memory, copier = by_hand()
    table = memory.open()
    append(memory, table, NINE)
    memory.release(table)
    assert (memory.device.num_free, memory.num_available) == (6, 8)
    copier.finish(Lane.OUT)
    memory.settle()
    assert (memory.device.num_free, memory.host.num_free) == (8, 8)


def test_a_context_on_its_way_back_can_be_forked_and_sent_away_again(tmp_path: Path) -> None:
    memory, copier = by_hand(disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table, Tier.DISK)
    copier.close()
    memory.settle()
    assert table.tier is Tier.DISK
    memory.fetch(table)
    twin = memory.fork(table)
    memory.suspend(table, Tier.HOST)
    memory.fetch(twin)
    copier.close()
    memory.settle()
    assert (table.resident, twin.resident) == (False, True)
    assert read(memory, twin) == NINE
    memory.release(table)
    memory.release(twin)
    assert memory.device.num_free == 8


def test_what_is_being_written_to_disk_from_the_host_is_not_overwritten_there(tmp_path: Path) -> None:
    memory, copier = by_hand(host_pages=2, disk=tmp_path)
    table, other = memory.open(), memory.open()
    append(memory, table, NINE[:8])
    copier.close()
    memory.settle()
    memory.suspend(table, Tier.DISK)
    memory.fetch(table)
    copier.finish(Lane.IN)
    memory.settle()
    append(memory, other, [77])
    memory.suspend(other)  # it wants a place on the host at once
    copier.close()
    memory.settle()
    memory.suspend(table)
    memory.fetch(table)
    copier.close()
    memory.settle()
    assert read(memory, table) == NINE[:8]


def test_a_disk_that_takes_nothing_leaves_the_pages_on_the_host(tmp_path: Path) -> None:
    memory, copier = by_hand(disk=tmp_path / "gone")
    table = memory.open()
    append(memory, table, NINE)
    (tmp_path / "gone").rmdir()
    memory.suspend(table, Tier.DISK)
    copier.close()
    memory.settle()
    assert (table.tier, memory.device.num_free) == (Tier.HOST, 8)
    memory.fetch(table)
    copier.close()
    memory.settle()
    assert read(memory, table) == NINE


def test_a_damaged_page_is_named_when_its_context_comes_back(tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table, Tier.DISK)
    (file,) = tmp_path.glob("*.kv")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    moved = memory.resume(table)
    assert moved.fault == f"page 2 of {file.name} is damaged: its checksum differs"
    assert read(memory, table) == NINE[:8]


def test_a_damaged_page_is_named_though_the_others_come_later(tmp_path: Path) -> None:
    copier = ByHand()
    memory = small_memory(24, 24, tmp_path, copier=copier)
    table = memory.open()
    append(memory, table, [1.0] * 80)
    memory.suspend(table, Tier.DISK)
    copier.close()
    memory.settle()
    (file,) = tmp_path.glob("*.kv")
    data = bytearray(file.read_bytes())
    data[-20 * memory.page_bytes] ^= 1  # the first page
    file.write_bytes(data)
    arrival = memory.fetch(table)
    copier.finish(Lane.IN, 1)
    memory.settle()
    assert arrival.moved is None
    copier.finish(Lane.IN)
    memory.settle()
    assert arrival.moved is not None
    assert arrival.moved.fault == f"page 0 of {file.name} is damaged: its checksum differs"
    assert (table.resident, table.tokens) == (True, 0)


def test_with_checksums_a_damaged_page_of_the_host_is_noticed() -> None:
    memory = small_memory(checks_host=True)
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table)
    host = memory.storage._bytes[Tier.HOST]
    host[table.pages[1].host, 5] ^= 1
    assert memory.resume(table).fault.endswith("of the host pool is damaged: its checksum differs")
    assert read(memory, table) == NINE[:4]


@pytest.mark.parametrize("tier", [Tier.HOST, Tier.DISK])
def test_threads_bring_back_what_they_took_away(tier: Tier, tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path, copier=InThreads())
    table = memory.open()
    for _ in range(20):
        append(memory, table, NINE[:1])
        before = memory.digests(table)
        memory.suspend(table, tier)
        assert memory.digests(table) == before
        memory.resume(table)
        assert memory.digests(table) == before
    assert read(memory, table) == [1.0] * 20
    memory.release(table)
    memory.drain()
    assert (memory.device.num_free, memory.host.num_free, list(tmp_path.glob("*.kv"))) == (8, 8, [])
    memory.close()


def test_others_compute_while_a_context_comes_back_from_disk(tmp_path: Path) -> None:
    orders = submit("1:a", "the one that was away", max_tokens=12), submit("2:b", "the other", max_tokens=30)
    alone = {name: tokens for order in orders for name, tokens in tokens_of(run(tiny_engine(), order)).items()}
    copier = ByHand()
    engine = tiny_engine(disk=tmp_path, copier=copier)
    for order in orders:
        engine.do(order)
    for _ in range(3):
        engine.step()
    engine.do(Suspend(context=A, epoch=1, ticket=5, tier="disk"))
    assert not [m for m in engine.take_messages() if isinstance(m, Described)]
    copier.close()
    engine.step()
    copier.close()  # the digests
    engine.step()
    assert one(engine.take_messages(), Described).tier == "disk"
    engine.do(Resume(context=A, epoch=1, ticket=6))
    steps = [engine.step() for _ in range(5)]
    said = engine.take_messages()
    assert all(steps)
    assert [len(rows_of(said, name)) for name in ("1:a", "2:b")] == [0, 5]
    copier.close()
    said = run(engine)
    back = one(said, Switched)
    assert (back.direction, back.tier, back.ticket, back.reason) == ("in", "disk", 6, "order")
    assert tokens_of(said) == alone


def test_a_cached_page_that_has_just_arrived_for_a_context_that_lets_go_holds_no_frame_in_secret() -> None:
    memory, copier = by_hand()
    table = memory.open("a")
    append(memory, table, NINE)
    memory.keep(table.pages[0], "a", None)
    memory.keep(table.pages[1], "a", table.pages[0])
    memory.suspend(table)
    copier.finish(Lane.OUT)
    memory.settle()
    memory.fetch(table)
    copier.finish(Lane.IN)
    memory.release(table)
    memory.drain()
    assert memory.num_available == 8
    assert memory.statistics().pages_cached == 2


def test_a_context_killed_on_its_way_back_gives_up_every_page(tmp_path: Path) -> None:
    copier = ByHand()
    engine = tiny_engine(disk=tmp_path, copier=copier)
    engine.do(submit("1:a", "the one that was away", max_tokens=12))
    engine.step()
    engine.do(Suspend(context=A, epoch=1, tier="disk"))
    copier.close()
    engine.step()
    engine.do(Resume(context=A, epoch=1))
    engine.do(Drop(context=A, epoch=1))
    copier.close()
    engine.step()
    memory = engine.memory
    assert (memory.device.num_free, memory.host.num_free, list(tmp_path.iterdir())) == (64, 64, [])


def test_a_damaged_page_is_the_reason_of_the_switch(tmp_path: Path) -> None:
    engine = tiny_engine(disk=tmp_path)
    engine.do(submit(max_tokens=10))
    engine.step()
    run(engine, Suspend(context=MAIN, epoch=1, tier="disk"))
    (file,) = tmp_path.glob("*.kv")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    reason = one(run(engine, Resume(context=MAIN, epoch=1)), Switched).reason
    assert reason == f"order; computed again from token 4: page 1 of {file.name} is damaged: its checksum differs"


def test_whatever_threads_copy_under_pressure_contexts_get_the_tokens_that_they_get_alone(tmp_path: Path) -> None:
    orders = [submit(f"{n}:x", f"prompt of number {n}", max_tokens=20, seed=n, temperature=1.0) for n in range(1, 7)]
    alone = {name: tokens for order in orders for name, tokens in tokens_of(run(tiny_engine(), order)).items()}
    engine = tiny_engine(pages=24, host_pages=10, disk=tmp_path, quantum=2, copier=InThreads())
    said = run(engine, *orders)
    assert tokens_of(said) == alone
    assert {m.tier for m in said if isinstance(m, Switched)} >= {"host", "disk"}
    engine.close()


def test_two_hundred_interruptions_change_nothing_while_threads_copy(tmp_path: Path) -> None:
    engine = tiny_engine(pages=40, host_pages=30, disk=tmp_path, copier=InThreads())
    orders = [submit(f"{n}:main", f"context number {n}", max_tokens=25, temperature=1.0, seed=n) for n in (1, 2, 3)]
    assert interrupted_run(engine, orders, points=200) == (200, 0)
    engine.close()


class Ample(RuleBasedStateMachine):
    """Any order of growing, cutting, forking, switching and ends of copies, against what each table should hold.

    With room on every tier no token is lost but by order.
    """

    tables: Bundle[int] = Bundle("tables")
    host_pages, disk_pages = 1000, 1000

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.disk = Path(self.folder.name) / "disk"
        self.copier = ByHand()
        self.memory = small_memory(10, self.host_pages, self.disk, self.disk_pages, copier=self.copier)
        self.live: dict[int, tuple[PageTable, list[float]]] = {}
        self.next_value = 0

    def teardown(self) -> None:
        self.disk.mkdir(exist_ok=True)
        for table, _ in self.live.values():
            self.memory.release(table)
        self.copier.close()
        self.memory.settle()
        self.copier.close()
        self.memory.settle()
        assert self.memory.device.num_free == 10
        assert self.memory.host.num_free == self.host_pages
        assert not list(self.disk.iterdir())
        self.folder.cleanup()

    @rule(target=tables)
    def opened(self) -> int:
        self.next_value += 1
        self.live[self.next_value] = (self.memory.open(), [])
        return self.next_value

    @rule(name=tables, count=st.integers(1, 9))
    def grows(self, name: int, count: int) -> None:
        table, values = self.live[name]
        new = [float(self.next_value * 100 + i) for i in range(count)]
        self.next_value += 1
        if table.resident:
            try:
                append(self.memory, table, new)
            except OutOfFrames:
                return
            values += new

    @rule(name=tables, cut=st.integers(0, 12))
    def is_cut(self, name: int, cut: int) -> None:
        table, values = self.live[name]
        self.memory.truncate(table, cut)
        del values[cut:]

    @rule(target=tables, name=tables)
    def is_forked(self, name: int) -> int:
        table, values = self.live[name]
        self.next_value += 1
        self.live[self.next_value] = (self.memory.fork(table), list(values))
        return self.next_value

    @rule(name=tables, tier=st.sampled_from([Tier.HOST, Tier.DISK, Tier.DROPPED]))
    def leaves(self, name: int, tier: Tier) -> None:
        table, values = self.live[name]
        self.memory.suspend(table, tier)
        if tier is Tier.DROPPED:
            values.clear()

    @rule(name=tables)
    def begins_to_come_back(self, name: int) -> None:
        try:
            self.memory.fetch(self.live[name][0])
        except OutOfFrames:
            return

    @rule(lane=st.sampled_from([Lane.IN, Lane.OUT]), count=st.integers(1, 3))
    def copies_end(self, lane: Lane, count: int) -> None:
        self.copier.finish(lane, count)

    @rule()
    def the_loop_takes_them_in(self) -> None:
        self.memory.settle()

    @rule(name=consumes(tables))
    def is_released(self, name: int) -> None:
        self.memory.release(self.live.pop(name)[0])

    @invariant()
    def what_is_resident_holds_its_values(self) -> None:
        for table, values in self.live.values():
            assert len(values) == table.tokens
            if table.resident:
                assert read(self.memory, table) == values

    @invariant()
    def counts_add_up(self) -> None:
        holders: dict[Page, list[PageTable]] = {}
        for table, _ in self.live.values():
            assert len(table.pages) == -(-table.tokens // table.page_tokens)
            for page in table.pages:
                holders.setdefault(page, []).append(table)
        for page, tables in holders.items():
            assert page.refs == len(tables)
            assert page.users == sum(table.is_active for table in tables)
            if page.users:
                assert page.frame is not None or Tier.DEVICE in page.coming
            else:
                assert page.frame is None or (page.is_being_saved and not page.has_copy)
            assert page.frame is not None or not any(table.resident for table in tables)
        for held, allocator in (("frame", self.memory.device), ("host", self.memory.host)):
            frames = [getattr(page, held) for page in holders if getattr(page, held) is not None]
            assert len(frames) == len(set(frames))
            assert allocator.taken >= set(frames)


class Scarce(Ample):
    """Without room, and with a disk that fails at times, tokens may be lost, but only those at the end."""

    host_pages, disk_pages = 5, 6

    @rule()
    def the_disk_fails_or_is_well_again(self) -> None:
        if self.disk.exists():
            self.disk.rename(self.disk.with_name("away"))
        else:
            self.disk.with_name("away").rename(self.disk)

    @invariant()
    def what_is_resident_holds_its_values(self) -> None:
        for table, values in self.live.values():
            if table.resident:
                assert read(self.memory, table) == values[: table.tokens]
            del values[table.tokens :]


TestAmple, TestScarce = pytest.mark.slow(Ample.TestCase), pytest.mark.slow(Scarce.TestCase)
TestAmple.settings = TestScarce.settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
)
