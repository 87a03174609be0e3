"""The store on a real PostgreSQL server, started for these tests: the same promises as on SQLite."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aios.abi.store import Record
from aios.config import Durability
from aios.errors import StoreError, StoreFull, StoreLocked
from aios.kernel.store import JournalReader, SqlStore

pytestmark = pytest.mark.slow

Server = Callable[[], str]
"""Makes an empty database and returns its URL."""


def programs() -> Path | None:
    """Return the folder of the newest server installed here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = shutil.which("initdb")
    return found[-1].parent if found else Path(initdb).parent if initdb else None


def as_owner() -> dict[str, Any]:
    """Options of a process that may run the server, which refuses root."""
    if os.getuid():
        return {}
    try:
        owner = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return {"user": owner.pw_uid, "group": owner.pw_gid}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server in a folder of its own that listens on a Unix socket only."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("no PostgreSQL server is installed")
    options = as_owner()
    place = Path(tempfile.mkdtemp(prefix="pg"))
    if options:
        os.chown(place, options["user"], options["group"])
    cluster = place / "data"
    quiet: dict[str, Any] = {"cwd": place, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    subprocess.run([bin_folder / "initdb", "-D", cluster, "-A", "trust", "-U", "aios", "-N"], check=True, **quiet)
    control = [str(bin_folder / "pg_ctl"), "-D", str(cluster), "-w"]
    subprocess.run([*control, "-o", f"-k {place} -h ''", "start"], check=True, **quiet)
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        with psycopg.connect(host=str(place), user="aios", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE journal{count}")
        return f"postgresql://aios@/journal{count}?host={place}"

    yield make
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
    shutil.rmtree(place)


@pytest.fixture
def url(server: Server) -> str:
    return server()


def record(number: int) -> Record:
    return Record("fact", number, number / 7, b"\0%d" % number)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_records_survive_reopening_and_the_chain_is_checked(url: str) -> None:
    store = SqlStore(url, name="one")
    assert store.append([record(1), record(2)]) == 2
    assert store.append([]) == 2
    store.close()
    store = SqlStore(url, name="one")
    assert store.append([record(3)]) == 3
    assert list(store.load()) == [(number, record(number)) for number in (1, 2, 3)]
    store.close()
    execute(url, "UPDATE journal SET pid = 9 WHERE seq = 2")
    reader = JournalReader(url)
    with pytest.raises(StoreError, match="entry 2 does not match"):
        list(reader.load())
    reader.close()


def test_a_second_kernel_is_refused_with_the_pid_of_the_first_and_without_the_password(url: str) -> None:
    store = SqlStore(url.replace("aios@", "aios:secret@"))
    with pytest.raises(StoreLocked, match=f"aios pid {os.getpid()} on {socket.gethostname()}") as caught:
        SqlStore(url.replace("aios@", "aios:secret@"))
    assert "secret" not in str(caught.value)
    store.close()
    SqlStore(url).close()


def test_a_lost_session_is_opened_again_with_its_lock_and_loses_nothing(url: str) -> None:
    store = SqlStore(url)
    store.append([record(1)])
    _end_other_sessions(url)
    with pytest.raises(StoreError):
        store.append([record(2)])
    assert store.append([record(3)]) == 2
    assert [found.pid for _, found in store.load()] == [1, 3]
    with pytest.raises(StoreLocked):
        SqlStore(url)
    store.close()


def test_a_kernel_that_lost_its_lock_to_another_writes_no_more(url: str) -> None:
    store = SqlStore(url)
    store.append([record(1)])
    _end_other_sessions(url)
    other = SqlStore(url)
    other.append([record(2)])
    for _ in range(2):
        with pytest.raises(StoreError):
            store.append([record(3)])
    assert [found.pid for _, found in other.load()] == [1, 2]
    other.close()
    with pytest.raises(StoreError, match="another program wrote to the journal after entry 1"):
        store.append([record(3)])
    store.close()


@pytest.mark.parametrize("durability, setting", [("crash", "local"), ("power", "on"), ("none", "off")])
def test_durability_is_what_the_server_waits_for(url: str, durability: Durability, setting: str) -> None:
    store = SqlStore(url, durability)
    with store._database.write() as plain:
        assert _synchronous(plain) == setting
    with store._database.write(flush=True) as flushed:
        assert _synchronous(flushed) == ("local" if durability == "none" else setting)
    with store._database.write() as plain:
        assert _synchronous(plain) == setting
    store.close()


def test_a_full_disk_is_store_full(url: str) -> None:
    store = SqlStore(url)
    store.append([record(1)])
    execute(
        url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;"
        " CREATE TRIGGER full_disk BEFORE INSERT ON journal EXECUTE FUNCTION full_disk()",
    )
    with pytest.raises(StoreFull, match="disk is full"):
        store.append([record(2)])
    execute(url, "DROP TRIGGER full_disk ON journal")
    assert store.append([record(3)]) == 2
    store.close()


def test_a_newer_store_is_refused(url: str) -> None:
    SqlStore(url).close()
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer aios"):
        SqlStore(url)


def test_a_server_that_does_not_answer_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        SqlStore(f"postgresql://aios@/journal?host={tmp_path}")


def _end_other_sessions(url: str) -> None:
    execute(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def _synchronous(cursor: Any) -> str:
    return str(cursor.execute("SHOW synchronous_commit").fetchone()[0])
