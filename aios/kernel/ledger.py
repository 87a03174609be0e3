"""The ledger's decisions: what must be durable before a call runs, and what becomes of one that a crash cut off.

Pure. Promise: never twice silently.
"""

from enum import Enum

from aios.abi.tools import Effect
from aios.kernel.records import ToolIntent


class Recovery(Enum):
    """What to do with an intent that has no result."""

    RUN_AGAIN = "run again with the same key"
    ASK_TOOL = "ask the tool; if it cannot tell, a person decides"


def needs_durable_intent(effect: Effect) -> bool:
    """Whether the intent must be durable before the call runs."""
    return effect is not Effect.READ


def needs_flush(effect: Effect) -> bool:
    """Whether the intent must be on the disk itself (fsync), whatever the durability mode."""
    return effect in (Effect.ONCE, Effect.COMPENSABLE)


def recovery_of(intent: ToolIntent) -> Recovery:
    """Decide from the effect class alone."""
    is_repeatable = intent.effect in (Effect.READ, Effect.IDEMPOTENT)
    return Recovery.RUN_AGAIN if is_repeatable else Recovery.ASK_TOOL
