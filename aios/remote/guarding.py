"""What a core that cannot mask needs of the guard; made by the composition root, so that neither knows the other."""

from collections.abc import Sequence
from typing import Protocol

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec


class Restriction(Protocol):
    """The guard's say on one request."""

    def offer(self, state: MaskState, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Return the tools that some arguments are allowed for, their schemas narrowed where only constants are left.

        What it leaves out is certainly forbidden; not all that it leaves in is allowed.
        """
        ...

    def objection(self, state: MaskState, tools: Sequence[ToolSpec], call: ToolCall) -> str | None:
        """Return why the call is forbidden, in a sentence that a model can act on; None if it is not."""
        ...


class Unrestricted:
    """No rule is in force."""

    def offer(self, state: MaskState, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Return all."""
        return tuple(tools)

    def objection(self, state: MaskState, tools: Sequence[ToolSpec], call: ToolCall) -> str | None:
        """Never object."""
        return None
