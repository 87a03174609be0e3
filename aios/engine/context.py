"""A context (everything needed to go on) and a turn (the generation that runs in it).

Owns the state of both and what follows from it alone; no scheduling, no copying, no model.
Invariant: `table.tokens <= len(tokens)`; what lies between is outstanding and must be computed before a token can be
chosen. After a turn's first token exactly one token is outstanding, unless pages were dropped.
"""

import json
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any, Literal

from aios.abi.chat import Finish, Generation, Sampling, TokenLogprob, Usage
from aios.abi.core import Submit
from aios.abi.guard import CallMask
from aios.engine import masks
from aios.engine.drafting import Drafter
from aios.engine.grammar import Grammar, PendingGrammar
from aios.engine.output import Output
from aios.engine.pages import PageTable
from aios.engine.prefix import Trail
from aios.ids import ContextId


@dataclass(slots=True)
class Occurrences:
    """Which tokens occur in a log that only grows."""

    _tokens: set[int] = field(default_factory=set)
    _read: int = 0

    def of(self, log: list[int]) -> Set[int]:
        """Return the different tokens of the log; costs what was added to it since the last time."""
        self._tokens.update(log[self._read :])
        self._read = len(log)
        return self._tokens


@dataclass(slots=True)
class Turn:
    """One generation under way."""

    order: Submit
    prompt_tokens: int
    cached_tokens: int
    output: Output
    arrived_s: float
    capacity: int
    """Most tokens that the context may hold."""
    grammar: Grammar | PendingGrammar | None = None
    mask: CallMask | None = None
    counted_calls: int = 0
    """Calls of this turn that the mask's residuals count as started."""
    shut_calls: int = 0
    """Residuals that count fewer are not taken any more: their word did not come in time."""
    waits_since: float | None = None
    """When it began to wait for an answer of the guard."""
    generated: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    drafter: Drafter = field(default_factory=Drafter)
    seen: Occurrences = field(default_factory=Occurrences)
    """For penalties."""
    drafted: int = 0
    accepted: int = 0
    forced: int = 0
    """Tokens that were taken without logits."""
    jumped: Literal["exact", "canonical"] | None = None
    """How they were."""
    ahead: int = 0
    """Of these, how many stand behind the last token that had logits and are not computed yet."""
    switches: int = 0
    reached: int = 0
    """Tokens from the first on whose KV the context has had since the turn began."""
    is_recomputed: bool = False
    """Whether KV behind its first token was computed again by numbers that may differ."""
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    @property
    def sampling(self) -> Sampling:
        """How its tokens are chosen."""
        return self.order.request.sampling

    @property
    def most_tokens(self) -> int:
        """Completion tokens after which it ends: the request's or the lease's."""
        return min(self.sampling.max_tokens, self.order.lease_tokens)

    @property
    def lacks_word(self) -> bool:
        """Whether it may call again and the guard's residuals lack a call that it has completed."""
        if self.mask is None or len(self.output.tool_calls) <= self.counted_calls:
            return False
        return self.order.request.tool_choice in ("auto", "required")

    @property
    def is_waiting(self) -> bool:
        """Whether an answer of the guard is missing without which no token can be chosen."""
        return self.mask is not None and (self.lacks_word or not masks.is_ready(self.mask))

    @property
    def is_ready(self) -> bool:
        """Whether a token can be chosen: its grammar is compiled, and was taken over at the beginning of a step."""
        return not isinstance(self.grammar, PendingGrammar)

    def finish(self, context_tokens: int, eos_ids: frozenset[int]) -> Finish | None:
        """Why it ends after its last token, if it does."""
        is_end = self.generated[-1] in eos_ids and not self.sampling.ignore_eos
        is_complete = isinstance(self.grammar, Grammar) and self.grammar.is_complete
        if is_end or is_complete or self.output.is_stopped:
            return "tool_calls" if self.output.tool_calls else "stop"
        if len(self.generated) >= self.most_tokens:
            return "length"
        return "context_full" if context_tokens >= self.capacity else None

    def usage(self, now: float) -> Usage:
        """Return the accounting so far."""
        started = now if self.started_s is None else self.started_s
        first = now if self.first_token_s is None else self.first_token_s
        last = first if self.last_token_s is None else self.last_token_s
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=len(self.generated),
            queue_s=max(0.0, started - self.arrived_s),
            prefill_s=max(0.0, first - started),
            decode_s=max(0.0, last - first),
            switches=self.switches,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            forced_tokens=self.forced,
        )

    def result(self, finish: Finish, now: float) -> Generation:
        """Return the whole generation; its output must be closed."""
        return Generation(
            text=self.output.text,
            tool_calls=self.output.tool_calls,
            call_starts=self.output.starts,
            finish=finish,
            tokens=tuple(self.generated),
            usage=self.usage(now),
            logprobs=tuple(self.logprobs),
            mask_version=self.mask.version if self.mask else None,
            parsed=self._parsed(finish),
            jump_forward=self.jumped,
            speculation="ngram" if self.drafted else None,
            recovery="recomputed, not trace-exact" if self.is_recomputed else None,
        )

    def _parsed(self, finish: Finish) -> Any:
        if self.order.request.output_schema is None or finish != "stop":
            return None
        try:
            return json.loads(self.output.text)
        except ValueError:
            return None  # cut by a stop string: the text says what there is


@dataclass(slots=True, eq=False)
class Context:
    """One conversation's state in the engine; it outlives its turns."""

    id: ContextId
    epoch: int
    table: PageTable
    tokens: list[int] = field(default_factory=list)
    turn: Turn | None = None
    is_held: bool = False
    """Suspended by order: off the device until Resume, whatever else runs."""
    used_s: float = 0.0
    resuming: int = 0
    """Ticket of a Resume that is answered when the planner has made room; 0: none."""
    trail: Trail = field(init=False)
    """How far its tokens are known in its tenant's prefix tree."""

    def __post_init__(self) -> None:
        self.trail = Trail(self.table.owner)

    @property
    def outstanding(self) -> int:
        """Tokens whose KV must be computed before the next one can be chosen."""
        return len(self.tokens) - self.table.tokens


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many tokens two logs begin with in common."""
    end = min(len(left), len(right))
    if left[:end] == right[:end]:
        return end
    return next(i for i in range(end) if left[i] != right[i])
