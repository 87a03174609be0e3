"""Scheduling policies: pure, replayable, strangers to engine and kernel.

Orthogonal parts: who is next (`order`), does it fit (`admission`), who leaves (`victim`), what idles where
(`retention`); `planner` composes the first three into one plan a step.
"""

from aios.sched.planner import make_planner
from aios.sched.retention import make_retention

__all__ = ["make_planner", "make_retention"]
