"""Rule files broken at random: each is refused at a place of its text, or taken; never a crash, never a long wait."""

import re
import time
from pathlib import Path
from random import Random

import pytest

from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from aios.guard.language.lexer import KEYWORDS
from aios.guard.workbench.review import review
from tests.guard import enumeration, random_rules

ROOT = Path(__file__).parents[2]
_PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*"|\w+|\s+|.', re.DOTALL)
_STRANGE = (
    "\0",
    "\f",
    "\u2028",
    "é",
    '"',
    "\\",
    "99999999999999999999",
    "0.",
    "1d",
    "(",
    ")",
    "[",
    "{",
    "#",
    "\r",
    "🙂",
)


def sources() -> list[str]:
    """Files to begin with: the real ones, and random ones with every construct."""
    real = [ROOT / "examples" / "rules" / "retail.rules", ROOT / "benchmarks" / "retail.rules"]
    drawn = [enumeration.rules(Random(seed)) for seed in range(10)] + [random_rules.rules(Random(s)) for s in range(20)]
    return [*(path.read_text(encoding="utf-8") for path in real), *drawn]


def mutated(random: Random, text: str) -> str:
    """The text with a few pieces changed, dropped, doubled, swapped or torn off."""
    pieces = _PIECE.findall(text)
    for _ in range(random.randint(1, 6)):
        at, other = random.randrange(len(pieces)), random.randrange(len(pieces))
        kind = random.randrange(6)
        if kind == 0:
            pieces[at] = random.choice((*sorted(KEYWORDS), *_STRANGE))
        elif kind == 1:
            pieces[at : at + random.randint(1, 5)] = []
        elif kind == 2:
            pieces[at:at] = pieces[other : other + random.randint(1, 30)]
        elif kind == 3:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 4:
            pieces[at] = pieces[at][: random.randint(0, len(pieces[at]))]
        elif random.random() < 0.3:
            pieces = pieces[:at]
        pieces = pieces or [" "]
    return "".join(pieces)


def check(text: str) -> bool:
    """Whether the file is taken; a refusal must stand at a place inside of it."""
    begun = time.process_time()
    try:
        compile_rules(text, file="x.rules", complete=True)
        is_taken = True
    except RuleError as error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 2
        is_taken = False
    assert bool(review(text, "x.rules").errors) is not is_taken
    assert time.process_time() - begun < 5
    return is_taken


def _all(seeds: range) -> None:
    texts, taken = sources(), 0
    for seed in seeds:
        random = Random(seed)
        text = mutated(random, random.choice(texts))
        try:
            taken += check(text)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert 0.01 * len(seeds) < taken < 0.9 * len(seeds)


def test_broken_files_are_refused_at_a_place() -> None:
    _all(range(200))


@pytest.mark.slow
def test_ten_thousand_broken_files_are_refused_at_a_place() -> None:
    _all(range(200, 10_200))
