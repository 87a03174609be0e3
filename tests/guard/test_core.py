"""The core of a refusal names the events that are to blame, and none too many."""

from tests.guard.scenes import Scene
from tests.guard.test_cases import LOGIN, ONCE, SPEND, STATUS, TOOLS


def test_one_event_is_to_blame() -> None:
    s = Scene(TOOLS + ONCE, complete=True)
    for order in ("V", "W", "X"):
        s.ok("modify", o=order)
        s.ok("read", o=order)
    core = s.judge("cancel", o="W").denials[0].core
    assert core == (6,)  # the ok of modify(o = "W")


def test_a_limit_blames_just_enough_charges() -> None:
    s = Scene(TOOLS + SPEND, complete=True)
    for amount in (1, 4, 1, 4):
        s.ok("pay", amount=amount, team="x")
    s.ok("pay", amount=10, team="y")
    core = s.judge("pay", amount=3, team="x").denials[0].core
    assert core == (3, 7)  # the starts of the two larger ones


def test_an_absence_has_no_core() -> None:
    s = Scene(TOOLS + LOGIN, complete=True)
    s.ok("modify", o="W")
    assert s.judge("read", o="W").denials[0].core == ()


def test_a_call_without_an_answer_is_to_blame() -> None:
    s = Scene(TOOLS + ONCE, complete=True)
    s.ok("read", o="W")
    start = s.start("modify", o="W")
    assert s.judge("cancel", o="W").denials[0].core == (start,)


def test_what_was_never_read_needs_no_blame_although_something_was_written() -> None:
    s = Scene(TOOLS + STATUS, complete=True)
    s.ok("read", {"status": "pending"}, o="W")
    s.ok("modify", o="W")
    assert s.judge("cancel", o="W").denials[0].core == ()


def test_judging_leaves_no_trace() -> None:
    s = Scene(TOOLS + ONCE, complete=True)
    s.ok("modify", o="W")
    before = s.gate.save()
    assert not s.judge("cancel", o="W").allow
    assert s.judge("cancel", pid=7, o="W").allow
    assert s.gate.save() == before
