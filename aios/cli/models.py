"""`models pull`, `ls`, `rm`, `recommend`: the model store and the catalogue from the command line."""

import time
from dataclasses import asdict
from pathlib import Path

from aios.cli import output
from aios.engine import catalogue, modelstore, nativestate
from aios.engine.catalogue import Recommendation
from aios.engine.fit import Machine, gigabytes


def pull(name: str, source: Path | None) -> None:
    """Bring a model into the store; progress goes to stderr, its path to stdout."""
    started = time.monotonic()
    model = modelstore.pull(name, source=source, report=output.note)
    output.note(f"{name}: ready in {time.monotonic() - started:.1f} s")
    if nativestate.state() != "built":
        output.note(nativestate.prepared())
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


def recommend(*, json: bool) -> None:
    """Print known models that fit this machine, the best first, with what to type."""
    where = catalogue.machine()
    bandwidth = None if where.is_gpu else catalogue.read_bandwidth()
    found = catalogue.recommend(where, bandwidth=bandwidth)
    here = {model.name for model in modelstore.ls()}
    if json:
        machine = asdict(where) | {"bandwidth": bandwidth}
        output.as_json({"machine": machine, "models": [_facts(each, here) for each in found]})
        return
    output.note(_where(where))
    if not found:
        output.note(_nothing_fits(where))
        return
    headings = [("MODEL", False), ("PARAMETERS", True), ("DOWNLOAD", True), ("MEMORY", True), ("CONTEXT", True),
                ("TOK/S", True), ("TOOLS", False), ("HERE", False), ("LICENCE", False), ("TYPE", False)]  # fmt: skip
    output.table(headings, [_row(each, here) for each in found])
    if any(not each.keeps_pace for each in found):
        output.note("TOK/S is what memory bandwidth allows one conversation; people read at about 8 a second.")


def _where(machine: Machine) -> str:
    memory = "GPU memory" if machine.is_gpu else "memory"
    return f"{gigabytes(machine.available)} of {gigabytes(machine.total)} {memory} are available"


def _nothing_fits(where: Machine) -> str:
    least = catalogue.least(where)
    return (
        f"None of the {len(catalogue.catalogue())} known models fits; the smallest, {least.entry.title}, takes "
        f"{gigabytes(least.need.total)}. Free some memory, or use an endpoint: see docs/remote.md"
    )


def _facts(found: Recommendation, here: set[str]) -> dict[str, object]:
    entry = found.entry
    return {
        "title": entry.title,
        "pull": entry.pull,
        "here": entry.pull in here,
        "parameters": entry.parameters,
        "download_bytes": entry.download_bytes,
        "memory_bytes": found.need.total,
        "context": entry.context,
        "tool_calling": entry.tool_calling,
        "chat": entry.chat,
        "tokens_per_s": found.tokens_per_s,
        "licence": entry.licence,
        "source": entry.source,
    }


def _row(found: Recommendation, here: set[str]) -> tuple[str, ...]:
    entry, speed = found.entry, found.tokens_per_s
    return (
        entry.title,
        f"{entry.parameters / 1e9:.2f} G",
        gigabytes(entry.download_bytes),
        gigabytes(found.need.total),
        str(entry.context),
        "-" if speed is None else f"{speed:.1f}",
        "yes" if entry.tool_calling else "no",
        "yes" if entry.pull in here else "no",
        entry.licence,
        f"aios models pull {entry.pull}",
    )


def _cells(model: modelstore.StoredModel) -> tuple[str, ...]:
    return model.name, model.kind, f"{model.bytes / 1e6:.1f}", model.sha256[:16], str(model.path)
