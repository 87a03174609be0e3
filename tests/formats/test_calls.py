"""Laws of the tool-call text: one spelling, and a parser that does not care how the bytes were cut."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.chat import ToolCall
from aios.formats.arguments import MAX_DEPTH
from aios.formats.calls import CallParser, Place, parse, render_call, render_output

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["<tool_call>", "</tool_call>", '"}\n', "\\u0041", "\ud7ff", "😀", "\x00\x1f\x7f"])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
CALLS = st.builds(
    lambda name, arguments: ToolCall(id="", name=name, arguments=arguments),
    NAMES,
    st.dictionaries(TEXT, JSON, max_size=4),
)


def state(parser: CallParser) -> tuple[Any, ...]:
    """Everything that a parser shows."""
    return (
        parser.place,
        parser.text,
        parser.calls,
        parser.error,
        parser.tool,
        dict(parser.arguments),
        parser.path,
        parser.key,
        parser.value,
        parser.held,
        parser.done,
    )


def fed(*chunks: bytes) -> CallParser:
    parser = CallParser()
    for chunk in chunks:
        parser.feed(chunk)
    return parser


def call(arguments: str, name: str = "pay") -> str:
    """Spell a call by hand."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.text(st.characters(codec="utf-8", exclude_characters="<")), st.lists(CALLS, max_size=3))
def test_what_is_rendered_is_read_back(text: str, calls: list[ToolCall]) -> None:
    parser = parse(render_output(text, calls))
    assert parser.error is None
    assert parser.text == text
    assert [(one.name, one.arguments) for one in parser.calls] == [(one.name, one.arguments) for one in calls]
    assert [one.id for one in parser.calls] == [f"call_{number}" for number in range(len(calls))]
    assert json.dumps([one.arguments for one in parser.calls]) == json.dumps([one.arguments for one in calls])


PIECES = st.sampled_from(
    [
        *(
            "<tool_call>",
            "\n",
            '{"name": "',
            "pay",
            '", "arguments": {',
            '"a"',
            ": ",
            "1",
            "-0.5e3",
            '"é\\u00e9"',
            ", ",
        ),
        *(
            "}",
            "}\n</tool_call>",
            "[",
            "]",
            "true",
            "nul",
            "<",
            "<tool_",
            " ",
            "\\",
            '"',
            call("{}"),
            call('{"b": [1, {}]}'),
        ),
    ]
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(PIECES, max_size=14).map("".join) | CALLS.map(render_call), st.data())
def test_any_cut_of_a_text_leads_to_the_same_state(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)) | {0, len(raw)})
    in_pieces = fed(*(raw[start:end] for start, end in pairwise(cuts)))
    byte_by_byte = fed(*(bytes((byte,)) for byte in raw))
    assert state(in_pieces) == state(fed(raw)) == state(byte_by_byte)
    for parser in (in_pieces, byte_by_byte):
        parser.close()
    assert state(in_pieces) == state(byte_by_byte) == state(parse(raw))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(CALLS, CALLS, st.integers(0, 200))
def test_a_fork_goes_its_own_way(first: ToolCall, second: ToolCall, cut: int) -> None:
    raw = render_call(first).encode()
    parser = fed(raw[:cut])
    before, twin = state(parser), parser.fork()
    twin.feed(raw[cut:] + b"\n" + render_call(second).encode())
    assert state(parser) == before
    assert [one.name for one in twin.calls] == [first.name, second.name]
    parser.feed(raw[cut:])
    assert state(parser) == state(fed(raw))


def test_the_parser_says_where_a_text_stands() -> None:
    steps: list[tuple[bytes, Place, tuple[str | int, ...], bytes]] = [
        (b"Let me see.", Place.TEXT, (), b""),
        (b"<tool", Place.TAG, (), b""),
        (b"_call>", Place.HEAD, (), b""),
        (b'\n{"name": "', Place.NAME, (), b""),
        (b"get_or", Place.NAME, (), b""),
        (b'der"', Place.BETWEEN, (), b""),
        (b', "arguments": ', Place.KEY, (), b""),
        (b"{", Place.KEY, (), b""),
        (b'"ord', Place.KEY, (), b""),
        (b'er": ', Place.VALUE, ("order",), b""),
        (b'"#W', Place.VALUE, ("order",), b'"#W'),
        (b'1"', Place.CLOSED, ("order",), b'"#W1"'),
        (b", ", Place.KEY, (), b'"#W1"'),
        (b'"items": [{"id": 7', Place.VALUE, ("items", 0, "id"), b'[{"id": 7'),
        (b"}, 12", Place.VALUE, ("items", 1), b'[{"id": 7}, 12'),
        (b"]", Place.CLOSED, ("items",), b'[{"id": 7}, 12]'),
        (b"}", Place.TAIL, (), b'[{"id": 7}, 12]'),
        (b"}\n</tool_call", Place.TAIL, (), b'[{"id": 7}, 12]'),
        (b">", Place.AFTER, (), b""),
        (b"\n", Place.TAG, (), b""),
        (b"\n", Place.TEXT, (), b""),
    ]
    parser = CallParser()
    for data, place, path, value in steps:
        parser.feed(data)
        assert (parser.place, parser.path, parser.value) == (place, path, value), data
        assert parser.tool == ("get_order" if parser.in_call and place not in (Place.HEAD, Place.NAME) else None)
    assert parser.text == "Let me see.\n\n"
    assert parser.calls[0].arguments == {"order": "#W1", "items": [{"id": 7}, 12]}


def test_arguments_are_decided_one_by_one() -> None:
    parser = fed(call('{"a": 1, "b": "x').removesuffix("}\n</tool_call>").encode())
    assert parser.arguments == {"a": 1}
    assert parser.reader is not None
    assert parser.reader.leaf == b'"x'
    assert parser.key == b'"b"'


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": 1, "\\u0061": 2}', "stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "stands twice"),
        ('{"a":1}', "': '"),
        ('{"a": 1,"b": 2}', "one space"),
        ('{ "a": 1}', "key"),
        ('{"a": 01}', "number"),
        ('{"a": 1.}', "number"),
        ('{"a": 1e400}', "range"),
        ('{"a": NaN}', "value"),
        ('{"a": tru}', "true"),
        ('{"a": "\\x"}', "escape"),
        ('{"a": "\n"}', "control"),
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"a": [1, ]}', "value"),
        ('{"a": 1, }', "key"),
        ("[1]", "object"),
        ("null", "object"),
        ('{"a": ' + "[" * (MAX_DEPTH + 1), "levels"),
        ('{"a": ' + "1" * 5000 + "}", "limit"),
    ],
)
def test_a_malformed_call_is_reported_with_its_place(arguments: str, what: str) -> None:
    parser = parse("before " + call("{}") + "\n" + call(arguments) + " after " + call("{}"))
    assert parser.place is Place.ERROR
    assert parser.error is not None
    assert "tool call 1 (pay)" in parser.error
    assert what in parser.error
    assert len(parser.calls) == 1
    assert parser.text == "before "


@pytest.mark.parametrize("name", ["", "1pay", "pay now", "pay\\u0041", "x" * 65, "é"])
def test_a_name_that_no_tool_can_have_is_an_error(name: str) -> None:
    error = parse(call("{}", name)).error
    assert error is not None
    assert "not a tool name" in error


def test_bytes_that_are_not_utf8_end_a_call_but_not_a_text() -> None:
    assert parse(b"\xff ok").text == "\N{REPLACEMENT CHARACTER} ok"
    for broken in (b'{"a": "\xff"}', b'{"\xff": 1}'):
        error = parse(call("@").encode().replace(b"@", broken)).error
        assert error is not None
        assert "utf-8" in error.lower()


def test_an_output_that_ends_inside_a_call_is_an_error_and_a_begun_tag_is_text() -> None:
    assert parse(call("{}")[:-1]).error == "tool call 0 (pay): the output ended inside the call"
    parser = parse("a <tool_cal")
    assert (parser.text, parser.error, parser.place) == ("a <tool_cal", None, Place.TEXT)


def test_what_json_cannot_say_is_not_rendered() -> None:
    for value in (float("nan"), float("inf"), "\ud800"):
        with pytest.raises(ValueError):
            render_call(ToolCall(id="", name="pay", arguments={"a": value}))
