"""What a syscall answers: `Ok`, `Denied` or `Failed`, each with its times; never an exception across the ABI."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from aios.abi.base import Json, Model


class Timing(Model):
    """Where a syscall's time and bytes went. Always filled."""

    queue_s: float = 0.0
    run_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Ok(Model):
    """Done; `value` is JSON, the same bytes when the reply is replayed."""

    status: Literal["ok"] = "ok"
    value: Json = None
    timing: Timing = Timing()


class Denied(Model):
    """Refused by access control, quota or the guard. `code` is stable, `reason` says what would work."""

    status: Literal["denied"] = "denied"
    code: str
    reason: str
    details: dict[str, Any] = Field(default_factory=dict)
    timing: Timing = Timing()


class Failed(Model):
    """Admitted but not done: the world failed, or the request was wrong."""

    status: Literal["failed"] = "failed"
    code: str
    reason: str
    details: dict[str, Any] = Field(default_factory=dict)
    timing: Timing = Timing()


Reply = Annotated[Ok | Denied | Failed, Field(discriminator="status")]
REPLY: TypeAdapter[Ok | Denied | Failed] = TypeAdapter(Reply)


class Delta(Model):
    """A piece of a streamed reply, sent only after its tokens are durable. The reply itself comes last."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    position: int = 0
    """Completion tokens before this piece."""
