"""Make the virtual environment and install the project into it, saying beforehand how much that is.

Runs on the system's Python (3.11 or newer) with nothing installed. `--torch cpu` takes torch from its CPU index, which
spares several GB on a machine without a GPU; otherwise the version in constraints.txt comes from the usual index.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDED_GB = 4


def main() -> int:
    """Install; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--torch", choices=["", "cpu"], default="", help="cpu: a build without CUDA")
    options = parser.parse_args()
    if sys.version_info < (3, 11):
        print(
            f"aios needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.12 …",
            file=sys.stderr,
        )
        return 2
    check_disk(options.venv)
    started = time.monotonic()
    announce(options.torch)
    python = make_venv(options.venv)
    if options.torch == "cpu":
        pip(python, torch_pin(), "--index-url", CPU_INDEX)
    pip(python, "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[dev]")
    # Else the first start of a kernel would wait for it.
    subprocess.run([str(python), "-m", "aios_kernels.native.build"], check=False)
    print(f"installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def announce(torch: str) -> None:
    """Say what will be fetched before it is fetched."""
    size = (
        "about 0.8 GB to download, 3 GB on disk"
        if torch == "cpu"
        else (
            "about 0.8 GB to download and 3 GB on disk where torch is a CPU build, "
            "about 3.5 GB and 8 GB with CUDA (no GPU? make TORCH=cpu …)"
        )
    )
    print(f"installing into a new environment: {size}; two minutes on a quick line", flush=True)


def check_disk(venv: Path) -> None:
    """Stop early when the disk is too small."""
    free_gb = shutil.disk_usage(venv.absolute().parent).free / 1e9
    if free_gb < NEEDED_GB:
        sys.exit(f"installing needs {NEEDED_GB} GB free beside {venv.absolute()}, found {free_gb:.1f} GB")


def make_venv(venv: Path) -> Path:
    """Create the environment if it is missing; return its Python."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    return python


def torch_pin() -> str:
    """Return the torch line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def pip(python: Path, *arguments: str) -> None:
    """Run pip install, quietly; its errors are shown and end the script."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"pip install {' '.join(arguments)} failed; see above")


if __name__ == "__main__":
    sys.exit(main())
