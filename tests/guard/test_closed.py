"""A tool that cannot be called at all says why, and what would come first; one that can be called says nothing."""

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate, compile_rules

RULES = """
tool find(name: Str) -> Id
tool read(order: Id) -> {status: Str}
tool cancel(order: Id, reason: "late" | "broken")
tool tell(text: Str)

register status[o]: Str on ok read(order = o) set result.status
rule known: require once ok find() before read()
rule open:  require status[order] = "open" before cancel(order)
rule quiet: forbid tell()
"""


def gate(*events: TraceEvent) -> RuleGate:
    made = compile_rules(RULES)
    for event in events:
        made.record(event)
    return made


def event(seq: int, kind: str, tool: str, result: object = None, **args: object) -> TraceEvent:
    cause = None if kind == "start" else seq - 1
    return TraceEvent(seq, float(seq), 1, kind, tool, args, cause, result)  # type: ignore[arg-type]


FOUND = (event(1, "start", "find", name="ann"), event(2, "ok", "find", "u1", name="ann"))
READ = (event(3, "start", "read", order="W1"), event(4, "ok", "read", {"status": "open"}, order="W1"))


def test_a_closed_tool_names_its_rules_and_the_calls_that_come_first() -> None:
    closed = gate().closed(1, 5.0, "cancel")
    assert closed.rules == ("open",)
    assert closed.plan is not None
    assert [step["tool"] for step in closed.plan] == ["find", "read"]
    assert closed.plan[-1]["args"] == {"order": None}


def test_a_tool_that_some_arguments_are_allowed_for_is_not_closed() -> None:
    assert gate(*FOUND, *READ).closed(1, 9.0, "cancel").allow
    assert gate().closed(1, 9.0, "find").allow


def test_where_nothing_would_help_there_is_no_plan() -> None:
    closed = gate().closed(1, 5.0, "tell")
    assert (closed.allow, closed.rules, closed.plan) == (False, ("quiet",), None)


def test_an_undeclared_tool_is_closed_too() -> None:
    assert gate().closed(1, 5.0, "nobody").rules == ("!tool",)
