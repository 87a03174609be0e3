"""The store on SQLite: order, durability, the hash chain, the lock, a full disk, foreign and newer files."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.store import Record
from aios.errors import ConfigError, StoreError, StoreFull, StoreLocked
from aios.kernel.store import JournalReader, SqlStore
from aios.kernel.store.chain import GENESIS, link
from aios.kernel.store.schema import FORMAT


def record(number: int, **fields: object) -> Record:
    values: dict[str, object] = {"kind": "fact", "pid": number, "time": number / 7, "body": b"%d" % number}
    return Record(**(values | fields))  # type: ignore[arg-type]  # the fields of the test's own choice


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernel" / "journal.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = SqlStore(url)
    yield store
    store.close()


def altered(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def written(url: str, count: int) -> None:
    store = SqlStore(url)
    store.append([record(number) for number in range(1, count + 1)])
    store.close()


def test_what_is_appended_is_loaded_in_order_with_numbers_from_one(store: SqlStore) -> None:
    assert store.append([record(1), record(2)]) == 2
    assert store.append([record(3)]) == 3
    assert list(store.load()) == [(1, record(1)), (2, record(2)), (3, record(3))]
    assert list(store.load(since=2)) == [(3, record(3))]


def test_an_empty_batch_writes_nothing_and_returns_the_last_number(store: SqlStore) -> None:
    assert store.append([]) == 0
    store.append([record(1)])
    assert store.append([]) == 1


def test_a_store_opened_again_goes_on_where_it_ended(url: str) -> None:
    written(url, 3)
    store = SqlStore(url)
    assert store.append([record(4)]) == 4
    assert [seq for seq, _ in store.load()] == [1, 2, 3, 4]
    store.close()


def test_records_survive_byte_for_byte(store: SqlStore) -> None:
    odd = Record(kind="späße\0", pid=-(2**40), time=1e-300, body=bytes(range(256)))
    store.append([odd])
    assert list(store.load()) == [(1, odd)]


@given(st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=8))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_any_batches_load_as_one_unbroken_journal(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]]
) -> None:
    store = SqlStore(f"sqlite:///{tmp_path_factory.mktemp('store') / 'j.db'}", "none")
    bodies = []
    for batch in batches:
        bodies += batch
        assert store.append([record(0, body=body) for body in batch]) == len(bodies)
    assert [(seq, found.body) for seq, found in store.load()] == list(enumerate(bodies, start=1))
    store.close()


def test_load_reads_more_than_one_page_while_appends_go_on(store: SqlStore) -> None:
    store.append([record(number) for number in range(2500)])
    loading = store.load()
    assert next(loading)[0] == 1
    store.append([record(1)])
    assert [seq for seq, _ in loading] == list(range(2, 2501))


@pytest.mark.parametrize("column, value", [("body", "x'00'"), ("kind", "'lie'"), ("pid", "9"), ("time", "0.5")])
def test_an_altered_row_is_named(path: Path, url: str, column: str, value: str) -> None:
    written(url, 5)
    altered(path, f"UPDATE journal SET {column} = {value} WHERE seq = 3")
    store = SqlStore(url)
    loading = store.load()
    assert [next(loading)[0], next(loading)[0]] == [1, 2]
    with pytest.raises(StoreError, match="entry 3 does not match"):
        next(loading)
    store.close()


def test_a_removed_row_is_named(path: Path, url: str) -> None:
    written(url, 5)
    altered(path, "DELETE FROM journal WHERE seq = 2")
    reader = JournalReader(url)
    with pytest.raises(StoreError, match="entry 2 is missing"):
        list(reader.load())
    reader.close()


def test_swapped_rows_are_named(path: Path, url: str) -> None:
    written(url, 5)
    for old, new in ((2, 99), (4, 2), (99, 4)):
        altered(path, f"UPDATE journal SET seq = {new} WHERE seq = {old}")
    reader = JournalReader(url)
    with pytest.raises(StoreError, match="entry 2 does not match"):
        list(reader.load())
    reader.close()


def test_a_cut_tail_is_seen_by_readers_and_at_open(path: Path, url: str) -> None:
    written(url, 5)
    altered(path, "DELETE FROM journal WHERE seq > 3")
    reader = JournalReader(url)
    with pytest.raises(StoreError, match="entry 4 is missing: 5 were written"):
        list(reader.load())
    reader.close()
    with pytest.raises(StoreError, match="5 journal entries were written, the last one found is 3"):
        SqlStore(url)


def test_another_writer_is_noticed_before_anything_is_mixed(path: Path, url: str, store: SqlStore) -> None:
    store.append([record(1)])
    altered(path, "UPDATE meta SET value = '1:" + "00" * 32 + "' WHERE key = 'head'")
    with pytest.raises(StoreError, match="another program wrote"):
        store.append([record(2)])
    assert sqlite3.connect(path).execute("SELECT count(*) FROM journal").fetchone() == (1,)


def test_moving_a_boundary_between_fields_changes_the_chain() -> None:
    one = link(GENESIS, Record("ab", 1, 0.0, b"c"))
    other = link(GENESIS, Record("a", 1, 0.0, b"bc"))
    assert one.chain != other.chain


def test_a_second_kernel_is_refused_with_the_pid_of_the_first(store: SqlStore, url: str) -> None:
    with pytest.raises(StoreLocked, match=rf"pid {os.getpid()}.*--name") as caught:
        SqlStore(url)
    assert caught.value.exit_code == 75


def test_the_lock_of_a_killed_kernel_is_taken_over(url: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, url], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    with pytest.raises(StoreLocked, match=f"pid {owner.pid}"):
        SqlStore(url)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    store = SqlStore(url)
    assert [found.body for _, found in store.load()] == [b"acknowledged"]
    store.close()


_OWNER = textwrap.dedent("""
    import sys, time
    from aios.abi.store import Record
    from aios.kernel.store import SqlStore
    store = SqlStore(sys.argv[1])
    store.append([Record("fact", 1, 0.0, b"acknowledged")])
    print("open", flush=True)
    time.sleep(60)
""")


def test_a_reader_needs_no_lock(store: SqlStore, url: str) -> None:
    store.append([record(1)])
    reader = JournalReader(url)
    store.append([record(2)])
    assert [seq for seq, _ in reader.load()] == [1, 2]
    reader.close()


def test_close_releases_the_lock_and_may_be_repeated(url: str) -> None:
    store = SqlStore(url)
    store.close()
    store.close()
    SqlStore(url).close()


def test_a_refused_open_releases_the_lock(url: str) -> None:
    SqlStore(url, name="one").close()
    with pytest.raises(StoreError, match="belongs to kernel 'one', not 'two'"):
        SqlStore(url, name="two")
    SqlStore(url, name="one").close()
    SqlStore(url).close()


def test_files_are_for_this_user_only(store: SqlStore, path: Path) -> None:
    store.append([record(1)])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert {file.name for file in path.parent.iterdir()} == {
        "journal.db",
        "journal.db-shm",
        "journal.db-wal",
        "journal.db.lock",
    }


def test_a_store_of_a_newer_version_is_refused_and_left_alone(path: Path, url: str) -> None:
    written(url, 1)
    altered(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="format 9999, made by a newer aios"):
        SqlStore(url)
    with pytest.raises(StoreError, match="format 9999; this version of aios reads"):
        JournalReader(url)
    altered(path, f"UPDATE alembic_version SET version_num = '{FORMAT}'")
    SqlStore(url).close()


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, url: str) -> None:
    path.parent.mkdir()
    altered(path, "CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError, match="another program \\(recipes\\)"):
        SqlStore(url)
    tables = sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("recipes",)]


def test_a_file_that_is_no_database_is_refused(path: Path, url: str) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 200)
    with pytest.raises(StoreError, match="not a database"):
        SqlStore(url)


def test_a_reader_of_nothing_says_so(url: str) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        JournalReader(url)


@pytest.mark.parametrize("bad", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_hold_a_journal_is_a_config_error(bad: str) -> None:
    with pytest.raises(ConfigError):
        SqlStore(bad)


def test_an_unwritable_place_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        SqlStore(f"sqlite:///{tmp_path}/file/journal.db")


@pytest.mark.parametrize("durability, code", [("crash", 1), ("power", 2), ("none", 0)])
def test_durability_is_what_sqlite_syncs_and_flush_is_undone_afterwards(url: str, durability: str, code: int) -> None:
    store = SqlStore(url, durability)  # type: ignore[arg-type]  # pytest passes plain text
    seen = [_synchronous(store)]
    with store._database.write(flush=True) as cursor:
        seen += cursor.execute("PRAGMA synchronous", {}).fetchone()  # type: ignore[attr-defined]  # sqlite3's cursor
    seen.append(_synchronous(store))
    store.close()
    assert seen == [code, 2, code]


def _synchronous(store: SqlStore) -> object:
    with store._database.transaction() as connection:
        return connection.exec_driver_sql("PRAGMA synchronous").scalar()


def test_a_flushed_record_costs_a_sync_and_others_do_not(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    try:
        done = subprocess.run(
            ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace), sys.executable, "-c", _SYNCS, url],
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("strace is not installed: syncs cannot be counted")
    assert done.returncode == 0
    marks = trace.read_text().split("fsync(-1)")
    assert ["sync(" in part for part in marks[1:4]] == [False, True, False]


_SYNCS = textwrap.dedent("""
    import ctypes, sys
    from aios.abi.store import Record
    from aios.kernel.store import SqlStore
    mark = lambda: ctypes.CDLL(None).fsync(-1)
    store = SqlStore(sys.argv[1])
    store.append([Record("warm", 1, 0.0, b"")])
    mark()
    store.append([Record("plain", 1, 0.0, b"")])
    mark()
    store.append([Record("effect", 1, 0.0, b"", flush=True)])
    mark()
    store.append([Record("plain", 1, 0.0, b"")])
    mark()
    store.close()
""")


def fill(store: SqlStore) -> int:
    """Append until the store is full; return how many were acknowledged."""
    for count in range(10_000):
        try:
            store.append([record(count, body=bytes(4000)), record(count, body=bytes(4000))])
        except StoreFull as error:
            assert error.exit_code == 75
            return 2 * count
    raise AssertionError("the store never became full")


def limit_pages(store: SqlStore, pages: int) -> None:
    with store._database.transaction() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_a_full_database_refuses_whole_batches_and_goes_on_when_there_is_space(store: SqlStore) -> None:
    limit_pages(store, 200)
    acknowledged = fill(store)
    assert len(list(store.load())) == acknowledged
    with pytest.raises(StoreFull, match="nothing acknowledged is lost"):
        store.append([record(0, body=bytes(9000))])
    limit_pages(store, 400)
    assert store.append([record(7)]) == acknowledged + 1
    assert len(list(store.load())) == acknowledged + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_refuses_whole_batches_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    store = SqlStore(f"sqlite:///{small_disk}/journal.db")
    ballast.write_bytes(bytes(500_000))
    acknowledged = fill(store)
    assert acknowledged > 10
    acknowledged += fill(store)
    assert len(list(store.load())) == acknowledged
    ballast.unlink()
    assert store.append([record(7)]) == acknowledged + 1
    store.close()
    again = SqlStore(f"sqlite:///{small_disk}/journal.db")
    assert len(list(again.load())) == acknowledged + 1
    again.close()


def test_a_disk_full_from_the_start_is_store_full(small_disk: Path) -> None:
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(StoreFull):
        SqlStore(f"sqlite:///{small_disk}/kernel/journal.db")
