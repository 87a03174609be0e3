"""Reading what a solver prints: `((term value) …)`.

Owns the cutting of S-expressions into their parts, as text. Knows neither sorts nor solver.
"""

import re

_PART = re.compile(r'"(?:[^"]|"")*"|\|[^|]*\||[()]|[^\s()"|]+')


def pairs(text: str) -> list[tuple[str, str]]:
    """Return terms and values of `((term value) …)`. Raises ValueError for anything else."""
    found = []
    for inner in inside(text):
        both = inside(inner)
        if len(both) != 2:
            raise ValueError(f"a term and its value were expected, not {inner}")
        found.append((both[0], both[1]))
    return found


def inside(text: str) -> list[str]:
    """Return the expressions inside one pair of brackets. Raises ValueError where there is no such pair."""
    parts = [match.group() for match in _PART.finditer(text)]
    if len(parts) < 2 or parts[0] != "(" or parts[-1] != ")":
        raise ValueError(f"an expression in brackets was expected, not {text}")
    depth, begun, found = 0, "", list[str]()
    for part in parts[1:-1]:
        depth += (part == "(") - (part == ")")
        begun += part if not begun or begun.endswith("(") or part == ")" else f" {part}"
        if depth == 0:
            found.append(begun)
            begun = ""
    if depth or begun:
        raise ValueError(f"brackets do not match in {text}")
    return found
