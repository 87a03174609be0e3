"""T9: the gate agrees with another library on the propositional past fragment; here with a table of its answers."""

import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.guard.ltlf import ATOMS, BINARY, TABLE, UNARY, Formula, said

CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())["cases"]


def heads(formula: Formula) -> Iterator[str]:
    """All operators and atoms in a formula."""
    yield formula[0]
    for part in formula[1:]:
        yield from heads(part)


def test_the_gate_says_what_flloat_said() -> None:
    for number, case in enumerate(CASES):
        found = "".join("01"[truth] for truth in said(case["formula"], case["trace"], Random(number)))
        assert found == case["truths"], case


def test_the_table_has_every_operator_often_and_both_answers() -> None:
    met = Counter(head for case in CASES for head in set(heads(case["formula"])))
    assert min(met[head] for head in (*ATOMS, *UNARY, *BINARY)) >= 30
    truths = Counter("".join(case["truths"] for case in CASES))
    assert min(truths.values()) >= 0.3 * truths.total()
