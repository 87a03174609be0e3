"""Every mistake in a rule file is refused at its place; `§` marks the column that the error must name."""

import time

import pytest

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from aios.guard.workbench.review import review

TOOLS = (
    "viability V0\n"
    "tool f(a: Str, n: Int)\ntool g(a: Str)\n"
    "tool pay(amount: Decimal(2), team: Str) -> {id: Id, total: Decimal(2)}\n"
)

MALFORMED = [
    # spelling
    'rule r: forbid f() when a = §"no end',
    "rule r: forbid f() when 1 = 1§.",
    "rule r: forbid f() when 1 = §7x",
    "const c = §&",
    'const c = §"\\q"',
    # declarations
    "§frobnicate",
    "shared §tool h()",
    "tool §()",
    "tool §rule()",
    "tool h§",
    "tool h(a§)",
    "tool h(a: §Text)",
    "tool h(a: Decimal§)",
    "tool h(a: Decimal(§x))",
    "tool h(a: Str §b: Str)",
    "tool h() always §err",
    "group §= f",
    "group h §f",
    "group h = f | §",
    "const c §1",
    "register r §Str",
    "register r[o§: Str",
    "register r: Str on §wait f() set unknown",
    "register r: Str on ok f() §add (1)",
    "relation r §on ok f() add (1)",
    "relation r(x) latest §x",
    "relation r(x) on ok f() add §1",
    "viability §V3",
    # bodies
    "rule §: forbid f()",
    "rule r §forbid f()",
    "rule r: §allow f()",
    "rule r: require once ok f()§",
    "rule r: require once ok f() before §(",
    "rule r: forbid f§",
    "rule r: forbid f(§,)",
    "rule r: limit §average of f() to 3",
    "rule r: limit count §f() to 3",
    "rule r: limit sum §of f() to 3",
    "rule r: limit count of f() within §a to 3",
    "rule r: limit count of f() within 3 §to 3",
    "rule r: limit count of f()§",
    "rule r: forbid f() when §and",
    "rule r: forbid f() when not §",
    "rule r: forbid f() when (once ok f()§",
    "rule r: forbid f() when once within §x ok f()",
    "rule r: forbid f() when once between 1m §5m ok f()",
    "rule r: forbid f() when exists x §of f: x = 1",
    "rule r: forbid f() when true and §exists x in {1}: x = 1",
    "rule r: forbid f() when §frob(1)",
    "rule r: forbid f(a, n) when n §* n = 1",
    "rule r: forbid f(n) when 2 * n §* 2 = 1",
    "rule r: forbid f(a) when a matches §a",
    # names and sorts
    "§tool f()",
    "group h = §h",
    "group h = §nothing",
    "rule r: forbid f()\n§rule r: forbid g()",
    "rule r: forbid §nothing()",
    "rule r: forbid f(§b)",
    "rule r: forbid §f(a, a)",
    "rule r: forbid f() when §b = 1",
    "rule r: forbid f() when once ok f(a = §b)",
    'rule r: forbid f(n) when n §= "x"',
    "rule r: forbid f(n, a) when n §< a",
    "register o: Id\nrule r: forbid f() when o §< o",
    "rule r: forbid f(n) when n §in n",
    "rule r: forbid f(a) when a §in {1, 2}",
    'rule r: forbid f() when 1 in {1, §"a"}',
    "rule r: forbid f(n) when §n",
    'rule r: forbid f(n) when n matches §"x"',
    'rule r: forbid f(a) when a matches §"(a)\\\\1"',
    'rule r: forbid f(a) when a matches §"(?=a)"',
    'rule r: forbid f(a) when a matches §"("',
    "rule r: forbid f() when §result = 1",
    "rule r: limit sum(§result) of f() to 3",
    "rule r: limit sum(§a) of f(a) to 3",
    "rule r: limit count of f() per §x to 3",
    'rule r: limit count of f() to §"x"',
    "rule r: limit count of §f() within 0s to 3",
    "rule r: forbid f() when once §between 5m and 2m ok f()",
    "rule r: forbid f() when once §between 5m and 2 calls ok f()",
    "rule r: forbid f() when once §confirmed",
    'register c[k]: Str\nrule r: forbid f() when §c = "x"',
    "register c: Str on ok pay() set §result.nothing",
    "register c: Int on ok pay() set §result.id",
    'register c[k]: Str §on ok f() set "x"',
    "relation q(x) §on ok f(a) add (a, a)",
    "relation q(x) latest by x on ok f() each i in result add (§i)",
    'register c: Str\nshared rule r: forbid f() when §c = "x"',
    'rule r: forbid f(n) when n §+ "x" = 1',
    "rule r: forbid f(a) when exists a in §{1}: a = 1",
    "rule r: forbid f() when forall x, y in §{1, 2}: x = y",
    "rule r: forbid f() when §zip({1}, {2}) = {1}",
    "rule r: forbid f(a) when §len(a, a) = 1",
    "rule r: forbid f(n) when len(§n) = 1",
    "rule r: after ok f(a) do g(§b)",
    "rule r: after ok f(a) do g(a = §result)",
    "rule r: after ok f(n) do g(a = §n)",
    "rule r: after ok f(a) do §nothing()",
    "rule r: after ok f(a) do §g() within 0 calls",
    "rule r: after ok f() do g() unless §b = 1",
    'rule r: after ok pay() if §result.x = 1 do g(a = "x")',
    "rule r: finish requires §confirmed",
    "rule r: finish requires §b = 1",
    "§viability V1",
    "rule r: finish requires §scenario",
]
NOT_KEPT = [
    "rule r: forbid f(n) when once ok pay() where (result.total <= 2 * §n)",
    "rule r: forbid f(n) when once (ok pay() and seen(§n))",
    'rule r: forbid f(a) when once ok pay() where (contains("xyz", §a))',
]


@pytest.mark.parametrize("marked", MALFORMED + NOT_KEPT)
def test_an_error_names_its_place(marked: str) -> None:
    at = marked.index("§")
    text = marked.replace("§", "")
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    with pytest.raises(RuleError) as caught:
        compile_rules(TOOLS + text, file="x.rules", complete=True)
    error = caught.value
    assert (error.line, error.column) == (line + TOOLS.count("\n"), column), str(error)
    assert error.file == "x.rules"
    shown = str(error).split("\n")
    assert shown[-2].strip() == text.split("\n")[line - 1].strip()
    assert shown[-1].index("^") == shown[-2].index(error.text) + column - 1


@pytest.mark.parametrize("marked", NOT_KEPT)
def test_what_cannot_be_kept_in_bounds_is_refused_in_these_words(marked: str) -> None:
    with pytest.raises(RuleError, match="kept in bounds"):
        compile_rules(TOOLS + marked.replace("§", ""), complete=True)


def test_nesting_without_end_is_refused_not_a_crash() -> None:
    with pytest.raises(RuleError, match="deep"):
        compile_rules(TOOLS + "rule r: forbid f() when " + "not " * 100_000 + "true", complete=True)


def test_a_tool_may_be_declared_after_the_rules_that_name_it() -> None:
    gate = compile_rules("rule r: forbid later(x = 1)")
    assert gate.undeclared == ("later",)


@pytest.mark.parametrize("opening", ["(", "not (", "once ", "(a = a implies "])
def test_brackets_without_end_are_refused_not_a_crash(opening: str) -> None:
    with pytest.raises(RuleError, match="deep"):
        compile_rules(TOOLS + "rule r: forbid f(a) when " + opening * 50_000, complete=True)


def test_groups_that_hang_together_many_times_are_read_once() -> None:
    doubling = "group g0 = f\n" + "\n".join(f"group g{n} = g{n - 1} | g{n - 1}" for n in range(1, 60))
    chain = "group g0 = f\n" + "\n".join(f"group g{n} = g{n - 1}" for n in range(1, 3000))
    for groups in (doubling, chain, "\n".join(reversed(chain.split("\n")))):
        gate = compile_rules(TOOLS + groups + "\nrule r: forbid g59()", complete=True)
        assert gate.program.symbols.groups["g59"] == ("f",)


def test_a_circle_of_groups_is_refused() -> None:
    with pytest.raises(RuleError, match="contains itself"):
        compile_rules(TOOLS + "group one = two | f\ngroup two = three\ngroup three = one", complete=True)


def test_errors_without_end_are_not_all_told() -> None:
    assert len(review(TOOLS + "rule r: permit\n" * 5000, "x.rules").errors) == 100
    assert len(review(TOOLS + "".join(f"rule r{n}: forbid no()\n" for n in range(5000)), "x.rules").errors) == 100


def test_many_rules_take_no_more_time_each_than_few() -> None:
    def seconds(many: int) -> float:
        begun = time.process_time()
        text = TOOLS + "".join(f"rule r{n}: forbid f(n) when n = {n}\n" for n in range(many))
        assert not review(text, "x.rules").errors
        return time.process_time() - begun

    assert seconds(2000) < 12 * seconds(500)


@pytest.mark.parametrize(
    "marked",
    [
        "rule r: forbid f(n) when n = §" + "9" * 10_000,
        "rule r: limit count of f() within §" + "9" * 10_000 + "d to 1",
        "tool h(x: Decimal(§" + "9" * 10_000 + "))",
        'rule r: forbid f(a) when a matches §"' + "(" * 5000 + ")" * 5000 + '"',
        'rule r: forbid f(a) when a matches §"a{99999999999999}"',
        'rule r: forbid f(a) when a matches §"((a{1,1000}){1,1000}){1,1000}"',
    ],
    ids=range(6),
)
def test_what_is_too_large_is_refused_at_its_place(marked: str) -> None:
    with pytest.raises(RuleError) as caught:
        compile_rules(TOOLS + marked.replace("§", ""), complete=True)
    assert (caught.value.line, caught.value.column) == (TOOLS.count("\n") + 1, marked.index("§") + 1)


def test_a_sum_without_end_is_refused() -> None:
    with pytest.raises(RuleError, match="deep"):
        compile_rules(TOOLS + "rule r: forbid f(n) when n" + " + n" * 50_000 + " = 1", complete=True)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*b", "([a-z]+)*", "a*a*a*a*a*b", "(a|ab|b){40}c"])
def test_a_pattern_that_goes_back_for_ever_elsewhere_takes_no_time_here(pattern: str) -> None:
    gate = compile_rules(TOOLS + f'rule r: require a matches "{pattern}" before g(a)', complete=True)
    begun = time.process_time()
    for text in ("a" * 3000 + "!", "ab" * 1500 + "!", "a" * 20_000):
        verdict = gate.judge(TraceEvent(1, 0, 1, "start", "g", {"a": text}))
        assert verdict.allow is (pattern in ("(a+)+$", "([a-z]+)*") and text == "a" * 20_000)
    assert time.process_time() - begun < 5
