"""Chat templates: from messages to text, by the model file's own template, under limits.

A template comes with a model file and is not trusted. It runs in minijinja without access to Python objects and with
fuel, so an endless loop ends as a ModelError. Fuel does not count memory, so a template that we have not read
ourselves runs in a child process with limited memory (`template_worker`), which may die without harm.
Knows nothing of tokens; which pieces of the text may become special tokens is the tokenizer's business.
"""

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import minijinja

from aios.engine.template_worker import Renderer, Worker, plain, render_here
from aios.errors import ModelError

MAX_TEMPLATE = 1 << 18
"""Characters; the longest in use have about 2^14."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Gemma knows two roles; what is neither is said by the user."""

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

_USUAL = {"<|im_start|>": CHATML, "<start_of_turn>": GEMMA, "<|start_header_id|>": LLAMA3}

READ = frozenset({"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"})
"""SHA-256 of templates that we have read: they run in this process. (SmolLM2's)"""


def usual_template(tokens: Iterable[str]) -> str:
    """Return the template for a vocabulary whose file brings none: that of the family whose marker is a token."""
    markers = _USUAL.keys() & set(tokens)
    return next((template for marker, template in _USUAL.items() if marker in markers), CHATML)


class ChatTemplate:
    """A template that compiles."""

    def __init__(self, source: str = CHATML, *, bos: str = "", eos: str = "", day: datetime.date | None = None) -> None:
        """`day`: what it may write for today, the same as long as it lives; by default the day on which it is made."""
        if len(source) > MAX_TEMPLATE:
            raise ModelError(f"chat template: {len(source)} characters; the limit is {MAX_TEMPLATE}")
        try:
            minijinja.Environment(trim_blocks=True, lstrip_blocks=True).add_template("chat", plain(source))
        except minijinja.TemplateError as error:
            raise ModelError(f"chat template: it does not compile: {error}") from error
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._day = (day or datetime.date.today()).isoformat()
        self._renderer: Renderer = render_here if self._is_read() else Worker().render

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        generate: bool = True,
    ) -> str:
        """Return the text of the conversation; with `generate` it ends where the assistant begins to speak.

        `tools` and the calls in `messages` are as in OpenAI's chat interface, arguments as objects.
        """
        facts = {"messages": list(messages), "tools": list(tools) or None, "add_generation_prompt": generate}
        return self._renderer(self.source, facts | self._tokens, self._day)

    def _is_read(self) -> bool:
        return self.source in _USUAL.values() or hashlib.sha256(self.source.encode()).hexdigest() in READ
