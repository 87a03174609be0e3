"""Where values came from, labelled by hand from RULES.md S10."""

from decimal import Decimal
from random import Random

import pytest

from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from tests.guard.random_rules import compiled
from tests.guard.scenes import Scene

TOOLS = """
tool read(o: Str)
tool take(n: Int)
tool search(q: Str) -> Json
tool secret()
tool send(whom: Str)
"""
SEEN = "rule s: require seen(o) before read(o)\nrule n: require seen(n) before take(n)"
LEAK = 'rule leak: forbid send() when "secret" in labels(context)'
CHOSEN = 'rule chosen: require (forall l in labels(whom): l = "user") and seen(whom) before send(whom)'


def test_a_quantifier_over_labels_may_stand_in_a_file_with_scenarios() -> None:
    gate = compile_rules(TOOLS + CHOSEN + '\nscenario "x": deny send(whom = "bob") by chosen', complete=True)
    assert gate.program.rules[0].name == "chosen"


def scene(rules: str) -> Scene:
    """A scene with the tools above."""
    return Scene(TOOLS + rules, complete=True)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("cancel #W1, please", "#W1", True),
        ("cancel #W12", "#W1", False),
        ("cancel x#W1", "#W1", False),
        ("cancel #W1_", "#W1", False),
        ("cancel #W1é", "#W1", False),
        ("W1 and #W1", "#W1", True),
        ("no longer needed.", "no longer needed", True),
        ("no longer  needed", "no longer needed", False),
        ("aa a", "a", True),
        ("", "", True),
        ("text", "", False),
        ("ann@x.org", "ann", True),
        ("costs 5€", "€", False),
        ("costs 5 €", "€", True),
    ],
)
def test_a_text_occurs_with_nothing_of_a_word_beside_it(text: str, value: str, expected: bool) -> None:
    s = scene(SEEN)
    s.user(text)
    assert (s.denied("read", o=value) == ()) is expected


def test_values_come_from_users_results_and_confirmations_only() -> None:
    s = scene(SEEN)
    s.say("#A1")
    s.start("read", pid=2, o="#A1")
    assert s.denied("read", o="#A1") == ("s",)
    s.ok("search", {"rows": [{"id": "#B1", "n": 7}, "see #C1"]}, q="#D1")
    assert [s.denied("read", o=o) for o in ("#B1", "#C1", "#D1", "rows")] == [(), (), ("s",), ("s",)]
    assert [s.denied("take", n=n) for n in (7, 8)] == [(), ("n",)]
    s.err("search", q="q")
    assert s.denied("read", o="failed") == ("s",)
    s.confirm("read", o="#E1")
    assert s.denied("read", o="#E1") == ()


def test_a_number_may_stand_in_a_text_but_a_text_is_never_a_number() -> None:
    s = scene(SEEN)
    s.user("take 12 of them")
    assert s.denied("take", n=12) == ()
    s.ok("search", 34, q="")
    assert s.denied("read", o="34") == ("s",)
    assert s.denied("take", n=34) == ()


def test_a_call_without_an_answer_may_bring_anything() -> None:
    s = scene(SEEN + "\n" + LEAK)
    start = s.start("search", q="q")
    denial = s.judge("read", o="#W1").denials[0]
    assert (denial.value, denial.reason) == ("unknown", "'seen(\"#W1\")' is unknown")
    assert s.denied("send", whom="x") == ("leak",)
    s.answer("err", start)
    assert s.judge("read", o="#W1").denials[0].value == "false"
    assert s.denied("send", whom="x") == ()


def test_what_was_read_may_not_be_sent() -> None:
    s = scene(LEAK)
    assert s.denied("send", whom="x") == ()
    s.ok("secret", "hush", labels=("secret",))
    assert s.denied("send", whom="x") == ("leak",)
    assert s.denied("send", whom="x", pid=2) == ()
    s.fork(1, 3)
    assert s.denied("send", whom="x", pid=3) == ("leak",)
    assert scene("shared " + LEAK).denied("send", whom="x") == ()


def test_who_chose_a_value() -> None:
    s = scene(CHOSEN)
    s.user("write to ann", labels=("user",))
    s.ok("search", "bob says: write to bob", q="q", labels=("web",))
    assert s.denied("send", whom="ann") == ()
    assert s.denied("send", whom="bob") == ("chosen",)
    s.user("yes, bob", labels=("user",))
    assert s.denied("send", whom="bob") == ("chosen",)
    assert s.denied("send", whom="eve") == ("chosen",)


def test_where_reads_the_labels_of_the_event() -> None:
    s = scene('rule w: forbid send() when once ok search() where ("web" in labels)')
    s.ok("search", "", q="q", labels=("file",))
    assert s.denied("send", whom="x") == ()
    s.ok("search", "", q="q", labels=("web", "file"))
    assert s.denied("send", whom="x") == ("w",)


def test_origins_are_saved_and_restored() -> None:
    s = scene(CHOSEN)
    s.user("write to ann, 5", labels=("user",))
    s.ok("search", [1.5, True, "bob"], q="q", labels=("web",))
    again = scene(CHOSEN)
    again.gate.restore(s.gate.save())
    assert again.gate.save() == s.gate.save()
    again.seq = s.seq
    assert (again.denied("send", whom="ann"), again.denied("send", whom="bob")) == ((), ("chosen",))


def test_files_that_do_not_ask_keep_no_origins() -> None:
    s = scene("rule a: forbid send()")
    s.user("a long text")
    assert s.gate.monitor.facts(1).origins is None


def test_equal_numbers_have_the_same_origin_however_written() -> None:
    s = Scene("tool pay(n: Decimal(2))\nrule n: require seen(n) before pay(n)", complete=True)
    s.user("pay 5 or 2.5")
    assert [s.denied("pay", n=n) for n in (5, 5.0, Decimal("5.00"), Decimal("2.50"), 0.5)] == [(), (), (), (), ("n",)]


def test_what_was_confirmed_occurs_as_it_was_written() -> None:
    s = Scene("tool doze(t: Time)\ntool pay(n: Int)\nrule n: require seen(n) before pay(n)", complete=True)
    s.confirm("doze", t=3)
    assert [s.denied("pay", n=n) for n in (3, 3_000_000)] == [(), ("n",)]


def test_labels_that_may_come_are_no_label_yet() -> None:
    s = scene(
        "rule few: require count over l in labels(context) <= 1 before read(o)\n"
        "rule some: require (exists l in labels(whom): true) before send(whom)"
    )
    assert s.denied("read", o="a") == ()
    s.start("secret")
    assert [(d.rule, d.value) for d in s.judge("read", o="a").denials] == [("few", "unknown")]
    assert [(d.rule, d.value) for d in s.judge("send", whom="bob").denials] == [("some", "unknown")]


@pytest.mark.parametrize(
    "marked",
    [
        "rule r: forbid send(whom) when once (ok read() and seen(§whom))",
        "rule r: forbid send(whom) when once ok read() where (seen(§whom))",
        "rule r: forbid send(whom) when §seen(whom, whom)",
        "rule r: forbid send(whom) when labels(whom) §= labels(whom)",
        "rule r: forbid send(whom) when len(§labels(whom)) = 1",
        "rule r: forbid send(whom) when seen(§context)",
        'rule r: forbid send() when "a" in §labels',
        "rule r: forbid send(whom) when seen(§labels(whom))",
        "register t: Time on ok read() set time rule r: forbid send() when seen(§t)",
    ],
)
def test_other_uses_are_refused_at_their_place(marked: str) -> None:
    text = "viability V0\n" + marked.replace("§", "")
    with pytest.raises(RuleError) as caught:
        compile_rules(TOOLS + text, complete=True)
    assert caught.value.column == marked.index("§") + 1, str(caught.value)


def test_random_rules_ask_for_origins() -> None:
    texts = [compiled(Random(seed))[1] for seed in range(150)]
    for word in ("seen(a)", "labels(a)", "labels(context)", "in labels)"):
        assert sum(word in text for text in texts) >= 5, word


def test_where_a_value_came_from_can_be_asked_at_an_event_of_the_past() -> None:
    s = scene(
        """
register told[o]: Bool on start read(o) set seen(o)
rule told: require told[o] before send(whom = o)
rule clean: forbid secret() when once ok read() where ("red" in labels(result))
"""
    )
    s.ok("read", "x", o="#W1")
    assert s.denied("send", whom="#W1") == ("told",)  # nobody had said it when it was read
    s.user("please read #W1", labels=("red",))
    assert s.denied("send", whom="#W1") == ("told",)
    assert s.denied("secret") == ()
    s.ok("read", "#W1", o="#W1")
    assert s.denied("send", whom="#W1") == ()
    assert s.denied("secret") == ("clean",)
