"""`approve` and `deny`: what is decided is what was shown."""

import json

from tests.cli.conftest import Aios
from tests.cli.living import Living, living_kernel


def ask(living: Living) -> int:
    kernel = living.kernel
    number: int = living.do(
        lambda: kernel.ask(kernel.spawn("payer"), "send_money", {"to": "bob", "amount": 5}, "a rule")
    )
    return number


def state(living: Living, number: int) -> str:
    return str(living.do(lambda: living.kernel.approvals[number].state))


def test_without_a_number_what_waits_is_listed_with_its_canonical_call(aios: Aios) -> None:
    with living_kernel() as living:
        number = ask(living)
        digest = living.do(lambda: living.kernel.approvals[number].digest)
        code, out, _err = aios("approve")
        listed = json.loads(aios("deny", "--json").out)
    assert code == 0
    assert 'send_money({"amount":5,"to":"bob"})' in out
    assert "a rule" in out
    assert digest in out
    assert [row["id"] for row in listed["approvals"]] == [number]


def test_approve_allows(aios: Aios) -> None:
    with living_kernel() as living:
        number = ask(living)
        code, out, _err = aios("approve", str(number))
        assert (code, state(living, number)) == (0, "allowed")
    assert out == 'allowed: approval 1, pid 1: send_money({"amount":5,"to":"bob"})\n'


def test_deny_refuses_with_a_reason(aios: Aios) -> None:
    with living_kernel() as living:
        number = ask(living)
        code, _out, _err = aios("deny", str(number), "--answer", "too much")
        assert (code, state(living, number)) == (0, "denied")
        assert living.do(lambda: living.kernel.approvals[number].answer) == "too much"


def test_another_digest_is_a_denial_and_decides_nothing(aios: Aios) -> None:
    with living_kernel() as living:
        number = ask(living)
        code, _out, err = aios("approve", str(number), "--digest", "sha256:0")
        assert (code, state(living, number)) == (77, "waiting")
    assert "E-DIGEST" in err


def test_an_unknown_number_names_those_that_wait(aios: Aios) -> None:
    with living_kernel() as living:
        number = ask(living)
        code, _out, err = aios("approve", "17")
    assert code == 2
    assert f"waiting: {number}" in err
