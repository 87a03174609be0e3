"""What the tests of remote cores share: a core at a scripted endpoint, and orders for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

from aios.abi import core as c
from aios.abi.chat import Message, Sampling
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.config import CoreSettings
from aios.ids import ContextId
from aios.remote.core import RemoteCore
from aios.remote.guarding import Restriction
from aios.testing.endpoint import Act, ScriptedEndpoint

MAIN, OTHER = ContextId("1:main"), ContextId("2:main")
ADD = ToolSpec(
    name="math.add",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
)
M = TypeVar("M")


class Desk:
    """A core and everything that it said."""

    def __init__(self, core: RemoteCore, endpoint: ScriptedEndpoint) -> None:
        self.core, self.endpoint = core, endpoint
        self.said: list[c.AnyMessage] = []
        self._messages = core.messages()

    async def until(self, kind: type[M], context: ContextId | None = None) -> M:
        """Read until a message of this kind comes."""
        while True:
            message = await anext(self._messages)
            self.said.append(message)
            if isinstance(message, kind) and context in (None, getattr(message, "context", None)):
                return message

    async def finished(self, context: ContextId = MAIN) -> Any:
        """Return the generation of the next Finished; fail at Refused."""
        while True:
            message = await self.until(c.ContextMessage, context)
            assert not isinstance(message, c.Refused), message
            if isinstance(message, c.Finished):
                return message.generation

    @property
    def rows(self) -> list[c.TokenRow]:
        """All rows so far."""
        return [row for message in self.said if isinstance(message, c.Stepped) for row in message.rows]


@asynccontextmanager
async def desk(*acts: Act, restriction: Restriction | None = None, **settings: Any) -> AsyncIterator[Desk]:
    """Run a core at an endpoint that does `acts`."""
    endpoint = ScriptedEndpoint()
    endpoint.acts.extend(acts)
    with anyio.fail_after(20):
        async with endpoint.served():
            chosen = {"retry_wait_s": 0.001, "model": "m", "url": endpoint.url, **settings}
            core = RemoteCore("far", CoreSettings(**chosen), restriction)
            await core.start()
            try:
                yield Desk(core, endpoint)
            finally:
                await core.aclose()


def submit(text: str = "hi", context: ContextId = MAIN, *, epoch: int = 1, **fields: Any) -> c.Submit:
    """Order a generation."""
    asked = {name: fields.pop(name) for name in ("tool_choice", "output_schema") if name in fields}
    sampling = Sampling(max_tokens=fields.pop("max_tokens", 50))
    request = LlmGenerate(messages=(Message(role="user", content=text),), sampling=sampling, **asked)
    facts = fields.pop("facts", c.ProcessFacts(pid=int(context.split(":")[0])))
    return c.Submit(context=context, epoch=epoch, request=request, facts=facts, lease_tokens=1000, **fields)
