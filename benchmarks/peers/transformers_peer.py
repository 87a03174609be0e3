"""transformers' continuous batching (`generate_batch`) as a peer, on the weights of the same GGUF file in float32.

It runs in the environment that `make oracle` makes (`transformers_child`).
"""

from pathlib import Path

from benchmarks.common import BenchmarkError
from benchmarks.peers.protocol import Peer

PYTHON = Path(__file__).resolve().parents[2] / ".venv-oracle" / "bin" / "python"


def peer(model: Path, threads: int) -> Peer:
    """Return transformers on the GGUF file `model`. Raises BenchmarkError when its environment is not there."""
    if not PYTHON.exists():
        raise BenchmarkError("transformers is not installed: `make oracle` makes its environment")
    return Peer("transformers", [str(PYTHON), "-m", "benchmarks.peers.transformers_child", str(model), str(threads)])
