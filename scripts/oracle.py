"""Write what another implementation says about the default model: greedy tokens and top logits, for the tests.

`make oracle` runs it in an environment of its own (`.venv-oracle`): the project itself does not use these packages.

transformers dequantises the same GGUF file to float32 and decodes greedily. For every step the chosen token and the
20 largest logits are kept, rounded to 1e-4; the file also names the versions and the model's SHA-256.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from aios.engine import modelstore

OUT = Path(__file__).resolve().parent.parent / "tests" / "engine" / "oracle" / "smollm2.json"
STEPS = 32
TOP = 20

TEXTS = (
    "The capital of France is",
    "def fibonacci(n: int) -> int:\n    ",
    "SELECT name, count(*) FROM orders WHERE",
    "Ünïcödé: 東京 is the capital of 日本, and Москва of",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    '{"name": "Ada", "born": 1815, "fields": ["',
    "   \n\n\tIndented\n\n\n    Once upon a time",
)
CHATS = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Why is the sky blue? 🌤"},
    ],
    [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "Write a Python function that reverses a list."},
    ],
)


def main() -> int:
    """Decode all prompts and write the file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="smollm2-135m")
    arguments.add_argument("--out", type=Path, default=OUT)
    chosen = arguments.parse_args()
    stored = modelstore.find(chosen.model)
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(stored.path.parent), "gguf_file": stored.path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    prompts = [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in TEXTS]
    prompts += [{"chat": chat, "ids": chat_ids(tokenizer, chat)} for chat in CHATS]
    facts = {
        "model_sha256": stored.sha256,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "prompts": [prompt | greedy(model, prompt["ids"]) for prompt in prompts],
    }
    chosen.out.write_text(json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{chosen.out}: {len(prompts)} prompts, {chosen.out.stat().st_size} bytes")
    return 0


def chat_ids(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    """Return the ids that the template gives, ready for the assistant's answer."""
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.inference_mode()
def greedy(model: Any, ids: list[int]) -> dict[str, Any]:
    """Decode `STEPS` tokens, past any end token, recomputing nothing."""
    fed, cache, steps = torch.tensor([ids]), None, []
    for _ in range(STEPS):
        out = model(fed, past_key_values=cache, use_cache=True)
        cache, best = out.past_key_values, out.logits[0, -1].topk(TOP)
        steps.append([best.indices.tolist(), [round(value, 4) for value in best.values.tolist()]])
        fed = best.indices[:1].view(1, 1)
    return {"tokens": [step[0][0] for step in steps], "top": steps}


if __name__ == "__main__":
    sys.exit(main())
