"""The line between the kernel and a core (a place where model calls run): orders down, messages up.

Wire: length-prefixed (4 bytes, big endian) msgspec JSON over a socket; KV and logits never cross it. Every order and
message about a context carries its epoch; after kill, resume or restart a message of an older epoch is dropped.
The token log (kernel) is the truth, KV is a cache: any order may be repeated after a restart of the core.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
from pydantic import BaseModel

from aios.abi.chat import Generation, TokenLogprob, ToolCall
from aios.abi.process import ProcessClass
from aios.abi.sched import Rates
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.ids import ContextId


class MaskState(msgspec.Struct, frozen=True):
    """What the guard's mask needs to know of one process: residuals per tool, made by the monitor in the kernel.

    `residuals` is the guard's own JSON (aios.guard.masking.residual); a core that cannot mask ignores it.
    `version` counts the trace events that the residuals reflect.
    """

    rules: str
    version: int
    residuals: dict[str, Any]
    calls: int = 0
    """Calls of the running generation that the residuals count as started (`Called`)."""
    hints: dict[str, str] = {}
    """Tool → why the call told by `Called` is refused and what would come first; for cores that ask again in words."""


class ProcessFacts(msgspec.Struct, frozen=True):
    """What scheduling needs to know of a process; sent with each submission and when it changes."""

    pid: int
    klass: ProcessClass = ProcessClass.INTERACTIVE
    nice: int = 0
    attained_tokens: int = 0
    """Service that the whole program has had."""
    deadline_s: float | None = None
    kv_pages: int | None = None
    """Most device pages that it may hold."""
    tenant: str = ""
    """Whose it is: only processes of one tenant share pages."""


# --- orders: kernel → core -------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, kw_only=True, tag_field="order"):
    """Base of all orders."""


class ContextOrder(Order, frozen=True, kw_only=True):
    """An order about one context. `ticket` is echoed by the message that answers it."""

    context: ContextId
    epoch: int
    ticket: int = 0


class Submit(ContextOrder, frozen=True, kw_only=True, tag="submit"):
    """Generate. The context's KV is reused as far as its tokens are a prefix of the new prompt.

    `generated` are completion tokens that an earlier run already made (recovery): the core goes on after them;
    sampler, grammar and mask are brought to that point. `lease_tokens` is a hard line: the core stops there with
    finish `length`.
    """

    request: LlmGenerate
    tools: tuple[ToolSpec, ...] = ()
    facts: ProcessFacts
    generated: tuple[int, ...] = ()
    generated_text: str = ""
    """Text of `generated`, for a core that knows no token ids."""
    mask: MaskState | None = None
    lease_tokens: int


class Suspend(ContextOrder, frozen=True, kw_only=True, tag="suspend"):
    """Take the context off the device, between steps, and keep it off until Resume. Answer: `Described`."""

    tier: str = "host"


class Resume(ContextOrder, frozen=True, kw_only=True, tag="resume"):
    """Undo Suspend: bring the pages back and, if a generation was under way, go on. Answer: `Described`,
    once they are back."""


class Fork(ContextOrder, frozen=True, kw_only=True, tag="fork"):
    """Copy the context into a new one, pages shared copy-on-write. Answer: `Described` of the new one."""

    into: ContextId


class Drop(ContextOrder, frozen=True, kw_only=True, tag="drop"):
    """Forget pages and state of a context; a running generation ends with `cancelled`. Answer: `Described`."""


class Cancel(ContextOrder, frozen=True, kw_only=True, tag="cancel"):
    """End the running generation with finish `cancelled`; the KV stays."""


class Describe(ContextOrder, frozen=True, kw_only=True, tag="describe"):
    """Ask for pages and digests. Answer: `Described`."""


class Steer(ContextOrder, frozen=True, kw_only=True, tag="steer"):
    """Replace the guard's mask state of a context whose generation may be running."""

    mask: MaskState


class Reclassify(Order, frozen=True, kw_only=True, tag="reclassify"):
    """New facts of a process."""

    facts: ProcessFacts


class Shutdown(Order, frozen=True, kw_only=True, tag="shutdown"):
    """End in order."""


AnyOrder = Submit | Suspend | Resume | Fork | Drop | Cancel | Describe | Steer | Reclassify | Shutdown


# --- messages: core → kernel -----------------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message"):
    """Base of all messages."""


class ContextMessage(Message, frozen=True, kw_only=True):
    context: ContextId
    epoch: int
    ticket: int = 0


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The core can take orders."""

    model: str
    model_sha256: str
    architecture: str
    dtype: str
    device: str
    max_context: int
    vocab_size: int
    page_tokens: int
    page_bytes: int
    pages: int
    pid: int = 0
    load_s: float = 0.0
    call_format: str = "hermes"
    """How the model writes tool calls: a name of `aios.formats.spelling`."""
    token_mask: bool = True
    kv_snapshot: bool = True
    priority: bool = True
    logprobs: bool = True
    rates: Rates | None = None
    """What the machine does with this model, as far as it is known at the start."""


class Admitted(ContextMessage, frozen=True, kw_only=True, tag="admitted"):
    """The prompt is tokenised and waits for its first step."""

    prompt_tokens: int
    cached_tokens: int


class Masked(msgspec.Struct, frozen=True):
    """The unmasked argmax of this step (over the whole vocabulary) is a token that the rule forbids."""

    token: int
    token_text: str
    rule: str
    taken_text: str
    version: int


class TokenRow(msgspec.Struct, frozen=True):
    """The token that a context got in a step."""

    context: ContextId
    epoch: int
    position: int
    """Completion tokens before this one."""
    token: int
    """-1 where the core does not know token ids (an endpoint streams text): then a row is a piece of the stream."""
    text: str
    """Bytes that became printable with this token (may be empty in the middle of a character)."""
    masked: Masked | None = None
    logprob: TokenLogprob | None = None
    since: int = 0
    """Position at which the text begins that the answer could be gone on with from here; what stands before is void
    (an answer that began anew). Behind this row: nothing of it is (an answer to a question that only the core knows).
    """
    calls_since: int | None = None
    """Position at which the output's first call begins, or what may yet be one: from there on all may be decoded again
    when the guard refuses a call."""


class Called(ContextMessage, frozen=True, kw_only=True, tag="called"):
    """A masked generation has completed a call and may begin another one. Answer: `Steer` with as many `calls`.

    Until then the row sits out; without an answer in time the core lets no further call begin. A core that cannot mask
    tells of calls that it found forbidden, before it asks again. Answer: `Steer` with `hints`.
    """

    calls: tuple[ToolCall, ...]
    """All complete calls of the generation so far."""


class Stepped(Message, frozen=True, kw_only=True, tag="stepped"):
    """All tokens of one forward step."""

    step: int
    rows: tuple[TokenRow, ...]


class Finished(ContextMessage, frozen=True, kw_only=True, tag="finished"):
    """A generation ended. Its usage is complete; `generation.tokens` are all completion tokens."""

    generation: Generation


class Refused(ContextMessage, frozen=True, kw_only=True, tag="refused"):
    """The order cannot be done: code and what would work. A refused Submit ends its generation."""

    code: str
    reason: str


class Switched(ContextMessage, frozen=True, kw_only=True, tag="switched"):
    """A context left the device or came back, by decision of the core's scheduler or by order."""

    direction: str
    tier: str
    reason: str
    pages: int
    bytes: int
    mid_generation: bool
    generated: int
    seconds: float = 0.0


class Described(ContextMessage, frozen=True, kw_only=True, tag="described"):
    """Answer to Suspend, Resume, Fork, Drop and Describe: the context as it is now."""

    tier: str
    tokens: int
    pages: int
    shared_pages: int = 0
    digests: tuple[str, ...] = ()
    seconds: float = 0.0


class ContextPages(msgspec.Struct, frozen=True):
    context: ContextId
    tokens: int
    device: int
    host: int
    disk: int


class Statistics(Message, frozen=True, kw_only=True, tag="statistics"):
    """A few times a second while there is work, and once when it ends."""

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
    """Pages copied out of the device pool by switches, in total."""
    switches: int
    masked_argmax: int
    step_ms: float
    contexts: tuple[ContextPages, ...] = ()
    rates: Rates | None = None
    """What the machine does with this model, by its latest copies and steps."""
    pages_cached: int = 0
    """Pages that no context contains, kept for a prompt that begins the same; those on the device count as free."""
    tokens_shared: int = 0
    """Tokens of prompts whose pages another context had computed, in total."""
    rows_waited: int = 0
    """Rows that sat out a step because the guard's answer was not there yet, in total."""
    masks_given_up: int = 0
    """How often it did not come in time, so that what it would have allowed was forbidden, in total."""
    steering: str = "mask"
    """What the rules can do to a generation here: `mask` its tokens; only restrict the `schemas` of what is offered,
    check what comes and ask again; or `none`. The kernel's gate judges in any case."""


class CoreState(msgspec.Struct, frozen=True):
    """One of several cores as it is now."""

    name: str
    models: tuple[str, ...]
    """Names by which its model can be asked for."""
    device: str
    """Where it computes: a device, or an endpoint's address."""
    is_up: bool
    calls: int
    """Generations that it has."""
    reason: str = ""
    """Why it is not up, or why the last call that failed there did; empty once one has succeeded."""


class Members(Message, frozen=True, kw_only=True, tag="members"):
    """The cores that stand behind this one, whenever one of them has changed."""

    cores: tuple[CoreState, ...]


class Lost(Message, frozen=True, kw_only=True, tag="lost"):
    """Made by the kernel's side of the socket: the core is gone. `Ready` follows if it could be restarted."""

    reason: str
    restarting: bool


AnyMessage = (
    Ready | Admitted | Stepped | Called | Finished | Refused | Switched | Described | Statistics | Members | Lost
)


class Core(Protocol):
    """A place where model calls run. Implemented by the client of our engine host and by the latency core."""

    async def start(self) -> Ready:
        """Start it and wait until it can take orders. Raises EngineLost or ModelError."""
        ...

    async def send(self, order: AnyOrder) -> None:
        """Hand over an order; returns when it is written. Orders of one context are done in order.

        While the core is down orders are dropped: the kernel submits again after `Ready`.
        """
        ...

    def messages(self) -> AsyncIterator[AnyMessage]:
        """Everything that the core says, in order; ends when the core is closed. One reader."""
        ...

    async def aclose(self) -> None:
        """End it; idempotent."""
        ...


def _encode_hook(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot cross to a core")


def _decode_hook(kind: type, value: Any) -> Any:
    if issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise TypeError(f"{kind.__name__} cannot cross from a core")


ENCODER = msgspec.json.Encoder(enc_hook=_encode_hook)
ORDER_DECODER = msgspec.json.Decoder(AnyOrder, dec_hook=_decode_hook)
MESSAGE_DECODER = msgspec.json.Decoder(AnyMessage, dec_hook=_decode_hook)
