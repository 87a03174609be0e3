"""The examples of docs/rules.md are rule files that compile and do what the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

from aios.guard.judging.gate import compile_rules
from aios.guard.language.formulas import FUNCTIONS
from aios.guard.language.lexer import KEYWORDS
from tests.guard.scenes import Scene

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
BLOCKS = PAGE.split("```")[1::2]
EXAMPLES = [block for block in BLOCKS if block.startswith("\n")]
PROGRAMS = [block.removeprefix("python\n") for block in BLOCKS if block.startswith("python\n")]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_compile(number: int) -> None:
    compile_rules(EXAMPLES[number], complete=True)


def test_the_first_example_tells_what_is_missing() -> None:
    verdict = Scene(EXAMPLES[0]).judge("cancel_order", order_id="#W1", reason="no longer needed")
    assert verdict.rules == ("R2", "R3", "R4")
    assert [step.get("tool", "confirm") for step in verdict.plan or ()] == ["find_user", "get_order", "confirm"]


def test_the_second_example_knows_the_items_of_an_order() -> None:
    s = Scene(EXAMPLES[1])
    s.ok("read_order", {"items": [{"item_id": "a", "price": 1}, {"item_id": "b", "price": 2.5}]}, order_id="#W1")
    assert s.denied("swap", order_id="#W1", item_ids=["a", "b"], new_item_ids=["c", "d"]) == ()
    assert s.denied("swap", order_id="#W1", item_ids=["a", "x"], new_item_ids=["c", "d"]) == ("items",)
    assert s.denied("swap", order_id="#W1", item_ids=["a"], new_item_ids=["c", "d"]) == ("items",)
    assert s.denied("swap", order_id="#W2", item_ids=["a"], new_item_ids=["c"]) == ("items",)


def test_the_rules_written_in_python_deny_what_they_say() -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[0], names)
    book = names["book"]
    tools = """
tool find_user(email: Str) -> Id
tool get_order(order_id: Id) -> {user_id: Id}
tool cancel_order(order_id: Id)
tool pay(amount: Decimal(2), team: Str)
"""
    s = Scene(tools + book)
    assert s.denied("get_order", order_id="#W1") == ("first",)
    assert s.denied("cancel_order", order_id="#W1") == ("own",)
    assert s.denied("pay", amount=500.01, team="red") == ("spend",)
    assert names["agent"].rules == book


def test_the_grammar_page_and_the_lexer_know_the_same_words() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules-grammar.md").read_text(encoding="utf-8")
    grammar = page.split("```")[1]
    words = {word for text in re.findall(r'"([^"]*)"', grammar) for word in re.findall(r"[A-Za-z]\w*", text)}
    functions = re.search(r"FUNCTION is one of `([^`]*)`", page)
    assert functions is not None
    assert set(functions[1].split()) == FUNCTIONS
    assert words - {"V0", "V1", "V2"} == KEYWORDS
