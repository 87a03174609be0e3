"""T5: no dead ends. Small games of an agent against its environment, played on the gate and beside it on a solver.

V1: after each admitted move the solver finds a continuation that ends the process. The figures tell how permissive the
gate is: the share of moves after which an end can be reached and that it denies all the same, none of them in games
whose duties are all in the table.
V2: from a start that is won, no admitted move leaves the states that are won, and one that stays is admitted, whatever
the answers.
A game in which rules alone would let the agent walk into a dead end
counts as `stuck under V0`.
"""

from collections import Counter

from tests.guard.game_play import played, played_for_certain
from tests.prove.check import Check, Outcome

MOVES = 14
_COUNTED = ("stuck under V0", "in the table", "admitted", "viable and denied", "states not viable", "left out")


def games(seed: int) -> Outcome:
    """Draw one game and play it."""
    finding, seen = played(seed, MOVES)
    viable = seen["admitted"] + seen["viable and denied"]
    share = {"denied_share": [seen["viable and denied"] / viable]} if viable else {}
    return Outcome(finding, _counts(seen), share)


def _counts(seen: Counter[str]) -> dict[str, int]:
    return {name.replace(" ", "_"): seen[name] for name in _COUNTED}


def certain_games(seed: int) -> Outcome:
    """Draw one game that is won under V2, and play it against answers of every kind."""
    finding, seen = played_for_certain(seed, MOVES)
    return Outcome(finding, {name: seen[name.replace("_", " ")] for name in ("stuck_under_V0", "admitted", "left_out")})


CHECKS = (
    Check("games", games, {"stuck_under_V0": 1000, "in_the_table": 200}),
    Check("certain-games", certain_games, {"stuck_under_V0": 1000}),
)
