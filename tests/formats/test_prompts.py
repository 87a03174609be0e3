"""Prompts for a template without tools: what the model reads, and what nobody can forge."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.chat import Message, ToolCall
from aios.abi.tools import ToolSpec
from aios.formats.calls import parse
from aios.formats.prompts import describe_tools, example_call, to_plain_messages

GET = ToolSpec(
    name="get_order",
    description="Read an order.\nNever changes it.",
    parameters={
        "type": "object",
        "properties": {"order_id": {"type": "string", "examples": ["#W1"]}, "full": {"type": "boolean"}},
        "required": ["order_id"],
    },
)
PAY = ToolSpec(
    name="pay",
    parameters={
        "type": "object",
        "properties": {
            "amount": {"type": "number", "minimum": 2},
            "how": {"enum": ["card", "cash"]},
            "to": {"$ref": "#/$defs/person"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "until": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["amount", "how", "to", "tags", "until"],
        "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    },
)
NOW = ToolSpec(name="now")

SECTION = """\
You can call tools. To call one, write exactly this, with the tool's name and its arguments as JSON:
<tool_call>
{"name": "NAME", "arguments": {"key": value}}
</tool_call>
The result comes back inside <tool_response> tags. Tools:
- get_order(order_id: string, full?: boolean): Read an order. Never changes it.
- pay(amount: number, how: "card" | "cash", to: object, tags: list of string, until: string | null)
- now()
Examples:
<tool_call>
{"name": "get_order", "arguments": {"order_id": "#W1"}}
</tool_call>
<tool_call>
{"name": "pay", "arguments": {"amount": 2, "how": "card", "to": {"name": "NAME"}, "tags": ["TAGS"], "until": "UNTIL"}}
</tool_call>
<tool_call>
{"name": "now", "arguments": {}}
</tool_call>"""


def test_the_tool_section_reads_like_this() -> None:
    assert describe_tools((GET, PAY, NOW)) == SECTION


def test_worked_examples_are_calls_that_the_parser_reads() -> None:
    examples = describe_tools((GET, PAY, NOW)).split("Examples:\n")[1]
    parser = parse(examples)
    assert parser.error is None
    assert [call.name for call in parser.calls] == ["get_order", "pay", "now"]
    assert parser.calls[1].arguments == example_call(PAY).arguments


def test_a_recursive_schema_has_a_finite_example() -> None:
    loop = {"$ref": "#/$defs/loop"}
    spec = ToolSpec(
        name="t",
        parameters={"type": "object", "properties": {"a": loop}, "$defs": {"loop": {"type": "array", "items": loop}}},
    )
    assert example_call(spec).arguments == {"a": [[[[[]]]]]}


def test_the_system_message_gains_the_tools_and_one_is_made_where_there_is_none() -> None:
    system, user = Message(role="system", content="Be brief."), Message(role="user", content="Hi")
    section = describe_tools((GET,))
    assert to_plain_messages((system, user), (GET,))[0].content == f"Be brief.\n\n{section}"
    assert to_plain_messages((user,), (GET,)) == (Message(role="system", content=section), user)


def test_without_tools_nothing_is_added() -> None:
    user = Message(role="user", content="Hi")
    assert to_plain_messages((user,), ()) == (user,)
    assert to_plain_messages((user,), (GET,), "none") == (user,)
    assert to_plain_messages((user,), (GET,), "required") == to_plain_messages((user,), (GET,), "auto")


def test_calls_and_results_become_text() -> None:
    calls = (
        ToolCall(id="call_0", name="get_order", arguments={"order_id": "#W1"}),
        ToolCall(id="call_1", name="now"),
    )
    history = (
        Message(role="user", content="Where is #W1?"),
        Message(role="assistant", content="One moment.\n", tool_calls=calls),
        Message(role="tool", content='{"status": "sent"}', tool_call_id="call_0", name="get_order"),
        Message(role="tool", content="12:00", tool_call_id="call_1", name="now"),
        Message(role="assistant", content="It was sent."),
    )
    plain = to_plain_messages(history, ())
    assert [message.role for message in plain] == ["user", "assistant", "user", "assistant"]
    assert plain[1].content == (
        'One moment.\n<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    )
    assert plain[2].content == (
        '<tool_response>\n{"status": "sent"}\n</tool_response>\n<tool_response>\n12:00\n</tool_response>'
    )


FORGED = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<tool_response>",
            "</tool_response>",
            "<|im_start|>",
            "<|im_end|>",
            "<",
            "|>",
            "a",
        ]
    ),
    max_size=6,
).map("".join)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(FORGED, st.sampled_from(["user", "tool", "assistant"]))
def test_nobody_can_forge_a_tag_or_a_control_token(content: str, role: str) -> None:
    message = Message.model_validate({"role": role, "content": content, "tool_call_id": "call_0"})
    plain = to_plain_messages((message,), ())[0].content
    inside = plain.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>") if role == "tool" else plain
    for tag in ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|"):
        assert tag not in inside
    assert inside.replace("\\u003c", "<") == content


TURNS = st.lists(
    st.builds(
        lambda role, content: Message(role=role, content=content),
        st.sampled_from(["user", "assistant"]),
        st.text(max_size=8),
    ),
    max_size=5,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(TURNS, TURNS)
def test_a_longer_conversation_begins_with_the_shorter_one(first: list[Message], more: list[Message]) -> None:
    shorter = to_plain_messages(first, (GET, NOW))
    assert to_plain_messages([*first, *more], (GET, NOW))[: len(shorter)] == shorter
