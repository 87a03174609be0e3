"""The three models against a world: random, sensible, pushed towards a violation."""

from pathlib import Path
from typing import Any

from aios.abi.chat import ToolCall
from aios.engine import modelstore
from aios.formats.calls import render_call
from tests.guard.loop.desk import Plan
from tests.guard.loop.models import write_pushed, write_random
from tests.guard.worlds import WORLDS, World

REAL = "smollm2-135m"
POOL: dict[str, Any] = {"name": "loop", "pool_pages": 2500, "host_pages": 5000, "max_rows": 8}


def source() -> Path:
    """The file whose tokenizer the made models have."""
    return modelstore.find(REAL).path


def random_plan(world: str, seed: int, conversations: int, place: Path, **changes: Any) -> Plan:
    """A model with random weights."""
    model = write_random(place / "random.gguf", source(), seed)
    return _plan(world, seed, conversations, model, **changes)


def real_plan(world: str, seed: int, conversations: int, **changes: Any) -> Plan:
    """The embedded model."""
    return _plan(world, seed, conversations, source(), **{"temperature": 0.7, **changes})


def pushed_plan(world: str, seed: int, conversations: int, place: Path, **changes: Any) -> Plan:
    """A model whose weights want calls that its rules forbid: writes of other customers, unread and unconfirmed."""
    model = write_pushed(place / "pushed.gguf", source(), wishes(WORLDS[world](), seed))
    return _plan(world, seed, conversations, model, **{"temperature": 0.3, **changes})


def wishes(world: World, seed: int) -> list[str]:
    """Calls as a model writes them, all of writes."""
    writes = [call for goal in world.goals for call in goal.calls if call.tool in world.asking]
    chosen = [writes[(seed * 7 + number * 13) % len(writes)] for number in range(3)]
    return [render_call(ToolCall(id="w", name=call.tool, arguments=call.args)) for call in chosen]


def _plan(world: str, seed: int, conversations: int, model: Path, **changes: Any) -> Plan:
    settings = {**POOL, "model": str(model), **changes.pop("settings", {})}
    chosen = {"turns": 5, "max_tokens": 120, **changes}
    return Plan(world=world, seed=seed, conversations=conversations, settings=settings, **chosen)
