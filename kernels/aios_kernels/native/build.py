"""Making the library of this package's C++ sources, once per processor, compiler and state of the sources.

The library is a file whose name holds a digest of all that it depends on. It is made under another
name, tried in a process of its own and renamed, so several processes may do this at once and none loads half a file
or one that crashes. `python -m aios_kernels.native.build` makes it ahead of its first use.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    # which products are fused is written in the sources, or results would differ between loops
    "-ffp-contract=off",
    "-fno-math-errno",
    # else GCC moves all products of a group before their sums and spills them, at two thirds of the speed
    "-fno-tree-ter",
    "-fPIC",
    "-shared",
    "-pthread",
)
TIMEOUT_S = 120.0
REMEDY = "install one (Debian, Ubuntu: g++; Fedora: gcc-c++), the next start uses it"
"""What to do where there is no compiler."""

_SOURCES = Path(__file__).parent
_log = logging.getLogger(__name__)


def built(folder: Path) -> Path | None:
    """Return the library, made now if it is not there; None, with one line logged, if it cannot be.

    It lies beside the compiled Python files of this package, or in `folder` where nobody may write there.
    """
    compiler = find_compiler()
    if compiler is None:
        _log.info("native operations are off: no C++ compiler (%s) was found", ", ".join(COMPILERS))
        return None
    try:
        library = _library(folder, compiler)
        return library if library.is_file() else _build(compiler, library)
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("native operations are off: %s", _reason(error))
        return None


def is_built(folder: Path) -> bool:
    """Whether `built` will find the library and make nothing."""
    compiler = find_compiler()
    return compiler is not None and _library(folder, compiler).is_file()


def prepared(folder: Path) -> str:
    """Make the library if it is not there and can be made; say in a sentence what runs from now on."""
    if find_compiler() is None:
        return f"native operations: no C++ compiler ({', '.join(COMPILERS)}), torch computes, more slowly; {REMEDY}"
    if is_built(folder):
        return "native operations: there already"
    began = time.monotonic()
    if built(folder) is None:
        return "native operations: they could not be built, torch computes, more slowly"
    return f"native operations: built in {time.monotonic() - began:.0f} s"


def find_compiler() -> Path | None:
    """Return the C++ compiler: the environment's CXX, or the first of the usual names."""
    for name in filter(None, (os.environ.get("CXX"), *COMPILERS)):
        if found := shutil.which(name):
            return Path(found).resolve()
    return None


def digest(compiler: Path) -> str:
    """Name everything that the library depends on."""
    state = compiler.stat()
    parts = [str(compiler), str(state.st_size), str(state.st_mtime_ns), *FLAGS, _processor()]
    hashed = hashlib.sha256("\0".join(parts).encode())
    for source in sources():
        hashed.update(source.name.encode() + b"\0" + source.read_bytes())
    return hashed.hexdigest()[:24]


def sources() -> list[Path]:
    """Return the C++ files."""
    return sorted(path for path in _SOURCES.iterdir() if path.suffix in (".cpp", ".h"))


def _library(folder: Path, compiler: Path) -> Path:
    return _place(folder) / f"aios-native-{digest(compiler)}.so"


def _place(folder: Path) -> Path:
    beside = _SOURCES / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
    except OSError:
        return folder
    return beside if os.access(beside, os.W_OK) else folder


def _build(compiler: Path, library: Path) -> Path:
    library.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".native-", suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        _run([str(compiler), *FLAGS, str(_SOURCES / "decoder.cpp"), "-o", name])
        _run([sys.executable, "-m", "aios_kernels.native.check", name])
        os.replace(name, library)
    finally:
        Path(name).unlink(missing_ok=True)
    _log.info("native operations were built: %s", library)
    return library


def _run(command: list[str]) -> None:
    roots = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()] or error.stderr.splitlines()
        return f"{Path(error.cmd[0]).name} ended with {error.returncode}: {lines[0] if lines else 'without a word'}"
    return str(error)


def _processor() -> str:
    """Name the processor and what it can do, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def main() -> int:
    """Make the library and print what came of it; 0 also where it cannot be made, as torch computes then."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(prepared(Path(tempfile.gettempdir())), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
