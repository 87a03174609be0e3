"""The durable facts of the kernel and how they become journal records and back.

Owns the closed set of facts: whatever is not among them does not survive a restart. Knows neither the state that they
fold into nor the store. A fact is only ever applied after it is durable.
"""

from typing import Any

import msgspec
from pydantic import BaseModel

from aios.abi.base import Json
from aios.abi.guard import TraceEvent
from aios.abi.process import ApprovalInfo, CapSpec, ProcessClass, Quota, Trust
from aios.abi.store import Record
from aios.abi.tools import Effect, ToolReport
from aios.errors import StoreError


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="fact"):
    """Base: `pid` is the process that the fact is about (0: the kernel and its operator)."""

    pid: int = 0


class KernelCreated(Fact, frozen=True, kw_only=True, tag="kernel.created"):
    """First of all: the identity that makes idempotency keys unique over all kernels."""

    instance: str


class ProcessStarted(Fact, frozen=True, kw_only=True, tag="process.started"):
    ppid: int
    name: str
    principal: str
    klass: ProcessClass
    nice: int
    trust: Trust
    quota: Quota
    rules: str
    token_hash: str
    input: Json = None


class ProcessExited(Fact, frozen=True, kw_only=True, tag="process.exited"):
    code: int
    reason: str = ""
    value: Json = None
    killed: bool = False


class ProcessReaped(Fact, frozen=True, kw_only=True, tag="process.reaped"):
    """Its parent took the result."""

    by: int


class StopSet(Fact, frozen=True, kw_only=True, tag="process.stop"):
    stopped: bool
    reason: str = ""


class NiceSet(Fact, frozen=True, kw_only=True, tag="process.nice"):
    nice: int


class SyscallDone(Fact, frozen=True, kw_only=True, tag="syscall.done"):
    """A reply that was, or is about to be, given: the same id gets the same bytes from now on."""

    id: str
    call: str
    digest: str
    request: msgspec.Raw
    reply: msgspec.Raw
    denied: bool = False
    queue_s: float = 0.0
    run_s: float = 0.0


class UsageAdded(Fact, frozen=True, kw_only=True, tag="usage.added"):
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    tool_calls: int = 0
    switches: int = 0


class TokensAppended(Fact, frozen=True, kw_only=True, tag="tokens.appended"):
    """Completion tokens of a running generation, from `position` on; what there was from there on is void."""

    id: str
    digest: str
    context: str
    position: int
    tokens: tuple[int, ...]
    text: str
    since: int = 0
    """Position at which the text that counts begins; `text` holds none from before it."""
    calls_since: int | None = None
    """Position at which the output's first call begins; from there on a later fact may begin anew."""


class ContextForked(Fact, frozen=True, kw_only=True, tag="context.forked"):
    context: str
    into: str


class SleepStarted(Fact, frozen=True, kw_only=True, tag="sleep.started"):
    id: str
    digest: str
    until: float


class ToolIntent(Fact, frozen=True, kw_only=True, tag="tool.intent"):
    """A call that was admitted; from here on it may have taken effect."""

    id: str
    index: int
    call_id: str
    tool: str
    arguments: dict[str, Json]
    effect: Effect
    key: str
    digest: str
    """Of the syscall's request."""
    cause: int
    """Number of its `start` event in the trace of the guard."""
    cap: int | None = None
    spend: float = 0.0
    attempt: int = 0
    """Counts the runs that a person allowed although an earlier one may have taken effect."""


class ToolResult(Fact, frozen=True, kw_only=True, tag="tool.result"):
    id: str
    index: int
    report: ToolReport


class CallEmitted(Fact, frozen=True, kw_only=True, tag="call.emitted"):
    """A call that was handed to its caller to run; its `start` is event `cause` of the guard's trace."""

    call_id: str
    tool: str
    arguments: dict[str, Json]
    cause: int
    cap: int | None = None
    spend: float = 0.0
    context: str = ""
    request: str = ""
    """The `llm.generate` whose reply handed it out."""
    after: str = ""
    """The last committed call that the history of that request held."""


class CallReported(Fact, frozen=True, kw_only=True, tag="call.reported"):
    """What the caller says that became of an emitted call."""

    call_id: str
    status: str
    digest: str
    """Of the result."""


class ApprovalAsked(Fact, frozen=True, kw_only=True, tag="approval.asked"):
    """`id` and `index` tie it to the syscall that waits, so that a replay finds it again."""

    id: str
    index: int
    info: ApprovalInfo


class ApprovalDecided(Fact, frozen=True, kw_only=True, tag="approval.decided"):
    approval: int
    state: str
    by: str
    answer: str = ""


class CapGranted(Fact, frozen=True, kw_only=True, tag="cap.granted"):
    cap: int
    parent: int | None
    spec: CapSpec


class CapRevoked(Fact, frozen=True, kw_only=True, tag="cap.revoked"):
    """With everything derived from it."""

    cap: int


class RuleEvent(Fact, frozen=True, kw_only=True, tag="rule.event"):
    """An event of the guard's trace."""

    event: TraceEvent


class MemSet(Fact, frozen=True, kw_only=True, tag="mem.set"):
    key: str
    value: Json


class MemDeleted(Fact, frozen=True, kw_only=True, tag="mem.deleted"):
    key: str


class Announced(Fact, frozen=True, kw_only=True, tag="event.announced"):
    """An event that became durable together with what it belongs to, before anybody was told. It changes nothing."""

    event: msgspec.Raw


class EventKept(Fact, frozen=True, kw_only=True, tag="event"):
    """An event that outlives the kernel. It changes nothing; those who watch find it after a restart."""

    number: int
    event: msgspec.Raw
    of: int = 0
    """Number of the record that the event tells of; 0: it follows from none."""


AnyFact = (
    KernelCreated
    | ProcessStarted
    | ProcessExited
    | ProcessReaped
    | StopSet
    | NiceSet
    | SyscallDone
    | UsageAdded
    | TokensAppended
    | ContextForked
    | SleepStarted
    | ToolIntent
    | ToolResult
    | CallEmitted
    | CallReported
    | ApprovalAsked
    | ApprovalDecided
    | CapGranted
    | CapRevoked
    | RuleEvent
    | MemSet
    | MemDeleted
    | Announced
    | EventKept
)


def to_record(fact: AnyFact, time: float, *, flush: bool = False) -> Record:
    """Write `fact` as a journal record."""
    kind = fact.__struct_config__.tag
    assert isinstance(kind, str)
    return Record(kind=kind, pid=fact.pid, time=time, body=_ENCODER.encode(fact), flush=flush)


def to_fact(record: Record) -> AnyFact:
    """Read a journal record. Raises StoreError for one that this kernel did not write."""
    try:
        return _DECODER.decode(record.body)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"journal record {record.kind!r} of pid {record.pid} cannot be read: {error}") from error


def _encode_hook(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not durable")


def _decode_hook(kind: type, value: Any) -> Any:
    if issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise TypeError(f"{kind.__name__} is not durable")


_ENCODER = msgspec.json.Encoder(enc_hook=_encode_hook)
_DECODER: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact, dec_hook=_decode_hook)
