"""What happens to a context's pages while it has nothing to do (a tool runs, a person thinks).

Owns the choice keep or swap; does not know who else wants the pages beyond one number, the pressure. Pure.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

Choice = Literal["keep", "swap"]


@dataclass(frozen=True, slots=True)
class Idle:
    """A context without work."""

    pages: int
    idle_s: float
    """How long it has been idle."""
    expected_s: float
    """How long such a pause usually lasts in total."""
    switch_s: float
    """Time to take its pages out and bring them back."""
    pressure: float
    """Share of the device pool in use, 0 to 1."""


class Retention(Protocol):
    """Decides for one idle context; asked again whenever the engine likes."""

    def decide(self, idle: Idle) -> Choice:
        """Return whether its pages stay on the device."""
        ...


class Keep:
    """Pages stay until someone needs them."""

    def decide(self, idle: Idle) -> Choice:
        """Keep."""
        return "keep"


class BreakEven:
    """Swap when the memory-time to be wasted outweighs the switch.

    Idle pages cost `pages * rest of the pause`, weighted by pressure (free memory costs nothing to waste); a switch
    costs `pages * switch time` once. A pause that outlives its estimate is expected to last as long again, so the
    wrong guess costs at most twice the best choice.
    """

    def decide(self, idle: Idle) -> Choice:
        """Compare the two costs."""
        rest_s = max(idle.expected_s - idle.idle_s, idle.idle_s)
        return "swap" if rest_s * idle.pressure > idle.switch_s else "keep"


def make_retention(name: str) -> Retention:
    """Return the retention policy `keep` or `break-even`."""
    policies: dict[str, Retention] = {"keep": Keep(), "break-even": BreakEven()}
    if name not in policies:
        raise ValueError(f"retention {name!r} is unknown; one of {', '.join(policies)}")
    return policies[name]
