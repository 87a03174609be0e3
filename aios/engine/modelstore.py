"""The model store: files under `AIOS_HOME/models`, named and verified.

Owns what is on this machine and that what it hands out is whole: a file is written beside its place, checked against
its SHA-256 and renamed, so half a download is never a model. Where models come from is `modelsource`'s business.
Imports no torch and reads no weights. Layout: `models/NAME/` with the files and `aios.json` beside them.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from aios import config
from aios.engine import modelsource
from aios.errors import ModelError, UsageError

Kind = Literal["gguf", "safetensors"]
Report = Callable[[str], None]

_FACTS = "aios.json"
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on this machine. `path` is a GGUF file or a safetensors folder."""

    name: str
    path: Path
    kind: Kind
    bytes: int
    sha256: str
    """Of the file; of a folder, of the list of its files' names and digests."""


def folder() -> Path:
    """Return where models live."""
    return config.home() / "models"


def pull(name: str, *, source: Path | None = None, report: Report = lambda line: None) -> StoredModel:
    """Bring model `name` into the store, from `source` (a file or folder) if given; return it.

    A model that is there already is verified and kept. `report` gets one line per step, the size before a download.
    Raises ModelError listing every source that was tried and why it failed.
    """
    check_name(name)
    present = _stored(name)
    if present and not source:
        report(f"{name}: already here, {_size(present.bytes)}; verifying")
        return _verified(present, report) or pull(name, source=source, report=report)
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder()) as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        modelsource.fetch(name, content, source=source, report=report)
        facts = _facts(name, content)
        _write_facts(content, facts)
        _place(content, _home(name))
    report(f"{name}: stored, {_size(facts.bytes)}, sha256 {facts.sha256[:16]}…")
    return find(name)


def find(name: str) -> StoredModel:
    """Return the model called `name`, or the GGUF file or safetensors folder at that path.

    Raises ModelError that says what to type.
    """
    stored = _stored(name)
    if stored:
        return stored
    path = Path(name).expanduser()
    if path.exists():
        return _local(path)
    here = ", ".join(model.name for model in ls()) or "none"
    raise ModelError(f"model '{name}' is not on this machine (here: {here}); type: aios models pull {name}")


def resolve(name: str) -> Path:
    """Return the path of the model called `name`; raises as `find` does."""
    return find(name).path


def ls() -> list[StoredModel]:
    """Return the models in the store, by name."""
    if not folder().is_dir():
        return []
    names = sorted(str(facts.parent.relative_to(folder())) for facts in folder().glob(f"**/{_FACTS}"))
    return [model for name in names if not name.startswith(".") and (model := _stored(name))]


def rm(name: str) -> int:
    """Remove model `name` from the store; return the bytes freed. Raises ModelError when it is not there."""
    check_name(name)
    place = _home(name)
    if not (place / _FACTS).is_file():
        here = ", ".join(model.name for model in ls()) or "none"
        raise ModelError(f"model '{name}' is not in the store (here: {here}); nothing was removed")
    freed = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    shutil.rmtree(place)
    return freed


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's list of names and digests; remembered beside the file.

    What is remembered counts only while the file is the same one, of the same size and time of change.
    """
    if path.is_dir():
        lines = [f"{sha256_of(file)}  {file.name}" for file in _model_files(path)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    note, stat = path.with_name(path.name + ".sha256.json"), path.stat()
    seen = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    try:
        remembered = json.loads(note.read_text())
        if isinstance(remembered, dict) and seen.items() <= remembered.items():
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # nothing remembered, or not readable: compute it
    digest = modelsource.sha256(path)
    _remember(note, seen | {"sha256": digest})
    return digest


def check_name(name: str) -> None:
    """Refuse names that could leave the store's folder."""
    parts = name.split("/")
    sound = all(part and part[0].isalnum() and all(c.isalnum() or c in "._-" for c in part) for part in parts)
    if not sound or len(parts) > 2 or len(name) > 200:
        raise UsageError(f"'{name}' is no model name; write a name such as smollm2-135m or ORGANISATION/NAME")


def _home(name: str) -> Path:
    return folder() / name


def _stored(name: str) -> StoredModel | None:
    try:
        check_name(name)
        facts = json.loads((_home(name) / _FACTS).read_text())
        path = _home(name) / facts["file"] if facts["kind"] == "gguf" else _home(name)
        stored = StoredModel(name, path, facts["kind"], int(facts["bytes"]), str(facts["sha256"]))
    except (OSError, UsageError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model '{name}': {_home(name) / _FACTS} is damaged; type: aios models rm {name}, then pull it again"
        ) from error
    return stored if path.exists() else None


def _local(path: Path) -> StoredModel:
    kind: Kind = "safetensors" if path.is_dir() else "gguf"
    if kind == "safetensors":
        modelsource.check_folder(path)
    return StoredModel(str(path), path.absolute(), kind, _bytes(path), sha256_of(path))


def _facts(name: str, content: Path) -> StoredModel:
    files = sorted(content.glob("*.gguf"))
    path = files[0] if files else content
    return StoredModel(name, path, "gguf" if files else "safetensors", _bytes(path), sha256_of(path))


def _write_facts(content: Path, facts: StoredModel) -> None:
    fields = asdict(facts) | {"file": facts.path.name, "path": None}
    (content / _FACTS).write_text(json.dumps(fields, indent=1) + "\n")


def _place(content: Path, home: Path) -> None:
    """Put a whole folder where the model lives; an older one goes after the new one is there."""
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        old = content.with_name("old")
        home.rename(old)
    content.rename(home)


def _verified(model: StoredModel, report: Report) -> StoredModel | None:
    """Recompute the digest; a damaged model is removed and None returned."""
    found = modelsource.sha256(model.path) if model.kind == "gguf" else sha256_of(model.path)
    if found == model.sha256:
        return model
    report(f"{model.name}: damaged (sha256 {found[:16]}…, expected {model.sha256[:16]}…); fetching it again")
    rm(model.name)
    return None


def _model_files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".json") and _counts(file.name))


def _counts(name: str) -> bool:
    return name != _FACTS and not name.endswith(".sha256.json")


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _model_files(path)) if path.is_dir() else path.stat().st_size


def _remember(note: Path, facts: dict[str, Any]) -> None:
    """Write the note if the folder may be written to; without it the digest is computed again."""
    if not os.access(note.parent, os.W_OK):
        return
    with tempfile.NamedTemporaryFile("w", dir=note.parent, prefix=".note-", delete=False) as file:
        json.dump(facts, file)
    os.replace(file.name, note)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
