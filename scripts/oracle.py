"""Write what another implementation says about our two real models: greedy tokens and top logits, for the tests.

`make oracle` runs it in an environment of its own (`.venv-oracle`): the project itself does not use these packages.

transformers dequantises the same GGUF file to float32 and decodes greedily. For every step the chosen token and the
20 largest logits are kept, rounded to 1e-4; the file also names the versions and the model's SHA-256.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from aios.engine import modelstore

OUT = Path(__file__).resolve().parent.parent / "tests" / "engine" / "oracle"
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
LONG = (
    "A log of the harbour, kept by the night watch. "
    + " ".join(
        f"At {hour % 24}:{7 * hour % 60:02} ship {hour} came in with {3 * hour + 1} crates." for hour in range(40)
    )
    + " At"
)
"""Longer than Gemma's window of 512 tokens."""


class Questions(NamedTuple):
    """What a model is asked, and where the answers go."""

    file: str
    texts: tuple[str, ...]
    chats: tuple[list[dict[str, str]], ...]
    steps: int
    begins: bool
    """Whether texts begin with the model's first token: chats do so by their template."""


QUESTIONS = {
    "smollm2-135m": Questions("smollm2.json", TEXTS, CHATS, steps=32, begins=False),
    "gemma3-270m": Questions("gemma3.json", (*TEXTS[:2], *TEXTS[3:5], LONG), (), steps=12, begins=True),
}


def main() -> int:
    """Decode all prompts and write the file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="smollm2-135m", choices=QUESTIONS)
    chosen = arguments.parse_args()
    asked, stored = QUESTIONS[chosen.model], modelstore.find(chosen.model)
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(stored.path.parent), "gguf_file": stored.path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    first = [tokenizer.bos_token_id] if asked.begins else []
    prompts: list[dict[str, Any]] = [{"text": text, "ids": first + text_ids(tokenizer, text)} for text in asked.texts]
    prompts += [{"chat": chat, "ids": chat_ids(tokenizer, chat)} for chat in asked.chats]
    facts = {
        "model_sha256": stored.sha256,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "prompts": [prompt | greedy(model, prompt["ids"], asked.steps) for prompt in prompts],
    }
    out = OUT / asked.file
    out.write_text(json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{out}: {len(prompts)} prompts, {out.stat().st_size} bytes")
    return 0


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a plain text."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def chat_ids(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    """Return the ids that the template gives, ready for the assistant's answer."""
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return text_ids(tokenizer, text)


@torch.inference_mode()
def greedy(model: Any, ids: list[int], count: int) -> dict[str, Any]:
    """Decode `count` tokens, past any end token, recomputing nothing."""
    fed, cache, steps = torch.tensor([ids]), None, []
    for _ in range(count):
        out = model(fed, past_key_values=cache, use_cache=True)
        cache, best = out.past_key_values, out.logits[0, -1].topk(TOP)
        steps.append([best.indices.tolist(), [round(value, 4) for value in best.values.tolist()]])
        fed = best.indices[:1].view(1, 1)
    return {"tokens": [step[0][0] for step in steps], "top": steps}


if __name__ == "__main__":
    sys.exit(main())
