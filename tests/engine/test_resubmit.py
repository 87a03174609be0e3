"""A generation whose last token is durable and whose reply is not: given again with all its tokens, it ends at once."""

from typing import Any

import pytest

from aios.abi.core import Finished, Submit
from tests.engine.test_grammar import TOOL
from tests.engine.tiny import EOS, one, rows_of, run, submit, tiny_engine

SCHEMA: dict[str, object] = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}

ENDINGS: dict[str, dict[str, Any]] = {
    "length": {"max_tokens": 5},
    "context_full": {"prompt": "x" * 9, "max_tokens": 50, "kv_pages": 3},
    "json": {"schema": SCHEMA, "max_tokens": 60},
    "call": {"tools": (TOOL,), "tool_choice": "required", "max_tokens": 90},
}


def again(generated: tuple[int, ...], **options: Any) -> Submit:
    return submit(generated=generated, **options)


@pytest.mark.parametrize("options", ENDINGS.values(), ids=ENDINGS)
def test_a_finished_generation_ends_at_once_with_the_same_answer(options: dict[str, Any]) -> None:
    first = one(run(tiny_engine(), submit(**options)), Finished).generation
    messages = run(tiny_engine(), again(first.tokens, **options))
    second = one(messages, Finished).generation
    assert rows_of(messages) == []
    assert (second.text, second.tokens, second.finish) == (first.text, first.tokens, first.finish)
    assert second.tool_calls == first.tool_calls
    assert second.parsed == first.parsed


def test_an_end_token_that_is_durable_is_the_end() -> None:
    messages = run(tiny_engine(), again((*b"so be it", EOS), ignore_eos=False, max_tokens=50))
    generation = one(messages, Finished).generation
    assert rows_of(messages) == []
    assert (generation.finish, generation.text, generation.tokens) == ("stop", "so be it", (*b"so be it", EOS))


def test_a_stop_string_that_is_durable_is_the_end() -> None:
    messages = run(tiny_engine(), again(tuple(b"so be it. And"), stop=("And",), max_tokens=50))
    generation = one(messages, Finished).generation
    assert rows_of(messages) == []
    assert (generation.finish, generation.text) == ("stop", "so be it. ")
