"""Where living kernels are found: descriptor files and sockets in `AIOS_HOME/run`, and the operator's token.

Owns names, modes and the judgement whether a descriptor's kernel still lives; opens no socket.
Invariants: the folder is for this user only; a descriptor appears complete or not at all; of several kernels of one
name only one can be published.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from aios import env
from aios.env import home
from aios.errors import ConfigError, KernelUnreachable, UsageError

SOCKET_PATH_BYTES = 103
"""Longest path of a Unix socket that every system takes (Linux: 107)."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A living kernel, as others find it."""

    name: str
    pid: int
    socket: str
    """Path of its Unix socket."""
    version: str
    model: str
    started_s: float
    """Seconds since the epoch."""
    birth: str = ""
    """When the process began, in the system's own counting: tells it from a later one of the same pid."""


def run_folder() -> Path:
    """Return the folder of descriptors and sockets, made for this user only if it was not there."""
    folder = home() / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def socket_path(name: str) -> Path:
    """Return where the kernel `name` listens: `run/NAME.sock`, or a short path where that is too long for a socket."""
    path = run_folder() / f"{_checked(name)}.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    return _short_folder() / f"{digest}.sock"


@contextlib.contextmanager
def publish(descriptor: Descriptor) -> Iterator[Descriptor]:
    """Let others find this kernel during the block. Raises UsageError when one of that name lives already."""
    path = _descriptor_path(descriptor.name)
    complete = replace(descriptor, birth=_birth(descriptor.pid) or "")
    _claim(path, complete)
    try:
        yield complete
    finally:
        if _read(path) == complete:
            path.unlink(missing_ok=True)


def living() -> list[Descriptor]:
    """Return the living kernels by name; remove what dead ones left behind."""
    found = []
    for path in sorted(run_folder().glob("*.json")):
        descriptor = _read(path)
        if descriptor is None:
            continue  # not ours to judge: a newer version may write what we cannot read
        if _lives(descriptor):
            found.append(descriptor)
        else:
            _remove(path, descriptor)
    return found


def choose(name: str | None = None) -> Descriptor:
    """Return the kernel called `name` (else `AIOS_KERNEL`), or the only one alive.

    Raises KernelUnreachable saying what to type when there is none, or several and none was named.
    """
    wanted = name or os.environ.get(env.KERNEL) or None
    kernels = living()
    if wanted is not None:
        return _named(wanted, kernels)
    if not kernels:
        raise KernelUnreachable("no kernel is alive: start one with `aios run FILE`")
    if len(kernels) > 1:
        raise KernelUnreachable(f"several kernels are alive: say which with --kernel NAME\n{_listed(kernels)}")
    return kernels[0]


def write_operator_token(name: str, token: str) -> Path:
    """Keep the operator's token of kernel `name` in a file for this user only; return its path."""
    path = _token_path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_whole(path, token.encode())
    return path


def read_operator_token(name: str) -> str:
    """Return the operator's token of kernel `name`. Raises KernelUnreachable when it cannot be read."""
    path = _token_path(name)
    try:
        return path.read_text().strip()
    except OSError as error:
        raise KernelUnreachable(
            f"the operator's token of kernel {name!r} cannot be read ({error.strerror}: {path}): "
            "only the user who started it may give it orders; start it again if the file was removed"
        ) from error


# --- descriptors --------------------------------------------------------------------------------------------------


def _descriptor_path(name: str) -> Path:
    return run_folder() / f"{_checked(name)}.json"


def _token_path(name: str) -> Path:
    return home() / "kernels" / _checked(name) / "operator.token"


def _checked(name: str) -> str:
    """Return `name` if it can be a file's name. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"a kernel cannot be called {name!r}: letters, digits, '.', '_' and '-', at most 64")
    return name


def _claim(path: Path, descriptor: Descriptor) -> None:
    """Put the descriptor in place unless a living kernel's is there."""
    with _temporary(path, msgspec.json.format(msgspec.json.encode(descriptor))) as written:
        while True:
            try:
                os.link(written, path)
            except FileExistsError:
                _evict(path, descriptor)
            else:
                return


def _evict(path: Path, newcomer: Descriptor) -> None:
    """Remove a dead kernel's descriptor. Raises UsageError if it lives."""
    owner = _read(path)
    if owner is not None and _lives(owner):
        raise UsageError(
            f"kernel {newcomer.name!r} is already alive (pid {owner.pid}): "
            f"talk to it with --kernel {newcomer.name}, end it, or choose another --name"
        )
    _remove(path, owner)


def _remove(path: Path, judged: Descriptor | None) -> None:
    """Remove a leftover and its socket, unless another kernel has taken the name since it was judged."""
    if _read(path) != judged:
        return
    path.unlink(missing_ok=True)
    if judged is not None and _is_ours(Path(judged.socket)):
        Path(judged.socket).unlink(missing_ok=True)


def _is_ours(socket: Path) -> bool:
    """Whether a path read from a descriptor names a socket in one of the folders that `socket_path` gives."""
    return socket.is_socket() and (socket.parent == run_folder() or socket.parent.name == _short_name())


def _read(path: Path) -> Descriptor | None:
    """Read a descriptor; None if it is gone or not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Descriptor)
    except (OSError, msgspec.MsgspecError):
        return None


def _lives(descriptor: Descriptor) -> bool:
    return descriptor.birth == _birth(descriptor.pid)


def _birth(pid: int) -> str | None:
    """Return when process `pid` began, in a form that no clock change alters where the system has one; None if dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return _birth_elsewhere(pid)
    except ProcessLookupError:
        return None
    # The name in parentheses may hold anything; behind the last one: state, …, start time in ticks since boot.
    after_name = stat[stat.rindex(b")") + 2 :].split()
    return None if after_name[0] in (b"Z", b"X") else after_name[19].decode()


def _birth_elsewhere(pid: int) -> str | None:
    """The same where there is no /proc, as on macOS."""
    if Path("/proc/self/stat").exists():
        return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _named(name: str, kernels: list[Descriptor]) -> Descriptor:
    for kernel in kernels:
        if kernel.name == name:
            return kernel
    others = f"alive are:\n{_listed(kernels)}" if kernels else "none is alive"
    raise KernelUnreachable(f"no kernel {name!r} is alive (start it with `aios run FILE --name {name}`); {others}")


def _listed(kernels: list[Descriptor]) -> str:
    return "\n".join(f"  {kernel.name}  (pid {kernel.pid}, model {kernel.model})" for kernel in kernels)


# --- files --------------------------------------------------------------------------------------------------------


def _write_whole(path: Path, content: bytes) -> None:
    """Replace `path` in one step by a file for this user only."""
    with _temporary(path, content) as written:
        os.replace(written, path)


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[str]:
    """A file beside `path`, mode 0600, gone at the end of the block unless it was renamed."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def _short_folder() -> Path:
    """Return a folder with a short path that only this user can use. Raises ConfigError when there is none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    folder = base / _short_name()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    # In a shared folder anybody may have made it first, as a link or with open doors.
    if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(f"{folder} must be a folder of your own with mode 0700: remove it, or shorten {env.HOME}")
    return folder


def _short_name() -> str:
    return f"aios-{os.getuid()}"
