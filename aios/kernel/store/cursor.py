"""The part of a database driver's cursor that appends use; sqlite3's and psycopg's both are one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """Executes statements inside a transaction that the database opened and will end."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""
        ...

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> object:
        """Run a statement with named parameters."""
        ...

    def executemany(self, statement: str, parameters: Sequence[Mapping[str, Any]]) -> object:
        """Run a statement once for each set of parameters."""
        ...
