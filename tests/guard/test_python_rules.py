"""Rules written in Python are the rules of the text: the same tree, hence the same verdicts."""

from dataclasses import fields, is_dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aios import rules as r
from aios import tool
from aios.abi.guard import TraceEvent
from aios.errors import RuleError, UsageError
from aios.guard.language.lexer import Span
from aios.guard.language.parser import parse
from aios.guard.language.printing import printed
from tests.guard import random_duties, random_rules
from tests.guard.scenes import Scene
from tests.guard.test_layout import TEXTS

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("examples/**/*.rules"))

a, b, c = r.tools("a b c")
o = r.name("o")


def bare(part: Any) -> Any:
    """A tree without its places."""
    if isinstance(part, Span):
        return None
    if isinstance(part, tuple):
        return tuple(map(bare, part))
    if is_dataclass(part):
        return (type(part).__name__, *(bare(getattr(part, field.name)) for field in fields(part)))
    return part


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_what_is_printed_reads_as_the_tree_again(number: int) -> None:
    tree = parse(TEXTS[number])
    assert bare(parse(printed(tree))) == bare(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_examples_are_printed_and_read_again(path: Path) -> None:
    tree = parse(path.read_text(encoding="utf-8"))
    assert bare(parse(printed(tree))) == bare(tree)


def test_random_rules_are_printed_and_read_again() -> None:
    for seed in range(60):
        for made in (random_rules, random_duties):
            tree = parse(made.rules(Random(seed)))
            assert bare(parse(printed(tree))) == bare(tree)


WRITTEN = """
viability V0
tool find_user(email: Str) -> Id
tool get_order(order_id: Id) -> {user_id: Id, status: Str}
tool cancel_order(order_id: Id, reason: "no longer needed" | "ordered by mistake", note: Str?) always ok safe
tool pay(amount: Decimal(2), team: Str)
tool swap(order_id: Id, item_ids: [Id], new_item_ids: [Id]) -> {*: Json}
tool acquire(lock: Id)
tool release(lock: Id)
user(reason: Str?)
group order_op = get_order | cancel_order
const most = 500.00
register customer: Id on ok find_user() if not known(customer) set result
register owner[o]: Id
  on ok get_order(order_id = o) set result.user_id
  on start cancel_order(order_id = o) set unknown
register price[i]: Decimal(2) = 0 on ok swap() each v in result.variants at (v.item_id) set v.price
shared relation line(order, item) latest by order
  on ok get_order(order_id = o) each x in result.items add (o, x.item_id)
rule R1 "authenticate first": require once ok find_user() before order_op()
rule R2: require owner[o] = customer and (not o = "x" or o in {"y", "z"}) before cancel_order(order_id = o)
rule R3: require confirmed by 2 within 10m before cancel_order()
rule R4: forbid swap(item_ids, new_item_ids)
  when len(item_ids) != len(new_item_ids) or (exists p, q in zip(item_ids, new_item_ids): p = q)
    or sum(price[q] - price[p]) over p, q in zip(item_ids, new_item_ids) > 2 * most
    or count of err swap() within 5 calls >= 3
rule R5: forbid release() when once between 1m and 5m ok release() or (ok acquire() implies previously ok release())
rule R6: require not ok release(lock = l) since within 1h ok acquire(lock = l) before release(lock = l)
rule R7: forbid say(text)
  when "secret" in labels(context) and text matches "a+" and not (seen(text) and starts(text, "b"))
shared rule spend: limit sum(amount) of pay(amount, team = t) per t within 24h to most
rule locks: after ok acquire(lock = l) where (result.ok) do release(lock = l) within 10 calls
  unless confirm(answer = "withdraw") else say()
rule kept: finish requires always not err find_user()
"""


def test_python_and_text_make_the_same_tree() -> None:
    find_user = r.declare("find_user", r.Id, email=r.Str)
    get_order = r.declare("get_order", r.Record(user_id=r.Id, status=r.Str), order_id=r.Id)
    cancel_order = r.declare(
        "cancel_order",
        always_ok=True,
        safe=True,
        order_id=r.Id,
        reason=r.Enum("no longer needed", "ordered by mistake"),
        note=r.Optional(r.Str),
    )
    pay = r.declare("pay", amount=r.Decimal(2), team=r.Str)
    swap = r.declare("swap", r.Map(r.Json), order_id=r.Id, item_ids=r.List(r.Id), new_item_ids=r.List(r.Id))
    acquire, release = r.declare("acquire", lock=r.Id), r.declare("release", lock=r.Id)
    order_op = r.group("order_op", get_order, cancel_order)
    most = r.const("most", Decimal("500.00"))
    x, v, p, q, lock, text = r.names("x v p q l text")
    amount, item_ids, new_item_ids = r.names("amount item_ids new_item_ids")
    found = r.name("customer")
    customer = r.register("customer", r.Id, r.on(r.ok(find_user()), if_=~r.known(found), set=r.result))
    owner = r.register(
        "owner",
        r.Id,
        r.on(r.ok(get_order(order_id=o)), set=r.result.user_id),
        r.on(r.start(cancel_order(order_id=o)), set=r.unknown),
        keys="o",
    )
    price = r.register(
        "price",
        r.Decimal(2),
        r.on(r.ok(swap()), each=v, in_=r.result.variants, at=[v.item_id], set=v.price),
        keys="i",
        initial=0,
    )
    line = r.relation(
        "line",
        "order item",
        r.on(r.ok(get_order(order_id=o)), each=x, in_=r.result.items, add=[o, x.item_id]),
        latest_by="order",
        shared=True,
    )
    pairs = r.zipped(item_ids, new_item_ids)
    book = r.Rules(
        r.viability("V0"),
        find_user, get_order, cancel_order, pay, swap, acquire, release,
        r.user_facts(reason=r.Optional(r.Str)),
        order_op, most, customer, owner, price, line,
        r.rule("R1", r.require(r.once(r.ok(find_user())), before=order_op()), "authenticate first"),
        r.rule("R2", r.require(
            (owner[o] == customer) & (~(o == "x") | o.is_in(["y", "z"])), before=cancel_order(order_id=o)
        )),
        r.rule("R3", r.require(r.confirmed(by=2, within="10m"), before=cancel_order())),
        r.rule("R4", r.forbid(swap(item_ids, new_item_ids), when=(r.length(item_ids) != r.length(new_item_ids))
            | r.exists((p, q), pairs, p == q)
            | (r.total(price[q] - price[p]).over((p, q), pairs) > 2 * most)
            | (r.count.of(r.err(swap()), within=5) >= 3))),
        r.rule("R5", r.forbid(release(), when=r.once(r.ok(release()), between=(timedelta(minutes=1), "5m"))
            | r.ok(acquire()).implies(r.previously(r.ok(release()))))),
        r.rule("R6", r.require(
            (~r.ok(release(lock=lock))).since(r.ok(acquire(lock=lock)), within="1h"), before=release(lock=lock)
        )),
        r.rule("R7", r.forbid(r.say(text), when=(
            r.value("secret").is_in(r.labels()) & text.matches("a+") & ~(r.seen(text) & r.starts(text, "b"))
        ))),
        r.rule("spend", r.limit(r.total(amount), pay(amount, team=r.name("t")), per="t", within="24h", to=most),
               shared=True),
        r.rule("locks", r.after(r.ok(acquire(lock=lock), where=r.result.ok), do=release(lock=lock), within=10,
                                unless=r.confirm(answer="withdraw"), otherwise=r.say())),
        r.rule("kept", r.finish_requires(r.always(~r.err(find_user())))),
    )  # fmt: skip
    assert bare(parse(book)) == bare(parse(WRITTEN))


def test_rules_are_text_and_add_up_without_running_into_each_other() -> None:
    first = r.Rules(r.rule("one", r.forbid(a())))
    both = first + "rule two: forbid b()\n"
    assert isinstance(both, r.Rules)
    assert Scene("tool a() tool b()\n" + both).denied("b") == ("two",)
    with pytest.raises(RuleError):
        first + "and false"


def test_a_tool_of_the_sdk_stands_for_its_name() -> None:
    @tool(effect="read")
    def look(order_id: str) -> str:
        """Look."""
        return order_id

    book = r.Rules(r.rule("one_look", r.limit(r.count, r.tool(look)(), to=1)))
    gate = book.gate([look.spec])
    assert gate.program.symbols.tools["look"].params[0].name == "order_id"


def test_what_can_be_done_with_a_file_can_be_done_from_python(tmp_path: Path) -> None:
    path = tmp_path / "x.rules"
    path.write_text('tool a()\nrule no: forbid a()\nscenario "no": deny a() by no\nscenario "yes": allow a()\n')
    book = r.Rules.read(path)
    assert book.check().errors == []
    assert book.test() == ["yes, line 4: a() is denied: no: it is forbidden"]
    answer = book.replay([b'{"seq":1,"time":0,"pid":1,"kind":"start","tool":"a","args":{}}'])
    assert answer["verdicts"][0]["rules"] == ["no"]


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_mistakes_in_python_say_what_would_work() -> None:
    with pytest.raises(UsageError, match="no truth here"):
        assert (o == "x") and (o == "y")
    with pytest.raises(UsageError, match="no value here"):
        assert o
    with pytest.raises(UsageError, match="number that is not negative"):
        (o + 1) * 2
    with pytest.raises(UsageError, match="an event is wanted"):
        r.after(r.confirmed(), do=a())
    with pytest.raises(UsageError, match="either within or between"):
        r.once(r.ok(a()), within="1m", between=("1m", "2m"))
    with pytest.raises(UsageError, match="cannot be written in a rule"):
        r.once(o == object())  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UsageError, match="two tools or more"):
        r.agentc.Seq(a)


def test_brackets_in_sums_are_taken_apart() -> None:
    x, y = r.names("x y")
    book = r.Rules(r.rule("s", r.require(x - (y - 1) <= 10 - (x + y), before=a(x, y))))
    assert "x - y + 1 <= 10 - x - y" in book


# --- Agent-C's operators ---------------------------------------------------------------------------------------------

TOOLS = "tool a()\ntool b()\ntool c()\nviability V0\n"


def ending(s: Scene) -> tuple[str, ...]:
    """Ids of the rules that do not let the process finish."""
    return s.gate.judge(TraceEvent(s.seq + 1, s.now, 1, "finish")).rules


def scene(body: r.Body) -> Scene:
    """A trace under one rule."""
    return Scene(TOOLS + r.Rules(r.rule("op", body)))


def test_before() -> None:
    s = scene(r.agentc.Before(a, b))
    assert s.denied("b") == ("op",)
    s.ok("a")
    assert s.denied("b") == ()


def test_after() -> None:
    s = scene(r.agentc.After(a, b))
    assert ending(s) == ()
    s.ok("a")
    assert ending(s) == ("!duty",)
    s.ok("b")
    assert ending(s) == ()


def test_forall() -> None:
    s = scene(r.agentc.Forall(b, r.count.of(r.ok(a())) == 2))
    s.ok("a")
    assert s.denied("b") == ("op",)
    s.ok("a")
    assert s.denied("b") == ()


def test_exists() -> None:
    s = scene(r.agentc.Exists(a))
    assert ending(s) == ("op",)
    s.ok("a")
    assert ending(s) == ()


def test_seq() -> None:
    s = scene(r.agentc.Seq(a, b, c))
    assert s.denied("b") == ("op",)
    assert s.denied("c") == ("op_2",)
    s.ok("a")
    assert s.denied("c") == ("op_2",)
    s.ok("b")
    assert s.denied("c") == ()
