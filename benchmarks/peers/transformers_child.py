"""The child of `transformers_peer`. Only whole batches can be asked for: it has no step to time.

.venv-oracle/bin/python -m benchmarks.peers.transformers_child MODEL.gguf THREADS
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.common import BenchmarkError
from benchmarks.peers.protocol import obey, prompt

_PAGE_TOKENS = 32


class Batches:
    """A model that obeys `batch`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def act(self, what: str, rows: int, context: int, tokens: int) -> float:
        """Do one command."""
        if what != "batch":
            raise BenchmarkError(f"transformers knows 'batch', not '{what}'")
        pages = rows * -(-(context + tokens) // _PAGE_TOKENS) + 1
        memory = ContinuousBatchingConfig(page_size=_PAGE_TOKENS, num_blocks=pages, max_batch_tokens=256)
        chosen = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=-1)
        prompts = [prompt(context, row) for row in range(rows)]
        began = time.perf_counter()
        found = self._model.generate_batch(prompts, generation_config=chosen, continuous_batching_config=memory)
        seconds = time.perf_counter() - began
        assert [len(one.generated_tokens) for one in found.values()] == [tokens] * rows, "transformers stopped early"
        return seconds


def main() -> None:
    """Load the model and obey."""
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    began = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    obey(
        Batches(model).act,
        load_s=time.perf_counter() - began,
        version=transformers.__version__,
        dtype="float32",
    )


if __name__ == "__main__":
    main()
