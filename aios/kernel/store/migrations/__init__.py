"""Alembic's script folder: one file per change of the tables."""
