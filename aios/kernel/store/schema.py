"""The tables as they are now. How older stores come to this form is in `migrations/`."""

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

FORMAT = "0001"
"""Alembic revision of these tables; equals the newest file in `migrations/versions`."""

metadata = MetaData()

journal = Table(
    "journal",
    metadata,
    # SQLite grows the table at its end only for its own INTEGER PRIMARY KEY.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("time", Float(53), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)
"""`head`: number and digest of the last row, so that a cut-off tail is seen. `name`: the kernel that owns it."""
