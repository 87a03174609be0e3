"""`@tool`: from a typed function to a `Tool`."""

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast, overload

from pydantic import ValidationError

from aios.abi.tools import Effect, ToolSpec
from aios.errors import UsageError
from aios.tools.context import Ctx
from aios.tools.signature import Signature, read_signature
from aios.tools.threads import THREADS
from aios.tools.tool import Approve, Invoke, Status, Tool

P = ParamSpec("P")
R = TypeVar("R")


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    effect: Effect | str = Effect.ONCE,
    timeout_s: float | None = None,
    concurrency: int = 0,
    approve: Approve = False,
    inverse: "str | Tool[..., Any] | None" = None,
    status: Status | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    effect: Effect | str = Effect.ONCE,
    timeout_s: float | None = None,
    concurrency: int = 0,
    approve: Approve = False,
    inverse: "str | Tool[..., Any] | None" = None,
    status: Status | None = None,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a tool of a typed function; hints become the schema, the docstring the descriptions.

    `effect` says what a call does to the world and so what happens after a crash (default: `once`). `approve` is True,
    or a predicate over the JSON arguments. `inverse` names the tool that undoes this one. `status` tells from an
    idempotency key what became of a call. Plain functions run in a thread, coroutine functions in the event loop.

    Raises UsageError naming what cannot be offered to a model.
    """

    def make(target: Callable[P, R]) -> Tool[P, R]:
        title = name or _name_of(target)
        signature, description = read_signature(target, title)
        spec = _spec(
            name=title,
            description=description.text,
            parameters=signature.parameters,
            returns=signature.returns,
            effect=effect,
            timeout_s=timeout_s,
            concurrency=concurrency,
            needs_approval=approve is not False,
            inverse=inverse.name if isinstance(inverse, Tool) else inverse,
        )
        return Tool(
            spec,
            _invoke(target, signature),
            function=target,
            decode=signature.decode,
            defaults=signature.defaults,
            approve=approve,
            status=status,
        )

    return make if function is None else make(function)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _spec(**fields: Any) -> ToolSpec:
    try:
        spec = ToolSpec(**fields)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UsageError(f"tool {fields['name']!r}: {problems}") from error
    if spec.effect is Effect.REVERSIBLE and spec.inverse is None:
        raise UsageError(f"tool {spec.name!r} is reversible: name the tool that undoes it with inverse=")
    return spec


def _invoke(function: Callable[..., Any], signature: Signature) -> Invoke:
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004

    def bind(arguments: dict[str, Any], context: Ctx[Any]) -> Callable[[], Any]:
        extra = {} if signature.context is None else {signature.context: context}
        return partial(function, **arguments, **extra)

    async def in_loop(arguments: dict[str, Any], context: Ctx[Any]) -> Any:
        return await cast(Callable[[], Coroutine[Any, Any, Any]], bind(arguments, context))()

    async def in_thread(arguments: dict[str, Any], context: Ctx[Any]) -> Any:
        return await THREADS.run(bind(arguments, context))

    return in_loop if inspect.iscoroutinefunction(call) else in_thread
