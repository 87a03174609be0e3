"""What a core without masks is offered and told is what the gate would say."""

from typing import Any

import pytest

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.offers import Offers

RULES = """
rule first: require once ok login() before cancel()
rule two: require reason in {"lost", "late"} before cancel(reason)
rule small: require amount <= 5 before pay(amount)
rule never: forbid wipe()
"""


def _spec(name: str, **properties: str) -> ToolSpec:
    fields = {field: {"type": kind} for field, kind in properties.items()}
    return ToolSpec(name=name, parameters={"type": "object", "properties": fields, "required": list(fields)})


SPECS = (
    _spec("login"),
    _spec("cancel", order="string", reason="string"),
    _spec("pay", amount="integer"),
    _spec("wipe"),
)
CALLS = (
    ToolCall(id="1", name="login"),
    ToolCall(id="2", name="cancel", arguments={"order": "o", "reason": "lost"}),
    ToolCall(id="3", name="cancel", arguments={"order": "o", "reason": "bored"}),
    ToolCall(id="4", name="pay", arguments={"amount": 5}),
    ToolCall(id="5", name="pay", arguments={"amount": 6}),
    ToolCall(id="6", name="pay", arguments={"amount": "many"}),
    ToolCall(id="7", name="wipe"),
    ToolCall(id="8", name="unknown"),
)


def _gate(*, logged_in: bool) -> RuleGate:
    gate = compile_rules(RULES, tools=SPECS)
    if logged_in:
        gate.record(TraceEvent(seq=1, time=1.0, pid=1, kind="start", tool="login", args={}))
        gate.record(TraceEvent(seq=2, time=1.0, pid=1, kind="ok", tool="login", args={}, cause=1))
    return gate


@pytest.mark.parametrize("logged_in", [False, True])
def test_an_objection_is_raised_exactly_where_the_gate_denies(logged_in: bool) -> None:
    gate, offers = _gate(logged_in=logged_in), Offers()
    state = gate.mask_state(1, 2.0)
    for call in CALLS:
        event = TraceEvent(seq=3, time=2.0, pid=1, kind="start", tool=call.name, args=call.arguments)
        assert (offers.objection(state, SPECS, call) is None) == gate.judge(event).allow, call


def test_tools_that_nothing_can_allow_are_left_out() -> None:
    offers = Offers()
    before = offers.offer(_gate(logged_in=False).mask_state(1, 2.0), SPECS)
    after = offers.offer(_gate(logged_in=True).mask_state(1, 2.0), SPECS)
    assert [tool.name for tool in before] == ["login", "pay"]
    assert [tool.name for tool in after] == ["login", "cancel", "pay"]


def test_arguments_fixed_to_constants_become_an_enum_and_others_stay() -> None:
    state = _gate(logged_in=True).mask_state(1, 2.0)
    cancel = next(tool for tool in Offers().offer(state, SPECS) if tool.name == "cancel")
    assert sorted(cancel.parameters["properties"]["reason"]["enum"]) == ["late", "lost"]
    assert cancel.parameters["properties"]["order"] == {"type": "string"}
    assert SPECS[1].parameters["properties"]["reason"] == {"type": "string"}


def test_an_objection_names_the_rule_and_what_is_open() -> None:
    state, offers = _gate(logged_in=False).mask_state(1, 2.0), Offers()
    assert offers.objection(state, SPECS, CALLS[1]) == (
        "tool 'cancel' is not allowed now; allowed with the right arguments: login, pay"
    )
    told = offers.objection(state, SPECS, CALLS[4])
    assert told is not None
    assert "'small'" in told


_MORE = """
tool find(code: Str, n: Int, price: Decimal(2), rough: Decimal(2, round), items: [Str], note: Str?)
"""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('code matches "[A-Z]{2}(?:-[0-9]+)?"', {"code": {"pattern": "^(?:[A-Z]{2}(?:-[0-9]+)?)$"}}),
        (r'code matches "\\d+"', {}),
        ('code matches "a$"', {}),
        ('starts(code, "#W.")', {"code": {"pattern": r"^#W\."}}),
        ('ends(code, "(1)")', {"code": {"pattern": r"\(1\)$"}}),
        ("len(code) <= 3 and len(code) > 1", {"code": {"maxLength": 3, "minLength": 2}}),
        ("len(items) >= 1", {"items": {"minItems": 1}}),
        ("n < 5 and n >= 0 and n <= 9", {"n": {"maximum": 4, "minimum": 0}}),
        ("price < 2.50", {"price": {"exclusiveMaximum": 2.5}}),
        ("price >= 1", {"price": {"minimum": 1}}),
        ('not code matches "a"', {}),
        ("n <= 3 or price > 1", {}),
        ("n != 3", {}),
        ("rough <= 3", {}),
    ],
)
def test_what_is_asked_of_one_argument_alone_stands_in_its_schema(rule: str, expected: dict[str, Any]) -> None:
    kinds = {"code": "string", "n": "integer", "price": "number", "rough": "number", "items": "array", "note": "string"}
    spec = _spec("find", **kinds)
    gate = compile_rules(f"{_MORE}rule r: require {rule} before find(code, n, price, rough, items)", tools=[spec])
    (offered,) = Offers().offer(gate.mask_state(1, 2.0), [spec])
    properties = offered.parameters["properties"].items()
    found = {name: {word: told for word, told in schema.items() if word != "type"} for name, schema in properties}
    assert {name: told for name, told in found.items() if told} == expected
