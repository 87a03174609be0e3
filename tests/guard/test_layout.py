"""The formatter moves white space only, keeps comments, and has nothing to do the second time."""

import re
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from aios.cli.main import app
from aios.guard.language.layout import laid_out
from aios.guard.language.parser import parse
from tests.guard import random_duties, random_rules, test_cases, test_replay, test_scenarios

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
TEXTS = [
    *(block for block in PAGE.split("```")[1::2] if block.startswith("\n")),
    test_scenarios.RULES + test_scenarios.GOOD,
    test_replay.RULES,
    test_cases.TOOLS + test_cases.STATUS,
    *(random_rules.rules(Random(seed)) for seed in range(15)),
    *(random_duties.rules(Random(seed)) for seed in range(15)),
    "tool a()\f tool b() # two\n",
]

UGLY = """


# The shop.
   tool   pay ( amount :Decimal( 2 ) , to:[ Id ] ? )->{ id:Id }#pays
tool ping()  tool pong( )
register  sum_of [ o ]: Int=0 on ok pay ( to = o )
# why
        set sum_of[ o ]+1  # one more

#next
rule   r   "title # not a comment" :require(once within 10m ok pay(to = o)and not  confirmed)
before pay(to=o)
scenario "s":allow pay(amount=1) ok {"a":[1,- 2.5]} # minus


# end"""

NEAT = """# The shop.
tool pay(amount: Decimal(2), to: [Id]?) -> {id: Id}  #pays
tool ping()
tool pong()
register sum_of[o]: Int = 0 on ok pay(to = o)
  # why
  set sum_of[o] + 1  # one more

#next
rule r "title # not a comment": require (once within 10m ok pay(to = o) and not confirmed)
  before pay(to = o)
scenario "s": allow pay(amount = 1) ok {"a": [1, -2.5]}  # minus

# end
"""


def meaning(text: str) -> str:
    """The syntax tree without places."""
    return re.sub(r"Span\(line=\d+, column=\d+\)", "", repr(parse(text)))


def comments(text: str) -> list[str]:
    """All comments."""
    return re.findall(r"#[^\n\"]*$", text, re.MULTILINE)


def test_a_file_laid_out() -> None:
    assert laid_out(UGLY) == NEAT


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_layout_keeps_meaning_and_comments_and_is_done_once(number: int) -> None:
    text = TEXTS[number]
    neat = laid_out(text)
    assert meaning(neat) == meaning(text)
    assert [comment.strip() for comment in comments(neat)] == [comment.strip() for comment in comments(text)]
    assert laid_out(neat) == neat


def test_the_command_writes_the_file_and_can_only_look(tmp_path: Path) -> None:
    file = tmp_path / "x.rules"
    file.write_text("tool   f()\n")
    assert CliRunner().invoke(app, ["rules", "fmt", "--check", str(file)]).exit_code == 1
    assert file.read_text() == "tool   f()\n"
    assert CliRunner().invoke(app, ["rules", "fmt", str(file)]).exit_code == 0
    assert file.read_text() == "tool f()\n"
    assert CliRunner().invoke(app, ["rules", "fmt", "--check", str(file)]).exit_code == 0
    file.write_text("tool f(\n")
    assert CliRunner().invoke(app, ["rules", "fmt", str(file)]).exit_code == 78
    assert file.read_text() == "tool f(\n"
