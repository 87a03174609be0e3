"""Brings a store to the format of this version, or refuses it.

Owns the decision; the changes themselves are in `migrations/`. Never touches a store that it does not understand.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from aios.errors import StoreError
from aios.kernel.store.schema import FORMAT

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, place: str) -> None:
    """Upgrade the tables inside the caller's transaction. `place` names the store in errors.

    Raises StoreError for a store of a newer version of aios or of another program.
    """
    found = stored_format(connection, place)
    if found != FORMAT:
        _upgrade(connection, found, place)


def check(connection: Connection, place: str) -> None:
    """Refuse a store that is not of exactly this format (for readers, which change nothing)."""
    found = stored_format(connection, place)
    if found != FORMAT:
        raise StoreError(f"store {place} has format {found or 'none'}; this version of aios reads {FORMAT}")


def stored_format(connection: Connection, place: str) -> str | None:
    """Return the format of the store; None for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if tables:
        raise StoreError(f"store {place} holds tables of another program ({', '.join(sorted(tables)[:5])})")
    return None


def _upgrade(connection: Connection, found: str | None, place: str) -> None:
    # Here, not at the top: Alembic costs 0.2 s, and nearly every start finds the tables as they should be.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if found is not None and found not in known:
        raise StoreError(
            f"store {place} has format {found}, made by a newer aios; this version knows {', '.join(known)}: "
            "install the newer version, or start with another --name"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
