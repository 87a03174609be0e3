"""Fine points of residuals and masks: constants on either side, what was charged, what is kept, digits, keys."""

import operator
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.formats.calls import CallParser
from aios.formats.spelling import HERMES
from aios.guard.language.values import micros
from aios.guard.masking.choices import FALSE, TRUE, UNSURE, Choices, worth
from aios.guard.masking.mask import CallMasks, TokenMask
from aios.guard.masking.numbers import Span, beside, can_grow, joined, met
from aios.guard.masking.residual import residuals
from tests.guard.scenes import Scene

TOOLS = """tool login(user: Str)
tool read(o: Id) -> {k: Str}
tool cancel(o: Id)
tool pay(amount: Decimal(2), team: Str)
tool buy(n: Int, team: Str?)
"""


def scene(rules: str) -> Scene:
    """A scene with the tools above."""
    return Scene(TOOLS + rules, complete=True)


def left(s: Scene, tool: str, pid: int = 1, **args: Any) -> str:
    """What the residuals say of a whole call: `yes`, `no`, or `?` where the gate alone can tell."""
    choices = Choices(s.gate.mask_state(pid, s.now).residuals[tool], {})
    read = choices.complete({name: choices.read(name, value) for name, value in args.items()})
    bits = [worth(node, read) for _, node in choices.rules]
    assert all(found in (TRUE, FALSE, UNSURE) for found in bits)
    found = "yes" if all(found == TRUE for found in bits) else "no"
    assert (found == "yes") is s.judge(tool, pid, **args).allow
    return found


def kept_is_anew(s: Scene, pid: int = 1) -> Any:
    """The residuals that the gate keeps, which must be those found anew."""
    kept = s.gate.mask_state(pid, s.now).residuals
    assert kept == residuals(s.gate.program, s.gate.monitor, pid, micros(s.now))
    return kept


# --- residuals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["<", "<=", ">", ">=", "=", "!="])
def test_a_constant_may_stand_on_either_side(sign: str) -> None:
    s = scene(f"rule a: require 2 {sign} n before buy(n)")
    t = scene(f"rule a: require n {sign} 2 before buy(n)")
    for n in (1, 2, 3):
        assert (left(s, "buy", n=n), left(t, "buy", n=n)) == tuple(
            "yes" if eval(f"{one} {'==' if sign == '=' else sign} {two}") else "no"  # noqa: S307 - our own six signs
            for one, two in ((2, n), (n, 2))
        )


def test_what_was_charged_is_taken_from_what_is_left() -> None:
    s = scene("rule a: limit sum(amount) of pay(amount, team = t) per t to 10.00")
    s.ok("pay", amount=4.5, team="x")
    s.err("pay", amount=3, team="x")
    assert [left(s, "pay", amount=amount, team="x") for amount in (5.5, 5.51)] == ["yes", "no"]
    assert [left(s, "pay", amount=amount, team="y") for amount in (10, 10.01)] == ["yes", "no"]


def test_a_total_that_nobody_knows_leaves_nothing() -> None:
    s = scene("rule a: limit sum(amount) of pay(amount, team = t) per t to 10.00")
    s.start("pay", team="x")
    assert (left(s, "pay", amount=1, team="x"), left(s, "pay", amount=1, team="y")) == ("no", "yes")
    s.start("pay", amount=1)
    assert left(s, "pay", amount=1, team="y") == "no"


def test_a_confirmation_is_for_its_own_tool_and_for_what_it_leaves_out() -> None:
    s = scene("rule a: require confirmed before buy()\nrule b: require confirmed before pay()\n"
              "rule c: require confirmed before read()\nrule d: require confirmed before cancel()")  # fmt: skip
    s.confirm("buy", n=1)
    s.confirm("cancel", o="W")
    asked: list[dict[str, Any]] = [{"n": 1}, {"n": 2}, {"n": 1, "team": "x"}]
    assert [left(s, "buy", **args) for args in asked] == ["yes", "no", "no"]
    assert (left(s, "cancel", o="W"), left(s, "read", o="W"), left(s, "cancel", o="V")) == ("yes", "no", "no")


def test_what_is_kept_ends_with_its_window() -> None:
    s = scene("rule a: require once within 5s ok login() before read(o)")
    s.ok("login", user="ann")
    kept_is_anew(s)
    s.now = 5
    assert kept_is_anew(s)["read"]["rules"] == []
    s.now = 6
    assert kept_is_anew(s)["read"]["rules"] == [["a", False]]


@pytest.mark.parametrize(
    ("rules", "opened"),
    [
        ('shared register r: Str on ok login(user = u) set u\nrule a: require r = "ann" before read()', True),
        ("shared rule a: require once ok login() before read()", True),
        ("register r: Str on ok login(user = u) set u\nrule a: require known(r) before read()", False),
    ],
)
def test_what_is_kept_ends_with_an_event_elsewhere_that_it_hears(rules: str, opened: bool) -> None:
    s = scene(rules)
    assert kept_is_anew(s)["read"]["rules"] != []
    s.ok("login", pid=2, user="ann")
    assert (kept_is_anew(s)["read"]["rules"] == []) is opened
    assert kept_is_anew(s, 2)["read"]["rules"] == []


@pytest.mark.parametrize(
    ("store", "phi"),
    [
        ("register r[o]: Str on ok read(o = o) set result.k", 'r[o] = "x"'),
        ("register r: Str on ok read() set result.k", 'r = "x"'),
        ("relation row(o, k) latest by o on ok read(o = o) add (o, result.k)", '(exists x in row: x.k = "x")'),
    ],
)
def test_what_is_kept_ends_with_what_its_registers_and_relations_hear(store: str, phi: str) -> None:
    s = scene(f"{store}\nrule a: require {phi} before cancel(o)")
    assert kept_is_anew(s)["cancel"]["rules"] != []
    for k in ("x", "y", "x"):
        s.ok("login", user="ann")
        s.ok("read", {"k": k}, o="W")
        kept_is_anew(s)
        assert s.judge("cancel", o="W").allow is (k == "x")


# --- numbers ------------------------------------------------------------------------------------------------------


def _inside(spans: Sequence[Span], units: int) -> int:
    return sum((low is None or low <= units) and (high is None or units <= high) for low, high in spans)


def test_a_mark_cuts_the_units_as_its_sign_says() -> None:
    signs = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
    for mark in (Fraction(0), Fraction(3), Fraction(5, 2), Fraction(-1, 3), Fraction(-7, 2)):
        for sign, holds in signs.items():
            spans = beside(sign, mark)
            assert [_inside(spans, units) for units in range(-9, 10)] == [holds(unit, mark) for unit in range(-9, 10)]
        for sign, other in (("<", ">="), ("<=", ">"), ("=", "!=")):
            assert not met(beside(sign, mark), beside(other, mark))
            assert joined((*beside(other, mark), *beside(sign, mark))) == ((None, None),)


@pytest.mark.parametrize("places", [0, 1, 2])
def test_a_prefix_can_grow_exactly_into_the_numbers_that_begin_with_it(places: int) -> None:
    unit = 10**places
    reached: dict[str, set[int]] = {}
    for sign, whole, fraction in product(("", "-"), range(22), range(unit)):
        text = f"{sign}{whole}" + (f".{fraction:0{places}d}" if places else "")
        for end in range(1, len(text) + 1):
            reached.setdefault(text[:end], set()).add(int(Decimal(text) * unit))
    random = Random(places)
    for _ in range(10):
        low = random.randint(-19 * unit, 19 * unit)
        span = (low, random.choice((low, low + random.randint(0, 5 * unit))))
        for prefix, units in reached.items():
            is_inside = any(span[0] <= one <= span[1] for one in units)
            if not _is_zero(prefix, span) and span[1] < 20 * unit:
                assert can_grow(prefix, [span], places) is is_inside, (prefix, span)


def _is_zero(prefix: str, span: Span) -> bool:
    """Zero is written with a minus, and with more noughts, too."""
    assert span[0] is not None and span[1] is not None
    return span[0] <= 0 <= span[1] and set(prefix) <= set("-0.")


# --- masks --------------------------------------------------------------------------------------------------------

VOCABULARY = [bytes([byte]) for byte in (10, *range(32, 127))]
MASKS = CallMasks(VOCABULARY, [])


def specs() -> list[ToolSpec]:
    """The tools as a model is offered them."""
    kinds: dict[str, tuple[dict[str, Any], list[str]]] = {
        "login": ({"user": {"type": "string"}}, ["user"]),
        "read": ({"o": {"type": "string"}}, ["o"]),
        "cancel": ({"o": {"type": "string"}}, ["o"]),
        "pay": ({"amount": {"type": "number"}, "team": {"type": "string"}}, ["amount", "team"]),
        "buy": ({"n": {"type": "integer"}, "team": {"type": "string"}}, ["n"]),
    }
    return [
        ToolSpec(name=name, parameters={"type": "object", "properties": properties, "required": required})
        for name, (properties, required) in kinds.items()
    ]


def mask(s: Scene) -> TokenMask:
    """The mask of process 1 at the beginning of an answer."""
    return MASKS.open(s.gate.mask_state(1, s.now), specs())


def written(mask: TokenMask, text: str) -> str:
    """Write byte by byte as far as the mask lets; return what could not be written."""
    for at, byte in enumerate(text.encode()):
        token = VOCABULARY.index(bytes([byte]))
        bits = np.full(MASKS.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)
        mask.restrict(bits)
        if not int(bits[token >> 5]) >> (token & 31) & 1:
            return text[at:]
        mask.accept(token)
    return ""


def call(tool: str, arguments: str) -> str:
    """A call as text, its arguments not closed unless they are."""
    head = '<tool_call>\n{"name": "' + tool + '", "arguments": ' + arguments
    return head + ("}\n</tool_call>" if arguments.endswith("}") else "")


def test_no_key_is_opened_twice() -> None:
    m = mask(scene(""))
    assert written(m, call("pay", '{"amount": 1, "')) == ""
    for key, rest in (("team", ""), ("amount", "amount"), ("other", "other")):
        assert written(m.fork(), key) == rest


def test_a_call_is_closed_only_when_it_is_whole() -> None:
    m = mask(scene(""))
    assert written(m.fork(), call("buy", '{"n": 1}')) == ""
    assert written(m.fork(), call("pay", '{"amount": 1')) == ""
    assert written(m.fork(), call("pay", '{"amount": 1}')).startswith("}")
    assert written(m.fork(), call("buy", '{"team": "x"}')).startswith("}")


def test_what_is_unknown_cannot_be_written() -> None:
    stores = "register k[o]: Str on ok read(o = o) set result.k\nregister most: Int on ok read() set 3\n"
    s = scene(stores + 'rule a: forbid cancel(o) when k[o] = "x"\nrule b: forbid buy(n) when n > most')
    assert written(mask(s), call("buy", '{"n": 3}')).startswith("b")
    s.ok("read", {"k": "y"}, o="W")
    assert written(mask(s), call("cancel", '{"o": "W"}')) == ""
    assert written(mask(s), call("cancel", '{"o": "V"}')).startswith("V")
    assert written(mask(s), call("buy", '{"n": 3}')) == ""


def test_two_rules_on_one_argument_both_count() -> None:
    for first, second in (("n > 20", "n < 30"), ("n < 30", "n > 20")):
        m = mask(scene(f"rule a: require {first} before buy(n)\nrule b: require {second} before buy(n)"))
        for n in (2, 3, 19, 20, 21, 29, 30, 31, 210):
            assert (written(m.fork(), call("buy", f'{{"n": {n}}}')) == "") is (20 < n < 30)
        for digit in "123":  # nothing that begins with one or three lies between
            assert (written(m.fork(), call("buy", f'{{"n": {digit}')) == "") is (digit == "2")


def test_a_fork_with_another_argument_has_another_mask() -> None:
    m = mask(scene('rule a: forbid pay(amount, team = t) when amount > 5 and t = x\nconst x = "x"'))
    for amount in (5, 6, 5):
        rest = written(m.fork(), call("pay", f'{{"amount": {amount}, "team": "x"}}'))
        assert rest.startswith('"') if amount == 6 else rest == ""


@pytest.mark.parametrize(
    ("text", "is_whole"), [("3", True), ("3.0", True), ("3.00", True), ("3.5", False), ("30", False)]
)
def test_a_whole_decimal_may_have_noughts_behind_the_point(text: str, is_whole: bool) -> None:
    m = mask(scene("rule a: require amount in {3, 4} before pay(amount)"))
    assert (written(m, call("pay", f'{{"amount": {text}, "team": "x"}}')) == "") is is_whole


def test_both_orders_of_keys_are_alike() -> None:
    s = scene('rule a: require amount <= 5 or t = "bank" before pay(amount, team = t)')
    for amount, team in product((5, 6), ("bank", "other")):
        parts = [f'"amount": {amount}', f'"team": "{team}"']
        allowed = [written(mask(s), call("pay", "{" + ", ".join(order) + "}")) == "" for order in (parts, parts[::-1])]
        assert allowed == [s.judge("pay", amount=amount, team=team).allow] * 2


def test_the_parser_of_these_tests_reads_these_calls() -> None:
    parser = CallParser(HERMES)
    parser.feed(call("pay", '{"amount": 1, "team": "x"}').encode())
    assert [(one.name, dict(one.arguments)) for one in parser.calls] == [("pay", {"amount": 1, "team": "x"})]


def test_time_of_a_probe_is_not_that_of_the_trace() -> None:
    s = scene("rule a: require once within 5s ok login() before read()")
    s.ok("login", user="ann")
    late = TraceEvent(s.seq + 1, 6, 1, "start", "read", {"o": "W"})
    assert (s.gate.allows(late), s.gate.judge(late).allow, s.judge("read", o="W").allow) == (False, False, True)
