"""Worlds: tools that really do something, the rules that hold over them, and what people want of them.

A world knows neither guard nor model. `run` obeys the tools' own conditions only, so a call that the rules forbid
may well succeed: that is what the rules are for.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from aios.abi.tools import ToolSpec


class Call(NamedTuple):
    """A tool call, proposed or made."""

    tool: str
    args: dict[str, Any]


class Answer(NamedTuple):
    """What a tool answers: `err` says that nothing happened, and `value` is why."""

    kind: Literal["ok", "err"]
    value: Any


class Goal(NamedTuple):
    """One conversation: what the user says at its beginning, and the calls that do what is wanted."""

    name: str
    user: str
    """Whose conversation it is, as the data base names them."""
    text: str
    calls: tuple[Call, ...]


class World(Protocol):
    """Tools over a data base of their own."""

    name: str
    asking: frozenset[str]
    """Tools whose calls a person confirms first, one by one."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools, for models: JSON schemas and descriptions."""
        ...

    @property
    def rules(self) -> str:
        """The text of the rule file."""
        ...

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The conversations, in a fixed order."""
        ...

    def reset(self) -> None:
        """Undo all that was done since the beginning."""
        ...

    def run(self, tool: str, args: Mapping[str, Any]) -> Answer:
        """Do a call. Results are values of their own: what happens later does not change them."""
        ...


def shop() -> World:
    """The shop that we generate."""
    from tests.guard.shop.world import Shop

    return Shop()


def retail() -> World:
    """Our model of the retail tools over the data of the tau-bench family; skips where that data is absent."""
    from tests.guard.retail.desk import Desk

    return Desk()


WORLDS: dict[str, Callable[[], World]] = {"shop": shop, "retail": retail}
