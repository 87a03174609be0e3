"""llama.cpp's own server, built once from the same source package as the `llama-cpp` peer; run on a free port.

Only `make compat` needs it. The build takes some twenty minutes on two cores and lies in the user's cache folder.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from benchmarks.common import BenchmarkError
from benchmarks.peers import llama_cpp

_OPTIONS = (
    "-GNinja",
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "UI")),
    *(f"-DLLAMA_BUILD_{part}=ON" for part in ("COMMON", "TOOLS", "SERVER")),
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
_START_S = 120.0


@contextmanager
def serving(model: Path, *, threads: int, slots: int) -> Iterator[str]:
    """Serve the GGUF file while the block runs; yield the URL. Raises BenchmarkError."""
    binary = _built()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--jinja"]
    command += ["--chat-template-file", str(_template())]
    command += ["--threads", str(threads), "--parallel", str(slots), "--ctx-size", str(2048 * slots)]
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(binary.parent)}
    with subprocess.Popen(command, env=libraries, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise BenchmarkError("llama-server did not come up")


def _template() -> Path:
    """A ChatML template, as SmolLM2's, but with a section for tools: where there is none the server ignores them."""
    templates = llama_cpp.source_in(_folder()) / "models" / "templates"
    return templates / "Qwen-Qwen2.5-7B-Instruct.jinja"


def _folder() -> Path:
    return user_cache_path("aios") / "peers" / f"llama_cpp_python-{llama_cpp.VERSION}"


def _built() -> Path:
    folder = _folder()
    build = folder / "build-server"
    binary = build / "bin" / "llama-server"
    if not binary.exists():
        print(f"  building llama-server in {build}, once …", file=sys.stderr, flush=True)
        source = llama_cpp.source_in(folder)
        llama_cpp.run_quietly("cmake", "-S", str(source), "-B", str(build), *_OPTIONS)
        llama_cpp.run_quietly("ninja", "-C", str(build), "llama-server")
    return binary
