"""Write what transformers says about tiny models of each family: logits along a prompt, for the tests.

`make oracle` runs it in an environment of its own (`.venv-oracle`) as `python -m scripts.oracle_families`.

Models and weights are those of `tests.engine.tiny_families`. Kept are, per case, the settings as transformers writes
them, the tensors' shapes, their names in GGUF files as the `gguf` package has them, and at every other token of the
prompt the largest logits. All is computed in float32 with plain attention.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers

from tests.engine import tiny_families as tiny

OUT = Path(__file__).resolve().parent.parent / "tests" / "engine" / "oracle" / "families.json"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""Of GGUF, by model type."""


def main() -> int:
    """Ask about every case and write the file."""
    facts: dict[str, Any] = {"transformers": transformers.__version__, "torch": torch.__version__}
    facts["cases"] = {case: reference(case) for case in tiny.CASES}
    OUT.write_text(json.dumps(facts, separators=(",", ":")).replace('"},"', '"},\n"') + "\n", encoding="utf-8")
    print(f"{OUT}: {len(tiny.CASES)} cases, {OUT.stat().st_size} bytes")
    return 0


@torch.inference_mode()
def reference(case: str) -> dict[str, Any]:
    """Build the model of a case and run its prompt."""
    wanted = tiny.settings(case)
    config = transformers.AutoConfig.for_model(**wanted)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if wanted["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    missing, unexpected = model.load_state_dict(tiny.weights(case, shapes), strict=False)
    model.tie_weights()
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"{case}: weights do not fit: {missing}, {unexpected}")
    logits = model.eval()(torch.tensor([tiny.prompt(case)])).logits[0]
    best = logits[1::2].topk(tiny.TOP)
    return {
        "config": config.to_diff_dict(),
        "shapes": {name: shape for name, shape in shapes.items() if is_first(name)},
        "gguf_names": gguf_names(wanted["model_type"], shapes),
        "ids": best.indices.tolist(),
        "logits": [[round(value, 5) for value in row] for row in best.values.tolist()],
    }


def is_first(name: str) -> bool:
    """Whether a tensor is of the first layer, or of no layer."""
    return not name.startswith("model.layers.") or name.startswith("model.layers.0.")


def gguf_names(model_type: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the names in GGUF files of the tensors of the first layer and of those of no layer."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[model_type])
    table = gguf.get_tensor_name_map(architecture, 1)
    return {name: table.get_name(name, (".weight", ".bias")) for name in shapes if is_first(name)}


if __name__ == "__main__":
    sys.exit(main())
