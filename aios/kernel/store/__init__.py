"""The durable journal in a SQL database: the only place that knows SQLAlchemy and Alembic.

Owns tables, hash chain, migrations and the lock that keeps a second kernel out. Knows nothing of what records mean.
"""

from aios.kernel.store.reader import JournalReader
from aios.kernel.store.sql import SqlStore

__all__ = ["JournalReader", "SqlStore"]
