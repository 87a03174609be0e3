"""What happened, for those who watch: monitor, logs, benchmarks, the demo's own judgement.

Events are facts of the kernel, numbered without gaps while it lives; after a restart the numbers go on higher up, and
the kept ones of earlier kernels stand before. They carry no secrets and no prompt text beyond what a process streamed
itself. Wire form: one JSON object a line, `kind` is the tag.
"""

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=False):
    """Base: `seq` is the event's number, `time` seconds since the epoch, `pid` the process (0: the kernel)."""

    seq: int = 0
    time: float = 0.0
    pid: int = 0


class ProcessSpawned(Event, frozen=True, kw_only=True, tag="process.spawned"):
    ppid: int
    name: str


class StateChanged(Event, frozen=True, kw_only=True, tag="process.state"):
    old: str
    new: str
    reason: str = ""


class ProcessExited(Event, frozen=True, kw_only=True, tag="process.exited"):
    code: int
    reason: str = ""


class SyscallFinished(Event, frozen=True, kw_only=True, tag="syscall.finished"):
    id: str
    call: str
    status: str
    code: str = ""
    reason: str = ""
    queue_s: float = 0.0
    run_s: float = 0.0
    replayed: bool = False


class TokensStreamed(Event, frozen=True, kw_only=True, tag="llm.tokens"):
    """A durable piece of output."""

    context: str
    text: str
    num_tokens: int


class GenerationRecovered(Event, frozen=True, kw_only=True, tag="llm.recovered"):
    """A generation that was cut off has ended all the same; `how` is its reply's `recovery`."""

    context: str
    how: str


class TokenMasked(Event, frozen=True, kw_only=True, tag="guard.masked"):
    """The unmasked argmax of a step was a token that a rule forbids."""

    context: str
    step: int
    """The core's step number."""
    position: int
    """Completion tokens of the generation before it."""
    token: int
    token_text: str
    rule: str
    taken: int
    taken_text: str
    trace_version: int


class CallRedone(Event, frozen=True, kw_only=True, tag="guard.redone"):
    """A call that the gate would refuse is decoded again from its first token on; nobody got it."""

    context: str
    tool: str
    """Empty where the call was not complete: the rules had changed so that it could not be any more."""
    rules: tuple[str, ...]
    why: str
    """`stale_mask` (an older state of the trace still allowed it), or the mode: `resample`, `hybrid`."""
    masked: bool
    """Whether the next try is masked."""
    tokens: int
    """How many are void."""


class GateJudged(Event, frozen=True, kw_only=True, tag="guard.gate"):
    tool: str
    arguments: dict[str, Any]
    verdict: str
    """`allow` or `deny`."""
    rules: tuple[str, ...] = ()
    reason: str = ""
    stale_mask: bool = False
    level: str = "L2"
    """Where the gate stood: `L2` before the kernel runs the tool, `L1` before the call is handed to its caller."""


class ToolStarted(Event, frozen=True, kw_only=True, tag="tool.started"):
    call_id: str
    tool: str
    effect: str
    key: str


class ToolFinished(Event, frozen=True, kw_only=True, tag="tool.finished"):
    call_id: str
    tool: str
    status: str
    run_s: float
    reason: str = ""


class ApprovalAsked(Event, frozen=True, kw_only=True, tag="approval.asked"):
    approval: int
    what: str
    digest: str


class ApprovalDecided(Event, frozen=True, kw_only=True, tag="approval.decided"):
    approval: int
    state: str
    by: str


class ChildWaited(Event, frozen=True, kw_only=True, tag="process.waited"):
    child: int
    code: int


class ContextSwitched(Event, frozen=True, kw_only=True, tag="ctx.switched"):
    """A context left the device or came back."""

    context: str
    direction: str
    """`out`, `in`, or `moved` to another core."""
    tier: str
    """Where it went to or came from: host, disk, dropped."""
    reason: str
    """quantum, pages, order, fork, recovery, fail-over (with the cores and why)."""
    pages: int
    bytes: int
    mid_generation: bool
    generated: int = 0
    """Completion tokens of the running generation at that moment."""
    seconds: float = 0.0
    digest: str = ""
    """Over all page digests, when the switch was ordered by `ctx.suspend` or `ctx.resume`."""


class CoreReady(Event, frozen=True, kw_only=True, tag="core.ready"):
    model: str
    model_sha256: str
    restarts: int = 0
    load_s: float = 0.0


class CoreLost(Event, frozen=True, kw_only=True, tag="core.lost"):
    reason: str


class CoreStatistics(Event, frozen=True, kw_only=True, tag="core.statistics"):
    """A few times a second while the core works."""

    forward_passes: int
    running: int
    waiting: int
    suspended: int
    tokens_per_s: float
    pages_total: int
    pages_free: int
    pages_host: int
    pages_disk: int
    pages_swapped: int
    switches: int
    masked_argmax: int = 0
    step_ms: float = 0.0
    pages_cached: int = 0
    tokens_shared: int = 0
    rows_waited: int = 0
    """Steps that rows sat out because their mask was not ready."""
    masks_given_up: int = 0
    """Times that the state for a further call did not come in time, so that none could be begun."""
    steering: str = "mask"
    """`mask`, `schemas` (restricted offers, checks, asking again) or `none`: what the rules can do in this core."""


AnyEvent = (
    ProcessSpawned
    | StateChanged
    | ProcessExited
    | SyscallFinished
    | TokensStreamed
    | GenerationRecovered
    | TokenMasked
    | CallRedone
    | GateJudged
    | ToolStarted
    | ToolFinished
    | ApprovalAsked
    | ApprovalDecided
    | ChildWaited
    | ContextSwitched
    | CoreReady
    | CoreLost
    | CoreStatistics
)

ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(AnyEvent)
