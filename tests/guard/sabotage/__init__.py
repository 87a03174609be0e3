"""Seeded bugs in the guard, each with the quick test that must catch it.

`mutants` lists them by part, `workshop` builds one into a copy of the package and runs its test in a fresh
interpreter. Five of the day run in `tests/guard/test_sabotage.py`, all of them in `make prove PART=sabotage`.
A mutant is a fragment of source text that must occur exactly once: when the source moves on, the suite says so.
"""
