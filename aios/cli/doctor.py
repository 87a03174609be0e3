"""`doctor`: what this machine and this installation can do, each finding with what would mend it.

It looks and changes nothing (one probe file in AIOS_HOME apart), and starts no kernel and no model.
"""

import ctypes
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from aios import config, env, rundir
from aios.cli import output, wire
from aios.cli.processes import core_line
from aios.engine import modelstore, nativestate
from aios.errors import AiosError

MIN_PYTHON = (3, 11)
MIN_MEMORY_BYTES = 1 << 31
MIN_FREE_BYTES = 1 << 30
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_CONNECT_S = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `fix` is empty when nothing is wrong."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def run(*, json: bool) -> int:
    """Print all findings; return 0, or 1 when something that every kernel needs is missing."""
    findings = list(examine())
    failed = any(finding.status == "fail" for finding in findings)
    if json:
        output.as_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return 1 if failed else 0


def examine() -> Iterator[Finding]:
    """Look at everything, in order of importance."""
    checks: tuple[Callable[[], Finding], ...] = (
        python,
        cores,
        memory,
        torch,
        home,
        disk,
        model,
        native,
        bubblewrap,
        landlock,
        seccomp,
        kernels,
    )
    for check in checks:
        yield check()
    for name, core in config.load().cores.items():
        if core.kind == "url":
            yield endpoint(name, core)
    for found in rundir.living():
        yield from kernel_cores(found.name)


def python() -> Finding:
    """Is this Python new enough?"""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding("python", "ok", found)
    return Finding("python", "fail", found, "install Python 3.11 or newer and make a new environment")


def cores() -> Finding:
    """How many cores may this process use?"""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{usable} usable, {psutil.cpu_count(logical=False) or usable} physical"
    if usable >= 2:
        return Finding("cores", "ok", found)
    return Finding("cores", "warn", found, "give it two cores: the engine computes on one while the kernel answers")


def memory() -> Finding:
    """Is there room for the weights and a KV pool?"""
    seen = psutil.virtual_memory()
    found = f"{seen.available / 2**30:.1f} GiB free of {seen.total / 2**30:.1f}"
    if seen.available >= MIN_MEMORY_BYTES:
        return Finding("memory", "ok", found)
    return Finding("memory", "warn", found, "free some memory, or choose a smaller pool: aios run --pool-pages N")


def torch() -> Finding:
    """Is torch installed? (It is not imported: that takes seconds.)"""
    try:
        return Finding("torch", "ok", metadata.version("torch"))
    except metadata.PackageNotFoundError:
        return Finding("torch", "fail", "not installed", 'pip install -c constraints.txt "aios-kernel"')


def home() -> Finding:
    """Can AIOS_HOME be written?"""
    folder = config.home()
    probe = folder / f".doctor-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding("home", "fail", f"{folder}: {error.strerror}", f"set {env.HOME} to a folder that you may write")
    return Finding("home", "ok", str(folder))


def disk() -> Finding:
    """Is there room for journals and the disk tier?"""
    free = shutil.disk_usage(_existing(config.home())).free
    found = f"{free / 2**30:.1f} GiB free"
    if free >= MIN_FREE_BYTES:
        return Finding("disk", "ok", found)
    return Finding("disk", "warn", found, f"free some space, or move {env.HOME} to a larger disk")


def model() -> Finding:
    """Is the default model there, if one runs here at all?"""
    settings = config.load()
    if endpoints := _only_endpoints(settings):
        return Finding("model", "ok", f"none here: {endpoints}")
    try:
        return Finding("model", "ok", f"{settings.model}: {modelstore.find(settings.model).path}")
    except AiosError as error:
        return Finding("model", "fail", str(error), f"aios models pull {settings.model}")


def native() -> Finding:
    """Which operations does a model on this CPU run with?"""
    settings, state = config.load(), nativestate.state()
    if endpoints := _only_endpoints(settings):
        return Finding("operations", "ok", f"none here: {endpoints}")
    if not settings.native:
        return Finding("operations", "ok", "torch (native ones are switched off)")
    if state == "built":
        return Finding("operations", "ok", "native")
    if state == "unbuilt":
        fix = f"aios models pull {settings.model}"
        return Finding("operations", "warn", "native, but the first start builds them, half a minute", fix)
    return Finding("operations", "warn", "torch, more slowly: there is no C++ compiler", nativestate.REMEDY)


def _only_endpoints(settings: config.Settings) -> str:
    """Name the endpoints where every model call goes to one; empty where an engine of ours is used."""
    if any(core.kind == "local" for core in settings.cores.values()):
        return ""
    return ", ".join(f"{name} ({core.url})" for name, core in settings.cores.items())


def bubblewrap() -> Finding:
    """Can the strongest sandbox level be reached?"""
    found = shutil.which("bwrap")
    if found:
        return Finding("sandbox: bubblewrap", "ok", found)
    return Finding("sandbox: bubblewrap", "warn", "not found", "install the package bubblewrap for sandbox level S3")


def landlock() -> Finding:
    """Does this Linux have Landlock?"""
    version = _landlock_version()
    if version > 0:
        return Finding("sandbox: landlock", "ok", f"ABI {version}")
    return Finding("sandbox: landlock", "warn", "not available", "use Linux 5.13 or newer with Landlock switched on")


def seccomp() -> Finding:
    """Does this Linux have seccomp filters?"""
    status = Path("/proc/self/status")
    if status.exists() and "Seccomp_filters:" in status.read_text():
        return Finding("sandbox: seccomp", "ok", "filters")
    return Finding("sandbox: seccomp", "warn", "not available", "use Linux 5.10 or newer with seccomp filters")


def kernels() -> Finding:
    """Which kernels live?"""
    names = [f"{found.name} (pid {found.pid})" for found in rundir.living()]
    return Finding("kernels", "ok", ", ".join(names) or "none alive")


def endpoint(name: str, core: config.CoreSettings) -> Finding:
    """Is there somebody at a remote core's address, and is its key set? (Nothing is asked: that may cost money.)"""
    what = f"core: {name}"
    if core.key and not os.environ.get(core.key):
        return Finding(what, "warn", f"{core.key} is not set", f"put the key of {core.url} into {core.key}")
    address = urlsplit(core.url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_S).close()
    except OSError as error:
        return Finding(what, "warn", f"{core.url}: {error}", "start it, or take it out of [cores]")
    return Finding(what, "ok", f"{core.url} takes connections, serves {', '.join((core.model, *core.aliases))}")


def kernel_cores(kernel: str) -> Iterator[Finding]:
    """Are the cores of a living kernel up?"""
    try:
        found = wire.connect(kernel).ask("kernel.info")["cores"]
    except AiosError as error:
        yield Finding(f"kernel {kernel}", "warn", str(error), "look at its log, or end it")
        return
    for core in found:
        is_well = core["is_up"] and not core["reason"]
        fix = "" if is_well else "look at the server behind it; calls go to other cores that serve the model"
        yield Finding(f"kernel {kernel}", "ok" if is_well else "warn", core_line(core), fix)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _landlock_version() -> int:
    """Ask the system; 0 where there is no such call."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)))


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.status:<4} {finding.name:<{width}}  {finding.found}")
        if finding.fix:
            print(f"{'':<4} {'':<{width}}  → {finding.fix}")
