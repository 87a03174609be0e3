"""The mask lets exactly the allowed calls through, in every tokenisation, and never leaves a decoder stuck."""

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.formats.calls import render_call
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.mask import CallMasks, TokenMask

PIECES = (
    '", "', '"}', '": "', '"}}\n', "#W", "no", " longer", ' "get', '"pay', "_order", "cancel", "99", "12", "5}",
    "0.", "50",
    ", ", '{"', '": ', "<tool_call>", "</tool_call>", '"arguments', "}}", "\n{", '{"name": "', "1, ", '2", ',
    '1"}}', ".5", "5, ",
    '"urgent": true', "true", "false}", "yes",
)  # fmt: skip
VOCABULARY = [bytes([byte]) for byte in (10, *range(32, 127))] + [piece.encode() for piece in PIECES] + [b"<end>"]
END = len(VOCABULARY) - 1
MASKS = CallMasks(VOCABULARY, [END])

RULES = """
register status[o]: Str on ok get_order(order_id = o) set result.status
rule R1: require once ok login() before get_order()
rule R4: require status[o] = "pending" before cancel(order_id = o)
rule R6: require reason in {"no longer needed", "mistake"} before cancel(reason)
rule pay: limit sum(amount) of pay(amount, team = t) per t to 12.50
rule big: require confirmed before pay(team = "bank")
rule urgent: forbid pay(urgent = true, amount = n) when n > 2
rule few: require k <= 3 before order(count = k)
rule never: forbid drop()
"""


def _schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
SPECS = [
    ToolSpec(name="login", parameters=_schema(("name",), name=_TEXT)),
    ToolSpec(name="get_order", parameters=_schema(("order_id",), order_id=_TEXT)),
    ToolSpec(name="cancel", parameters=_schema(("order_id", "reason"), order_id=_TEXT, reason=_TEXT)),
    ToolSpec(
        name="pay", parameters=_schema(("amount", "team"), amount=_NUMBER, team=_TEXT, urgent={"type": "boolean"})
    ),
    ToolSpec(name="order", parameters=_schema(("count",), count={"type": "integer"})),
    ToolSpec(name="drop", parameters=_schema()),
]


def _gate(*, logged_in: bool = True, orders: tuple[tuple[str, str], ...] = (), paid: float = 0) -> RuleGate:
    gate = compile_rules(RULES, tools=SPECS)

    def done(tool: str, args: dict[str, Any], result: Any = None) -> None:
        seq = gate.version
        gate.record(TraceEvent(seq + 1, 0, 1, "start", tool, args))
        gate.record(TraceEvent(seq + 2, 0, 1, "ok", cause=seq + 1, result=result))

    if logged_in:
        done("login", {"name": "ann"})
    for order, status in orders:
        done("get_order", {"order_id": order}, {"status": status})
    if paid:
        done("pay", {"amount": paid, "team": "x"})
    return gate


def _gates() -> list[RuleGate]:
    confirmed = _gate(orders=(("#W1", "pending"), ("#W2", "sent")), paid=12)
    meant = {"amount": 1.5, "team": "bank"}
    confirmed.record(TraceEvent(confirmed.version + 1, 0, 1, "confirm", "pay", meant, by="ann"))
    return [_gate(logged_in=False), _gate(), _gate(orders=(("#W1", "pending"), ("#W2", "pending"))), confirmed]


def _orders(args: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield args
    yield dict(reversed(args.items()))


def _calls() -> Iterator[ToolCall]:
    """A finite domain that meets every kind of residual."""
    domain: list[tuple[str, dict[str, Any]]] = [("login", {"name": "no"}), ("drop", {})]
    domain += [("get_order", {"order_id": order}) for order in ("#W1", "#W2", "")]
    domain += [
        ("cancel", {"order_id": order, "reason": reason})
        for order, reason in product(("#W1", "#W2", "#W12", "x"), ("no longer needed", "no", "mistake"))
    ]
    for amount, team, urgent in product(
        (0.5, 0.51, 1, 1.5, 2, 12, 12.5, 12.51, 99), ("x", "y", "bank"), (None, True, False)
    ):
        extra = {} if urgent is None else {"urgent": urgent}
        domain.append(("pay", {"amount": amount, "team": team, **extra}))
    domain += [("order", {"count": count}) for count in (-5, 0, 3, 4, 12)]
    for tool, args in domain:
        for ordered in _orders(args):
            yield ToolCall(id="c", name=tool, arguments=ordered)


def _bits() -> Any:
    return np.full(MASKS.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)


def _is_set(bits: Any, token: int) -> bool:
    return bool(int(bits[token >> 5]) >> (token & 31) & 1)


def _passes(mask: TokenMask, text: bytes, random: Random) -> tuple[bool, str]:
    """Write `text` in a random tokenisation; say whether the mask let all of it through."""
    at = 0
    while at < len(text):
        fitting = [token for token, piece in enumerate(VOCABULARY) if token != END and text.startswith(piece, at)]
        token = random.choice(fitting)
        bits = _bits()
        mask.restrict(bits)
        if not _is_set(bits, token):
            return False, f"{text[:at]!r} then {VOCABULARY[token]!r}, blamed on {mask.blame(token)}"
        mask.accept(token)
        at += len(VOCABULARY[token])
    return True, ""


@pytest.mark.parametrize("number", range(4))
def test_the_allowed_calls_of_a_finite_domain_are_those_that_can_be_written(number: int) -> None:
    gate = _gates()[number]
    fresh, random = MASKS.open(gate.mask_state(1, 0.0), SPECS), Random(number)
    verdicts = set()
    for call in _calls():
        allowed = gate.judge(TraceEvent(99, 0, 1, "start", call.name, call.arguments)).allow
        passed, why = _passes(fresh.fork(), render_call(call).encode(), random)
        assert passed is allowed, f"{call.name} {call.arguments}: gate {allowed}, mask {passed} {why}"
        verdicts.add(allowed)
    assert verdicts == {True, False}


# --- a decoder that knows the form of calls and chooses at random ----------------------------------------------------


def _grammatical(mask: TokenMask, token: int) -> bool:
    """A simple grammar of our own: a canonical call of an offered tool, its values short and of their type."""
    trial = mask.parser.fork()
    trial.feed(VOCABULARY[token])
    if trial.error is not None or len(trial.calls) > 1:
        return False
    if trial.calls:
        return trial.place.value == "after" and _well_typed(trial.calls[0].name, dict(trial.calls[0].arguments), True)
    if trial.place.value in ("text", "tag", "head"):
        return (
            trial.text == "" and trial.held == b"<tool_call>"[: len(trial.held)] and len(trial.held) != 0
        ) or trial.place.value == "head"
    if trial.place.value == "name":
        return any(spec.name.startswith(trial.name.decode()) for spec in SPECS)
    return _arguments_fit(trial)


def _arguments_fit(trial: Any) -> bool:
    spec = next((spec for spec in SPECS if spec.name == trial.tool), None)
    if spec is None or not _well_typed(spec.name, dict(trial.arguments), trial.place.value == "tail"):
        return False
    reader = trial.reader
    if reader is None or trial.place.value in ("between", "closed", "tail"):
        return True
    properties = spec.parameters["properties"]
    if reader.depth > 1 or (reader.spot.name in ("COMMA", "NEXT_KEY") and len(trial.arguments) == len(properties)):
        return False
    if reader.spot.name == "KEY":
        written = reader.key.decode()[1:]
        return any(name.startswith(written) and name not in trial.arguments for name in properties)
    path = trial.path
    if not path:
        return True
    if (
        path[0] not in properties
        or path[0] in trial.arguments
        or (len(trial.value) > 24 and reader.spot.name in ("STRING", "NUMBER"))
    ):
        return False
    kind = properties[path[0]]["type"]
    allowed = {"string": ("STRING",), "number": ("NUMBER",), "integer": ("NUMBER",), "boolean": ("WORD",)}[kind]
    written = trial.value if reader.spot.name in allowed else b""
    if (
        (kind == "integer" and b"." in written)
        or (b"e" in written and kind in ("number", "integer"))
        or (b"E" in written and kind != "string")
    ):
        return False
    return reader.spot.name in (*allowed, "COLON", "VALUE", "AFTER")


def _well_typed(tool: str, arguments: dict[str, Any], complete: bool) -> bool:
    spec = next(spec for spec in SPECS if spec.name == tool)
    kinds = {"string": str, "number": (int, float), "integer": int, "boolean": bool}
    for name, value in arguments.items():
        if name not in spec.parameters["properties"]:
            return False
        kind = spec.parameters["properties"][name]["type"]
        if not isinstance(value, kinds[kind]) or (kind in ("number", "integer") and isinstance(value, bool)):  # type: ignore[arg-type]  # a type or a tuple of them
            return False
    return not complete or set(spec.parameters["required"]) <= set(arguments)


def _monkey(mask: TokenMask, random: Random) -> ToolCall | None:
    """Write one call by choosing among grammar and mask; None if it grew too long for its string values."""
    for _ in range(200):
        bits = _bits()
        mask.restrict(bits)
        token = _choice(mask, bits, random)
        if token is None:
            assert len(mask.parser.value) > 20 or len(mask.parser.name) > 20, (
                f"stuck after {mask.parser.value!r} {mask.parser.arguments}"
            )
            return None
        mask.accept(token)
        if mask.parser.calls:
            return mask.parser.calls[0]
    return None


def _choice(mask: TokenMask, bits: Any, random: Random) -> int | None:
    """A token that grammar and mask allow, drawn at random; closing signs are preferred, so that strings end."""
    tokens = random.sample(range(END), END)
    if random.random() < 0.5:
        tokens.sort(key=lambda token: VOCABULARY[token][:1] not in (b'"', b"}", b","))
    return next((token for token in tokens if _is_set(bits, token) and _grammatical(mask, token)), None)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_monkey_at_the_keyboard_is_never_refused_and_never_stuck(number: int) -> None:
    gate, written = _gates()[number], 0
    fresh = MASKS.open(gate.mask_state(1, 0.0), SPECS)
    for seed in range(300):
        call = _monkey(fresh.fork(), Random(seed))
        if call is not None:
            written += 1
            verdict = gate.judge(TraceEvent(99, 0, 1, "start", call.name, dict(call.arguments)))
            assert verdict.allow, f"{call.name} {call.arguments}: {verdict}"
    assert written >= 280


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_token_is_judged_alike_alone_and_among_all(number: int) -> None:
    """The two ways to a mask agree: tokens tested one by one, and all tokens of a place found together."""
    gate, random = _gates()[number], Random(number)
    state = gate.mask_state(1, 0.0)
    for call in random.sample([*_calls()], 12):
        together, alone = MASKS.open(state, SPECS), MASKS.open(state, SPECS)
        for byte in render_call(call).encode():
            bits = _bits()
            together.restrict(bits)
            for token in range(END):
                _assert_alike(alone, token, _is_set(bits, token))
            if not _is_set(bits, VOCABULARY.index(bytes([byte]))):
                break
            together.accept(VOCABULARY.index(bytes([byte])))
            alone.accept(VOCABULARY.index(bytes([byte])))


def _assert_alike(mask: TokenMask, token: int, among_all: bool) -> None:
    """Text that is no call at all is for the grammar to refuse; there the two may differ."""
    trial = mask.parser.fork()
    trial.feed(VOCABULARY[token])
    if trial.error is not None:
        return
    single = MASKS.vocabulary.bits([token])
    mask.restrict(single)
    where = f"{VOCABULARY[token]!r} behind {mask.parser.tool} {mask.parser.arguments} {mask.parser.value!r}"
    assert _is_set(single, token) is among_all, where


# --- edges -----------------------------------------------------------------------------------------------------------


def _written(mask: TokenMask, text: str) -> TokenMask:
    for byte in text.encode():
        mask.accept(VOCABULARY.index(bytes([byte])))
    return mask


def test_without_any_allowed_tool_no_call_can_be_opened_but_text_goes_on() -> None:
    gate = compile_rules("rule a: forbid any()", tools=SPECS)
    mask = MASKS.open(gate.mask_state(1, 0.0), SPECS)
    bits = _bits()
    assert mask.restrict(bits)
    assert not _is_set(bits, VOCABULARY.index(b"<tool_call>"))
    assert _is_set(bits, VOCABULARY.index(b"a"))
    assert _is_set(bits, END)
    _written(mask, "<tool_call")
    bits = _bits()
    assert mask.restrict(bits)
    assert not _is_set(bits, VOCABULARY.index(b">"))
    assert _is_set(bits, VOCABULARY.index(b"s"))
    assert mask.blame(VOCABULARY.index(b">")) == "a"


def test_a_tag_is_judged_by_all_of_it() -> None:
    gate = compile_rules("rule a: forbid any()", tools=SPECS)
    mask = _written(MASKS.open(gate.mask_state(1, 0.0), SPECS), "<")
    closing = MASKS.vocabulary.bits([VOCABULARY.index(b">")])
    assert not mask.restrict(closing)
    _written(mask, "tool_call")
    assert mask.restrict(closing)


def test_text_is_left_alone() -> None:
    mask = _written(MASKS.open(_gate().mask_state(1, 0.0), SPECS), "Hello, ")
    bits = _bits()
    assert not mask.restrict(bits)
    assert (bits == 0xFFFFFFFF).all()


def test_a_forbidden_name_is_blamed_on_its_rule() -> None:
    mask = _written(MASKS.open(_gate().mask_state(1, 0.0), SPECS), '<tool_call>\n{"name": "')
    assert mask.blame(VOCABULARY.index(b"d")) == "never"
    assert mask.blame(VOCABULARY.index(b"g")) is None


def test_a_forbidden_value_is_blamed_on_its_rule() -> None:
    text = '<tool_call>\n{"name": "order", "arguments": {"count": '
    mask = _written(MASKS.open(_gate().mask_state(1, 0.0), SPECS), text)
    assert mask.blame(VOCABULARY.index(b"4")) == "few"


def test_newer_residuals_take_effect_in_the_middle_of_a_name() -> None:
    gate = _gate(logged_in=False)
    mask = _written(MASKS.open(gate.mask_state(1, 0.0), SPECS), '<tool_call>\n{"name": "')
    twin = mask.fork()
    mask.steer(_gate().mask_state(1, 0.0))
    old, new = _bits(), _bits()
    twin.restrict(old)
    mask.restrict(new)
    token = VOCABULARY.index(b"g")
    assert (_is_set(old, token), _is_set(new, token)) == (False, True)
    assert (twin.version, mask.version) == (0, 2)


def test_a_fork_goes_its_own_way() -> None:
    mask = _written(MASKS.open(_gate().mask_state(1, 0.0), SPECS), '<tool_call>\n{"name": "')
    twin = mask.fork()
    _written(twin, "pa")
    bits = _bits()
    mask.restrict(bits)
    assert _is_set(bits, VOCABULARY.index(b"l"))


def test_a_mask_only_clears() -> None:
    mask = _written(MASKS.open(_gate().mask_state(1, 0.0), SPECS), '<tool_call>\n{"name": "')
    bits = np.zeros(MASKS.vocabulary.words, dtype=np.uint32)
    assert not mask.restrict(bits)
    assert not bits.any()
