"""What the README shows is what the tree holds."""

import re
import subprocess
from pathlib import Path

from aios.cli.main import app
from aios.guard.judging.gate import compile_rules

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_program_shown_is_the_example() -> None:
    assert blocks("python") == [(ROOT / "examples" / "hello.py").read_text()]


def test_the_rule_shown_is_the_one_of_the_desk() -> None:
    [shown] = [block for block in blocks("") if block.startswith("rule ")]
    assert shown in (ROOT / "examples" / "support" / "desk.rules").read_text()
    assert compile_rules(shown).digest


def test_the_make_targets_shown_exist() -> None:
    for target in set(re.findall(r"`?make (?:TORCH=cpu )?([a-z-]+)", README)):
        assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False).returncode == 0, (
            target
        )


def test_the_verbs_shown_exist() -> None:
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    shown = set(re.findall(r"`?(?:bin/)?aios (ps|top|logs|kill|run|models|tools|doctor)\b", README))
    assert shown <= names | {"models", "tools"}


def test_every_page_that_is_linked_exists() -> None:
    for page in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / page).is_file(), page
