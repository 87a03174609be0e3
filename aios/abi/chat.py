"""Conversations as a model sees them: messages, tool calls, sampling, and what a generation gives back."""

from typing import Any, Literal

from pydantic import Field

from aios.abi.base import Json, Model
from aios.abi.tools import ToolReport

ToolChoice = str
"""`auto`, `none`, `required`, or the name of the one tool to call."""


class ToolCall(Model):
    """One call that a model made: `id` is unique in the conversation."""

    id: str
    name: str
    arguments: dict[str, Json] = Field(default_factory=dict)


class Message(Model):
    """One message of a transcript."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


def _is_unset(value: object) -> bool:
    """Fields that came later are not written when they are empty: requests journalled before keep their digests."""
    return value is None


class Sampling(Model):
    """How tokens are chosen. Random numbers come from a counter (seed, position), never from a global generator."""

    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_tokens: int = Field(default=256, ge=1, le=131_072)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    repetition_penalty: float = Field(default=1.0, ge=0.1, le=10.0)
    logprobs: int = Field(default=0, ge=0, le=20)
    """Top alternatives reported per token; 0 = none."""
    ignore_eos: bool = False
    speculation: Literal["off", "ngram"] | None = Field(default=None, exclude_if=_is_unset)
    """Whether tokens may be guessed (which changes none of them); None: as the core is set."""
    jump_forward: Literal["off", "exact", "canonical"] | None = Field(default=None, exclude_if=_is_unset)
    """How tokens that the grammar forces may be taken; None: as the core is set. In deterministic mode `canonical` is
    taken for `exact`; `Generation.jump_forward` says what was done."""


GuardMode = Literal["mask", "resample", "hybrid"]
"""How the guard steers a generation. `mask`: no token is taken from which no allowed call can be completed.
`resample`: tokens are free; a complete call that the gate would refuse is decoded again by another draw, a few times,
and then masked. `hybrid`: free at first, masked after a refusal."""

Finish = Literal["stop", "length", "tool_calls", "context_full", "no_compliant_call", "cancelled"]


class Usage(Model):
    """Token and time accounting of one generation. Every field is always filled."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose KV was still there."""
    completion_tokens: int = 0
    queue_s: float = 0.0
    """From acceptance by the core until its first step."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    switches: int = 0
    """Times the context was preempted before it ended."""
    drafted_tokens: int = 0
    """Tokens that were guessed and computed beside the row (speculation)."""
    accepted_tokens: int = 0
    """Drafted tokens that the row's own choice confirmed."""
    forced_tokens: int = 0
    """Completion tokens that the grammar left no choice about, taken without logits (jump-forward)."""
    masked_steps: int = 0
    """Tokens at which the guard alone forbade the favourite."""
    refused_calls: int = 0
    """Calls that the guard refused and that were decoded again, before anybody got them."""
    stale_masks: int = 0
    """Of these, those that an older state of the trace had still allowed."""
    wasted_tokens: int = 0
    """Tokens of what was decoded again; not among `completion_tokens`, but charged."""


class TokenLogprob(Model):
    """One generated token, its log-probability and the best alternatives (before masks)."""

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Generation(Model):
    """The value of `llm.generate`."""

    text: str
    """Plain text outside tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    call_starts: tuple[int, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Completion tokens before each of `tool_calls`, where the core knows them; and before a further call, if one was
    begun."""
    finish: Finish
    tokens: tuple[int, ...] = ()
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] = ()
    mask_version: int | None = None
    """Trace version that the guard's mask used; the gate re-checks when it is older."""
    refused: tuple[ToolReport, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Calls of the caller's own tools that were not admitted, each with its reason; `tool_calls` holds the others.
    With `no_compliant_call` also tools (ids are empty) that cannot be called now whatever the arguments: by which
    rules, and the plan of calls that would have to come first."""
    parsed: Any = None
    """The JSON value when an output schema was asked for."""
    jump_forward: Literal["exact", "canonical"] | None = None
    """How forced tokens were taken, if any were. `canonical`: the model's tokenizer chose among spellings of the same
    text, so the tokens may differ from those that decoding one by one would have given."""
    speculation: Literal["ngram"] | None = None
    """How tokens were guessed, if any were (`Usage.drafted_tokens`)."""
    recovery: Literal["recomputed, not trace-exact", "continued from the partial text", "restarted"] | None = None
    """Set where the past was computed again after the first token (lost core, dropped pages) by numbers that depend on
    the batch: an uninterrupted run may have chosen other tokens. Never set where deterministic mode is exact.
    The other two tell of an endpoint that broke off: the answer went on behind its text, or began anew (`text` is the
    new one alone; what was streamed before it is void)."""
