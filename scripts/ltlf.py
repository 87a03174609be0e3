"""flloat, an LTLf library of others, in an environment of its own in the user's cache folder; and the table of answers.

`python -m scripts.ltlf` writes `tests/guard/ltlf_table.json` anew: formulas and traces that we draw, and what flloat
says of them. `make prove PART=outside` asks it about many more.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from platformdirs import user_cache_path

from aios.errors import ToolError
from tests.guard.ltlf import TABLE, Formula, Trace, drawn_formula, drawn_trace, holding, judgeable, theirs

VERSION = "0.3.0"
PACKAGES = (f"flloat=={VERSION}", "lark-parser==0.12.0", "pythomata==0.3.2", "sympy==1.14.0")
CASES = 240


class Flloat:
    """flloat behind two pipes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def truths(self, formula: Formula, trace: Trace) -> list[bool]:
        """The formula's value, read as past formula, after each judgeable position of the trace."""
        reversed_ = [[holding(event) for event in trace[: last + 1]][::-1] for last in judgeable(trace)]
        return self._ask({"formula": theirs(formula), "traces": reversed_})

    def _ask(self, question: dict[str, Any]) -> list[bool]:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        pipe_in.write(json.dumps(question) + "\n")
        pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            raise ToolError(f"flloat ended at {question['formula']!r}")
        found: list[bool] = json.loads(line)
        return found


@contextmanager
def flloat() -> Iterator[Flloat]:
    """Start it; its environment is made when it is missing. Raises ToolError."""
    command = [str(python()), str(Path(__file__).with_name("ltlf_child.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Flloat(process)
        finally:
            process.kill()


def python() -> Path:
    """The interpreter of flloat's environment. Raises ToolError where that cannot be made."""
    folder = user_cache_path("aios") / "peers" / f"flloat-{VERSION}"
    found, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists():
        print(f"  making flloat's environment in {folder}, once …", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(found), "-m", "pip", "install", "-q", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"flloat cannot be installed: {done.stderr.strip()[-400:]}")
        stamp.touch()
    return found


def table(peer: Flloat, cases: int) -> Iterator[dict[str, Any]]:
    """Cases whose answers are not all alike."""
    random = Random(9)
    while cases:
        formula, trace = drawn_formula(random, 4), drawn_trace(random, 9)
        truths = peer.truths(formula, trace)
        if len(set(truths)) == 2:
            cases -= 1
            yield {"formula": formula, "trace": trace, "truths": "".join("01"[truth] for truth in truths)}


def written(cases: Sequence[dict[str, Any]]) -> str:
    """The table: one case a line."""
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    return f'{{"by":"flloat {VERSION}","cases":[\n{lines}\n]}}\n'


def main() -> None:
    """Write the table."""
    with flloat() as peer:
        TABLE.write_text(written(list(table(peer, CASES))))
    print(f"{CASES} cases in {TABLE}")


if __name__ == "__main__":
    main()
