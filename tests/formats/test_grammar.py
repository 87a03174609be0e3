"""The grammar lets through exactly the outputs that it should, judged by the real llguidance over bytes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from aios.abi.chat import ToolCall
from aios.abi.tools import ToolSpec
from aios.formats.calls import parse, render_call, render_output
from aios.formats.grammar import generation_grammar
from aios.formats.schemas import clean

BYTES = LLTokenizer("byte")


def tool(name: str, *required: str, **properties: Any) -> ToolSpec:
    return ToolSpec(
        name=name, parameters={"type": "object", "properties": properties, "required": list(required or properties)}
    )


ORDER = tool("get_order", order_id={"type": "string", "pattern": "^#W[0-9]+$"})
PAY = tool(
    "pay",
    "amount",
    amount={"type": "integer", "minimum": 1},
    note={"type": "string"},
    tags={"type": "array", "items": {"enum": ["a", "b"]}},
)
NOW = ToolSpec(name="get_order.now")
TOOLS = (ORDER, PAY, NOW)


def accepts(grammar: str | None, text: str) -> bool:
    """Whether `text` is a complete output."""
    assert grammar is not None
    matcher = LLMatcher(BYTES, grammar)
    assert not matcher.get_error(), matcher.get_error()
    tokens = list(text.encode())
    return bool(
        matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()
    )


def spell(name: str, arguments: dict[str, Any]) -> str:
    return render_call(ToolCall(id="", name=name, arguments=arguments))


GOOD = (
    spell("get_order", {"order_id": "#W12"}),
    spell("pay", {"amount": 3}),
    spell("pay", {"amount": 3, "note": 'é "x"\n', "tags": ["a", "b"]}),
    spell("get_order.now", {}),
)
BAD = (
    spell("get_order", {"order_id": "W12"}),
    spell("get_order", {}),
    spell("get_order", {"order_id": "#W1", "more": 1}),
    spell("pay", {"amount": 0}),
    spell("pay", {"amount": 1.5}),
    spell("pay", {"amount": 1, "tags": ["c"]}),
    spell("refund", {"amount": 3}),
    spell("get_order.now", {"a": 1}),
    spell("pay", {"amount": 3}).replace(": 3", ":3"),
    spell("pay", {"amount": 3}).replace("}}", "} }"),
    spell("pay", {"amount": 3})[:-1],
)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_calls_that_fit_their_schema_are_let_through_and_others_are_not(choice: str) -> None:
    grammar = generation_grammar(TOOLS, choice)
    for call in GOOD:
        assert accepts(grammar, call), call
        assert accepts(grammar, f"{call}\n{GOOD[1]}"), call
    for call in BAD:
        assert not accepts(grammar, call), call
        assert not accepts(grammar, f"{GOOD[1]}\n{call}"), call


def test_auto_allows_text_first_but_no_half_call_in_it() -> None:
    grammar = generation_grammar(TOOLS, "auto")
    for text in ("", "Hello.\n<b>", "a <tool_cal", f"One moment.\n{GOOD[0]}", f"{GOOD[0]}\n{GOOD[1]}"):
        assert accepts(grammar, text), text
    for text in ("see <tool_call> there", f"{GOOD[0]} and on", f"{GOOD[0]}{GOOD[1]}", f"x {BAD[0]}"):
        assert not accepts(grammar, text), text


def test_required_allows_no_text() -> None:
    grammar = generation_grammar(TOOLS, "required")
    assert not accepts(grammar, "")
    assert not accepts(grammar, f"Sure. {GOOD[0]}")


def test_a_named_choice_is_one_call_of_that_tool() -> None:
    grammar = generation_grammar(TOOLS, "pay")
    assert accepts(grammar, GOOD[1])
    assert not accepts(grammar, GOOD[0])
    assert not accepts(grammar, f"{GOOD[1]}\n{GOOD[1]}")


def test_an_output_schema_allows_that_json_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a"]}
    grammar = generation_grammar(TOOLS, "auto", schema)
    assert accepts(grammar, '{"a": 1, "b": true}')
    for text in ('{"a":1}', '{"a": 1} ', 'x{"a": 1}', GOOD[0], "{}", '{"a": 1, "c": 2}'):
        assert not accepts(grammar, text), text


def test_where_anything_goes_there_is_no_grammar() -> None:
    assert generation_grammar(TOOLS, "none") is None
    assert generation_grammar((), "auto") is None


@pytest.mark.parametrize(
    ("tools", "choice", "says"),
    [(TOOLS, "refund", "no such tool is offered"), ((), "required", "no tool offered"), ((), "pay", "no tool offered")],
)
def test_a_choice_that_no_tool_fits_is_an_error(tools: tuple[ToolSpec, ...], choice: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generation_grammar(tools, choice)


ARGUMENTS = st.fixed_dictionaries(
    {"amount": st.integers(1, 10**30)},
    optional={"note": st.text(st.characters(codec="utf-8")), "tags": st.lists(st.sampled_from("ab"), max_size=3)},
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_whatever_is_rendered_within_a_schema_is_let_through_and_read_back(arguments: list[dict[str, Any]]) -> None:
    ordered = [{key: one[key] for key in ("amount", "note", "tags") if key in one} for one in arguments]
    calls = [ToolCall(id=f"call_{number}", name="pay", arguments=one) for number, one in enumerate(ordered)]
    output = render_output("", calls)
    assert accepts(generation_grammar(TOOLS, "required"), output)
    assert list(parse(output).calls) == calls


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"not": {}}, "#/properties/x/not"),
        ({"type": "str"}, "#/properties/x/type"),
        ({"type": "array", "items": {"pattern": "(?=a)"}}, "#/properties/x/items/pattern"),
        ({"pattern": "["}, "#/properties/x/pattern"),
        ({"pattern": "(a)\\1"}, "#/properties/x/pattern"),
        ({"uniqueItems": True}, "#/properties/x/uniqueItems"),
        ({"$ref": "https://example.org/s"}, "#/properties/x/\\$ref"),
        ({"anyOf": [{"type": "string"}, {"if": {}}]}, "#/properties/x/anyOf/1/if"),
        ({"anyOf": {}}, "#/properties/x/anyOf"),
        ({"properties": 3}, "#/properties/x/properties"),
        (7, "#/properties/x"),
    ],
)
def test_a_schema_that_cannot_be_a_grammar_is_refused_with_tool_and_path(schema: Any, path: str) -> None:
    with pytest.raises(ValueError, match=f"tool 'odd'.*{path}"):
        generation_grammar((ORDER, tool("odd", x=schema)), "auto")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"title": "T", "default": 1, "x-ui": 1, "type": "integer", "format": "int64"}, [1, -5], ["1", 1.5]),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, [1, 2.5], ["x"]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["x", None], [1]),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, [3], [2]),
        ({"type": "object", "properties": {"a": {"const": 1}}}, [{}, {"a": 1}], [{"a": 2}, {"b": 1}]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"é": 1}, {}], [{"a": "x"}]),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
            [[1, "a"]],
            [["a"]],
        ),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["tomorrow"]),
        ({"enum": [1, "a", None]}, [1, "a", None], [2, "b"]),
        (True, [1, "x", None, [1, {"a": 2}]], []),
    ],
)
def test_kept_keywords_bind(schema: Any, good: list[Any], bad: list[Any]) -> None:
    grammar = generation_grammar((tool("t", x=schema),), "t")
    for value in good:
        assert accepts(grammar, spell("t", {"x": value})), value
    for value in bad:
        assert not accepts(grammar, spell("t", {"x": value})), value


def test_a_local_reference_may_be_recursive() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    spec = ToolSpec(
        name="walk",
        parameters={"type": "object", "properties": {"at": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}},
    )
    grammar = generation_grammar((spec,), "walk")
    assert accepts(grammar, spell("walk", {"at": {"next": {"next": {}}}}))
    assert not accepts(grammar, spell("walk", {"at": {"next": 1}}))


def test_arguments_are_always_an_object() -> None:
    with pytest.raises(ValueError, match=r"tool 't'.*#/type"):
        generation_grammar((ToolSpec(name="t", parameters={"type": "array"}),), "t")


def test_cleaning_changes_nothing_in_place_and_twice_is_once() -> None:
    schema = {"title": "T", "type": "object", "properties": {"a": {"type": "string", "format": "odd"}}}
    before = json.dumps(schema)
    once = clean(schema, "it")
    assert json.dumps(schema) == before
    assert clean(once, "it") == once
    assert once == {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
