"""What a database must do for the journal, and which URL means which; SQLite and PostgreSQL implement it.

Owns no table. A `Database` is opened locked and gives transactions on one writing connection; an `Access` gives
short-lived reading connections and words errors.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from aios.config import Durability
from aios.errors import ConfigError, StoreError
from aios.kernel.store import postgres, sqlite
from aios.kernel.store.cursor import Cursor


class Access(NamedTuple):
    """How to read a database."""

    engine: Engine
    place: str
    """The database in words, without its password."""
    explain: Callable[[Exception], StoreError]
    """Turn an exception of the database into StoreFull or StoreError."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the database may raise, through SQLAlchemy or past it."""
        driver: Any = self.engine.dialect.loaded_dbapi
        return DBAPIError, OSError, driver.Error


class Database(Protocol):
    """One open database, locked against other kernels."""

    def transaction(self) -> AbstractContextManager[Connection]:
        """Begin on the writing connection; commit at the end of the block, or roll back if it raises."""
        ...

    def write(self, *, flush: bool = False) -> AbstractContextManager[Cursor]:
        """The same for appends, quicker; durable as the mode says or, with `flush`, on the disk itself."""
        ...

    def close(self) -> None:
        """Release connections and lock; idempotent."""
        ...


def open_database(url: str, durability: Durability) -> tuple[Database, Access]:
    """Open for writing and take the lock. Raises StoreLocked, StoreError, ConfigError."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        lite = sqlite.SqliteDatabase(path, durability)
        return lite, Access(lite.engine, str(path), lambda error: sqlite.explain(error, path))
    place = parsed.render_as_string()
    post = postgres.PostgresDatabase(parsed, durability)
    return post, Access(post.engine, place, lambda error: postgres.explain(error, place))


def open_access(url: str) -> Access:
    """Open for reading, without a lock. Raises StoreError, ConfigError."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.is_file():
            raise StoreError(f"there is no store at {path}; no kernel of that name ever ran here")
        return Access(sqlite.open_engine(path), str(path), lambda error: sqlite.explain(error, path))
    place = parsed.render_as_string()
    return Access(postgres.open_engine(parsed), place, lambda error: postgres.explain(error, place))


def parse(url: str) -> URL:
    """Read a database URL. Raises ConfigError for what cannot hold a journal."""
    wanted = "store must be sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"{wanted}, not {url!r}") from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"{wanted}, not {backend!r}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("a journal in memory would not outlive its kernel: name a file, sqlite:///PATH")
    return parsed
