"""Laws of the tiers: a switch changes no byte, no frame leaks, and what cannot be kept is forgotten cleanly."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aios.engine.disk import DiskTier, SnapshotError
from aios.engine.pages import OutOfFrames, Page, PageTable, Tier
from tests.engine.kv import PAGE_TOKENS, append, read, small_memory

NINE = [float(value) for value in range(1, 10)]


@pytest.mark.parametrize("tier", [Tier.HOST, Tier.DISK])
def test_a_switch_changes_no_byte(tier: Tier, tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    before = memory.digests(table)
    assert memory.suspend(table, tier).tier is tier
    assert memory.device.num_free == 8
    assert memory.digests(table) == before
    memory.resume(table)
    assert (memory.digests(table), read(memory, table)) == (before, NINE)


def test_full_pages_are_written_through_so_a_suspend_copies_the_partial_page_alone() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, NINE)
    assert memory.suspend(table).copied == 1


def test_a_context_that_has_not_grown_since_its_last_switch_is_not_copied_again() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table)
    memory.resume(table)
    assert memory.suspend(table).copied == 0


def test_a_page_written_after_a_resume_loses_its_stale_copy() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table)
    memory.resume(table)
    append(memory, table, [10])
    memory.suspend(table)
    memory.resume(table)
    assert read(memory, table) == [*NINE, 10]


def test_a_second_switch_to_disk_leaves_nothing_on_the_host(tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    for _ in range(2):
        memory.suspend(table, Tier.DISK)
        assert (table.tier, memory.host.num_free) == (Tier.DISK, 8)
        memory.resume(table)
        memory.suspend(table, Tier.HOST)
        memory.resume(table)


def test_without_room_on_the_host_a_context_goes_to_disk(tmp_path: Path) -> None:
    memory = small_memory(host_pages=2, disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    assert memory.suspend(table).tier is Tier.DISK
    memory.resume(table)
    assert read(memory, table) == NINE


def test_without_room_anywhere_a_context_is_cut_to_what_could_be_kept() -> None:
    memory = small_memory(host_pages=2)
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table)
    memory.resume(table)
    assert read(memory, table) == NINE[:8]


def test_copies_of_pages_on_the_device_make_room_for_pages_that_must_leave() -> None:
    memory = small_memory(host_pages=2)
    staying, leaving = memory.open(), memory.open()
    append(memory, staying, NINE[:8])
    append(memory, leaving, NINE[:4])
    assert memory.suspend(leaving).tier is Tier.HOST
    memory.resume(leaving)
    assert (read(memory, leaving), read(memory, staying)) == (NINE[:4], NINE[:8])


def test_a_page_that_another_context_uses_stays_until_its_last_user_leaves() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, NINE)
    fork = memory.fork(table)
    memory.suspend(fork)
    assert memory.device.num_free == 5
    memory.release(table)
    assert memory.device.num_free == 8
    memory.resume(fork)
    assert read(memory, fork) == NINE


def test_a_damaged_page_is_noticed_and_the_context_cut_before_it(tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    table = memory.open()
    append(memory, table, NINE)
    memory.suspend(table, Tier.DISK)
    (file,) = tmp_path.glob("*.kv")
    data = bytearray(file.read_bytes())
    data[-memory.page_bytes - 1] ^= 1  # in the second of three pages
    file.write_bytes(data)
    memory.resume(table)
    assert read(memory, table) == NINE[:4]
    memory.release(table)
    assert (memory.device.num_free, memory.host.num_free, list(tmp_path.glob("*.kv"))) == (8, 8, [])


FINGERPRINT = {"model": "A", "tokenizer": "A", "kv": "float32", "compute": "int4", "device": "avx2", "page": "16"}


@pytest.mark.parametrize("part", FINGERPRINT)
def test_a_page_written_under_another_fingerprint_is_refused_by_name(part: str, tmp_path: Path) -> None:
    (slot,) = (writer := DiskTier(tmp_path, fingerprint=FINGERPRINT, page_bytes=4)).reserve(1)
    writer.store([slot], [b"abcd"])
    data = slot.path.read_bytes()
    reader = DiskTier(tmp_path, fingerprint=FINGERPRINT | {part: "other"}, page_bytes=4)
    slot.path.write_bytes(data)
    (refused,) = reader.read([slot])
    assert isinstance(refused, SnapshotError)
    assert str(refused).endswith(f"was written by another model or machine: {part} {FINGERPRINT[part]}, not other")


def test_a_page_of_another_size_is_refused(tmp_path: Path) -> None:
    (slot,) = (writer := DiskTier(tmp_path, fingerprint=FINGERPRINT, page_bytes=4)).reserve(1)
    writer.store([slot], [b"abcd"])
    data = slot.path.read_bytes()
    reader = DiskTier(tmp_path, fingerprint=FINGERPRINT, page_bytes=2)
    slot.path.write_bytes(data)
    (refused,) = reader.read([slot])
    assert "page_bytes 4, not 2" in str(refused)


def test_files_of_an_earlier_process_are_removed_at_start(tmp_path: Path) -> None:
    (slot,) = (disk := DiskTier(tmp_path, fingerprint={"model": "x"}, page_bytes=4)).reserve(1)
    disk.store([slot], [b"abcd"])
    (tmp_path / "00000002.part").write_bytes(b"half")
    DiskTier(tmp_path, fingerprint={"model": "x"}, page_bytes=4)
    assert not slot.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_file_goes_with_its_last_page(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, fingerprint={"model": "x"}, page_bytes=4)
    first, second = slots = disk.reserve(2)
    disk.store(slots, [b"abcd", b"efgh"])
    disk.forget(first)
    (left,) = disk.read([second])
    assert left == bytearray(b"efgh")
    disk.forget(second)
    assert list(tmp_path.iterdir()) == []


class TierMachine(RuleBasedStateMachine):
    """Any order of growing, cutting, forking and switching, against plain lists of what each table should hold."""

    tables: Bundle[int] = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.memory = small_memory(pages=10, host_pages=5, disk=Path(self.folder.name), disk_pages=6)
        self.live: dict[int, tuple[PageTable, list[float]]] = {}
        self.next_value = 0

    def teardown(self) -> None:
        for table, _ in self.live.values():
            self.memory.release(table)
        assert self.memory.device.num_free == 10
        assert self.memory.host.num_free == 5
        assert not list(Path(self.folder.name).iterdir())
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
        del values[table.tokens :]

    @rule(name=tables)
    def comes_back(self, name: int) -> None:
        table, values = self.live[name]
        try:
            self.memory.resume(table)
        except OutOfFrames:
            return
        del values[table.tokens :]

    @rule(name=consumes(tables))
    def is_released(self, name: int) -> None:
        table, _ = self.live.pop(name)
        self.memory.release(table)

    @invariant()
    def resident_tables_hold_their_values(self) -> None:
        for table, values in self.live.values():
            if table.resident:
                assert read(self.memory, table) == values

    @invariant()
    def counts_add_up(self) -> None:
        holders: dict[Page, list[PageTable]] = {}
        for table, _ in self.live.values():
            assert len(table.pages) == -(-table.tokens // PAGE_TOKENS)
            for page in table.pages:
                holders.setdefault(page, []).append(table)
        for page, tables in holders.items():
            assert page.refs == len(tables)
            assert page.users == sum(table.resident for table in tables)
            assert (page.frame is not None) == (page.users > 0)
        frames = [page.frame for page in holders if page.frame is not None]
        assert sorted(frames) == sorted(self.memory.device.taken)
        assert sorted(page.host for page in holders if page.host is not None) == sorted(self.memory.host.taken)
        assert self.memory.disk is not None
        assert sum(page.disk is not None for page in holders) == self.memory.disk.num_pages


TestTierMachine = pytest.mark.slow(TierMachine.TestCase)
TestTierMachine.settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
