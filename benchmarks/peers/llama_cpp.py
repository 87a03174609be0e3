"""llama.cpp, built once from the source package of llama-cpp-python: `libllama` and our driver, nothing else.

The build takes some ten minutes on two cores and lies in the user's cache folder.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

from platformdirs import user_cache_path

from benchmarks.common import BenchmarkError
from benchmarks.peers.protocol import Peer

VERSION = "0.3.36"
"""Of the source package, which carries the llama.cpp of its day."""
_DRIVER = Path(__file__).with_name("llama_driver.cpp")
_PACKAGE = f"llama_cpp_python-{VERSION}"
_OPTIONS = (
    "-GNinja",
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "TOOLS", "EXAMPLES", "SERVER", "COMMON")),
)


def peer(model: Path, threads: int) -> Peer:
    """Return llama.cpp on the GGUF file `model`. Raises BenchmarkError when it cannot be built."""
    return Peer("llama-cpp", [str(_built()), str(model), str(threads)])


def _built() -> Path:
    folder = user_cache_path("aios") / "peers" / _PACKAGE
    driver = folder / "llama_driver"
    if not (folder / "build" / "bin" / "libllama.so").exists():
        _build_library(folder)
    if not driver.exists() or driver.stat().st_mtime < _DRIVER.stat().st_mtime:
        _build_driver(folder, driver)
    return driver


def _build_library(folder: Path) -> None:
    print(f"  building libllama in {folder}, once …", file=sys.stderr, flush=True)
    run_quietly("cmake", "-S", str(source_in(folder)), "-B", str(folder / "build"), *_OPTIONS)
    run_quietly("ninja", "-C", str(folder / "build"), "llama")


def _build_driver(folder: Path, driver: Path) -> None:
    source, libraries = source_in(folder), folder / "build" / "bin"
    headers = (f"-I{source / 'include'}", f"-I{source / 'ggml' / 'include'}")
    linking = (f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}")
    run_quietly("g++", "-O2", "-std=c++17", *headers, str(_DRIVER), *linking, "-o", str(driver))


def source_in(folder: Path) -> Path:
    """Return llama.cpp's source under `folder`, fetched when it is not there. Raises BenchmarkError."""
    source = folder / _PACKAGE / "vendor" / "llama.cpp"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", "-d", str(folder))
        run_quietly(*pip, f"llama-cpp-python=={VERSION}")
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return source


def run_quietly(*command: str) -> None:
    """Run a step of a build. Raises BenchmarkError with the last line that it said."""
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise BenchmarkError(f"{command[0]} cannot be run: {error}") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:]
        raise BenchmarkError(f"{command[0]} failed with status {error.returncode}: {last}") from error
