"""`models pull`, `models ls`, `models rm`: the model store from the command line."""

import time
from dataclasses import asdict
from pathlib import Path

from aios.cli import output
from aios.engine import modelstore


def pull(name: str, source: Path | None) -> None:
    """Bring a model into the store; progress goes to stderr, its path to stdout."""
    started = time.monotonic()
    model = modelstore.pull(name, source=source, report=output.note)
    output.note(f"{name}: ready in {time.monotonic() - started:.1f} s")
    print(model.path)


def ls(*, json: bool) -> None:
    """Print the models in the store."""
    stored = modelstore.ls()
    if json:
        output.as_json({"models": [asdict(model) | {"path": str(model.path)} for model in stored]})
        return
    headings = [("NAME", False), ("KIND", False), ("MB", True), ("SHA256", False), ("PATH", False)]
    output.table(headings, [_cells(model) for model in stored])


def rm(name: str) -> None:
    """Delete a model from the store."""
    freed = modelstore.rm(name)
    output.note(f"{name}: removed, {freed / 1e6:.1f} MB freed")


def _cells(model: modelstore.StoredModel) -> tuple[str, ...]:
    return model.name, model.kind, f"{model.bytes / 1e6:.1f}", model.sha256[:16], str(model.path)
