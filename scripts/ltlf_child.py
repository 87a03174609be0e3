"""Answers questions about LTLf formulas with flloat; runs in flloat's own environment and imports nothing of ours.

A line in: `{"formula": text, "traces": [[[atom, …], …], …]}`, a trace being the atoms that hold at each position. A
line out: `[truth, …]`, the formula's value at the first position of each trace.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Answer until the input ends."""
    from flloat.parser.ltlf import LTLfParser  # type: ignore[import-not-found]  # noqa: PLC0415 - it is not installed in ours

    parser = LTLfParser()
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        formula = parser(asked["formula"])
        traces = [[dict.fromkeys(atoms, True) for atoms in trace] for trace in asked["traces"]]
        print(json.dumps([bool(formula.truth(trace, 0)) for trace in traces]), flush=True)


if __name__ == "__main__":
    main()
