"""One tool: its specification and how it is run.

Owns the pairing of a `ToolSpec` with code. A tool made from a function is still callable as that function, so a
program tests it without a kernel. Knows neither limits nor journals.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, NamedTuple

from typing_extensions import ParamSpec, TypeVar

from aios.abi.base import Json
from aios.abi.tools import ToolSpec
from aios.tools.context import Ctx

P = ParamSpec("P", default=...)
R_co = TypeVar("R_co", covariant=True, default=Any)

Invoke = Callable[[dict[str, Any], Ctx[Any]], Awaitable[Any]]
"""Runs the tool on decoded arguments, in the event loop."""
Decode = Callable[[Mapping[str, Json]], dict[str, Any]]
"""Makes Python values of arguments that match the schema. Raises ValueError."""
Approve = bool | Callable[[dict[str, Any]], bool]


class Outcome(NamedTuple):
    """What became of an earlier call, as a tool's `status` function tells it from the idempotency key."""

    state: Literal["done", "absent", "unknown"]
    """`done`: it took effect. `absent`: it certainly did not. `unknown`: nobody can tell."""
    result: Json = None
    """Of a call that is done; of an unknown one, why nobody can tell."""


Status = Callable[[str], "Outcome | Awaitable[Outcome]"]


class Tool(Generic[P, R_co]):
    """A tool that can be put into a toolbox. Made by `@tool`, or directly for tools that are not Python functions.

    `invoke` must end promptly when cancelled. Without `decode` it receives the JSON arguments as they are.
    """

    def __init__(
        self,
        spec: ToolSpec,
        invoke: Invoke,
        *,
        function: Callable[P, R_co] | None = None,
        decode: Decode | None = None,
        defaults: Mapping[str, Json] | None = None,
        approve: Approve = False,
        status: Status | None = None,
    ) -> None:
        self.spec, self.invoke, self.function = spec, invoke, function
        self.decode: Decode = decode or dict
        self.defaults: Mapping[str, Json] = defaults or {}
        self.approve, self.status = approve, status

    @property
    def name(self) -> str:
        """The name that models and rules use."""
        return self.spec.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself: no kernel, no rules, no journal."""
        if self.function is None:
            raise TypeError(f"tool {self.name!r} was not made from a function; call it through a kernel")
        return self.function(*args, **kwargs)

    def is_same(self, other: "Tool[..., Any]") -> bool:
        """Whether both run the same code under the same specification."""
        same_code = self.invoke is other.invoke if self.function is None else self.function is other.function
        return self is other or (same_code and self.spec == other.spec)

    def needs_approval(self, arguments: dict[str, Any]) -> bool:
        """Whether a person must agree to this very call. A predicate that fails counts as yes."""
        if isinstance(self.approve, bool):
            return self.approve or self.spec.needs_approval
        try:
            return bool(self.approve(arguments))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return True

    def __repr__(self) -> str:
        return f"<tool {self.name} ({self.spec.effect})>"
