"""`run`: what is refused before a kernel is started, what a program sees, and what its end means."""

from pathlib import Path

import pytest

from aios.cli.run import resume_line
from tests.cli.conftest import Aios


def program(home: Path, text: str, name: str = "prog.py") -> str:
    path = home / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("notes.txt", "", "takes a .py file"),
        ("bad.py", "def f(:\n", "bad.py:1: not valid Python"),
        ("nul.py", "\0", "not valid"),
    ],
)
def test_what_is_no_program_is_refused_in_one_line(aios: Aios, home: Path, name: str, text: str, says: str) -> None:
    code, out, err = aios("run", program(home, text, name))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert says in err


def test_a_missing_file_is_a_usage_error(aios: Aios, home: Path) -> None:
    code, _out, err = aios("run", str(home / "missing.py"))
    assert code == 2
    assert "there is no such file" in err


def test_a_wrong_setting_names_its_flag_and_exits_with_78(aios: Aios, home: Path) -> None:
    code, _out, err = aios("run", program(home, ""), "--policy", "best")
    assert code == 78
    assert "policy" in err
    assert "best" in err


def test_a_program_sees_its_own_arguments(aios: Aios, home: Path) -> None:
    path = program(home, "import sys; print(sys.argv, __name__)")
    code, out, _err = aios("run", "--name", "x", path, "one", "--", "--two")
    assert (code, out) == (0, f"{[path, 'one', '--two']} __main__\n")


@pytest.mark.parametrize(("text", "code"), [("", 0), ("raise SystemExit(7)", 7), ("raise SystemExit('why')", 1)])
def test_the_programs_exit_status_is_ours(aios: Aios, home: Path, text: str, code: int) -> None:
    assert aios("run", program(home, text)).code == code


def test_an_error_of_the_system_in_a_program_is_one_line_with_its_exit_code(aios: Aios, home: Path) -> None:
    text = "from aios.errors import SyscallError\nraise SyscallError('no right', reply_code='E-CAP', denied=True)"
    code, _out, err = aios("run", program(home, text))
    assert (code, err) == (77, "aios: no right\n")


def test_ctrl_c_says_how_to_resume_and_exits_with_130(aios: Aios, home: Path) -> None:
    path = program(home, "raise KeyboardInterrupt")
    code, _out, err = aios("run", path, "--name", "night", "--fresh", "two words")
    assert code == 130
    assert err.strip().endswith(f"aios run {path} --name night -- 'two words'")


def test_without_a_name_the_same_file_resumes() -> None:
    assert resume_line(Path("a b.py"), [], None) == "aios run 'a b.py'"
