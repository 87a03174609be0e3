"""Laws of frames, page tables and sharing."""

import pytest

from aios.engine.pages import FrameAllocator, OutOfFrames, Tier
from tests.engine.kv import append, read, small_memory


def test_an_allocator_never_gives_a_frame_twice() -> None:
    allocator = FrameAllocator(3)
    assert {allocator.take() for _ in range(3)} == {0, 1, 2}
    with pytest.raises(OutOfFrames, match="1 frames wanted, 0 of 3 free"):
        allocator.take()


def test_a_frame_cannot_be_given_back_twice() -> None:
    allocator = FrameAllocator(1)
    frame = allocator.take()
    allocator.give_back(frame)
    with pytest.raises(KeyError):
        allocator.give_back(frame)


def test_a_fork_takes_no_frame() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1, 2, 3, 4, 5])
    free = memory.device.num_free
    fork = memory.fork(table)
    assert memory.device.num_free == free
    assert read(memory, fork) == [1, 2, 3, 4, 5]
    assert fork.num_shared == 2


def test_a_write_after_a_fork_copies_only_the_partial_page() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1, 2, 3, 4, 5])
    fork = memory.fork(table)
    append(memory, fork, [60])
    append(memory, table, [6, 7, 8])
    assert memory.statistics().pages_copied_on_write == 1
    assert read(memory, fork) == [1, 2, 3, 4, 5, 60]
    assert read(memory, table) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert table.pages[0] is fork.pages[0]


def test_a_fork_at_a_page_boundary_copies_nothing() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1, 2, 3, 4])
    append(memory, memory.fork(table), [5])
    assert memory.statistics().pages_copied_on_write == 0


def test_the_copy_of_a_shared_partial_page_is_counted_as_a_frame_needed() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1])
    assert (table.room, table.frames_needed(3), table.frames_needed(4)) == (3, 0, 1)
    memory.fork(table)
    assert (table.room, table.frames_needed(3), table.frames_needed(4)) == (0, 1, 2)


def test_extending_without_frames_changes_nothing() -> None:
    memory = small_memory(pages=2)
    table = memory.open()
    append(memory, table, [1, 2, 3])
    with pytest.raises(OutOfFrames):
        memory.extend(table, 6)
    assert read(memory, table) == [1, 2, 3]
    assert (len(table.pages), memory.device.num_free) == (1, 1)


def test_truncation_gives_back_whole_pages_and_the_rest_can_be_overwritten() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    memory.truncate(table, 3)
    assert memory.device.num_free == 7
    append(memory, table, [40, 50])
    assert read(memory, table) == [1, 2, 3, 40, 50]


def test_truncating_into_a_shared_page_leaves_the_other_table_as_it_was() -> None:
    memory = small_memory()
    table = memory.open()
    append(memory, table, [1, 2, 3, 4])
    fork = memory.fork(table)
    memory.truncate(fork, 2)
    append(memory, fork, [30, 40])
    assert read(memory, table) == [1, 2, 3, 4]
    assert read(memory, fork) == [1, 2, 30, 40]


def test_an_empty_table_is_on_no_tier() -> None:
    assert small_memory().open().tier is Tier.NONE
