"""One generation at an endpoint: what it was asked, what it has said so far, what it cost.

Owns the books of one Submit over all its requests (retries, questions asked again, suspensions). Does no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import anyio

from aios.abi.chat import Finish, Generation, Message, TokenLogprob, ToolCall, Usage
from aios.abi.core import MaskState, Submit, TokenRow
from aios.remote.answer import NO_ID, Answer, Piece
from aios.remote.request import Continuation

Recovery = Literal["continued from the partial text", "restarted"]


@dataclass(slots=True)
class Run:
    """See the module. `count` rows were told, of them `recovered` by an earlier run."""

    order: Submit
    since_s: float
    continuation: Continuation
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    mask: MaskState | None = None
    steered: anyio.Event = field(default_factory=anyio.Event)
    """Set when newer residuals came."""
    begun: str = ""
    """Text of the answer that counts."""
    count: int = 0
    more: list[Message] = field(default_factory=list)
    """What was said behind the conversation: forbidden calls and why."""
    num_asked_again: int = 0
    recovery: Recovery | None = None
    since: int = 0
    """Position at which the answer that counts began."""
    is_cut: bool = False
    """Whether the last answer broke off in the middle."""
    is_active: bool = False
    """Whether a task serves it."""
    is_cancelled: bool = False
    has_ended: bool = False
    is_admitted: bool = False
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    """Tokens of the requests that ended, as the endpoint counted them or, where it did not, by pieces."""
    pieces: int = 0
    """Pieces of the request that is under way."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    started_s: float | None = None
    first_s: float | None = None
    suspensions: int = 0

    def __post_init__(self) -> None:
        self.mask = self.order.mask
        self.count = self.completion = len(self.order.generated)
        self.begun = self.order.generated_text
        self.is_cut = self.count > 0

    @property
    def can_continue(self) -> bool:
        """Whether an answer that was begun can be gone on with. A grammar or forced call would begin anew."""
        ask = self.order.request
        is_free = ask.output_schema is None and ask.tool_choice in ("auto", "none")
        return self.continuation != "none" and is_free and bool(self.begun)

    @property
    def given(self) -> str:
        """Beginning of the answer that the caller gave."""
        ask = self.order.request
        return ask.messages[-1].content if ask.continue_final else ""

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        return min(self.order.request.sampling.max_tokens, self.order.lease_tokens) - self.count

    @property
    def prompt_estimate(self) -> int:
        """Tokens of the prompt, guessed at four bytes each: the endpoint tells only behind its answer."""
        ask = self.order.request
        texts = [message.content for message in ask.messages]
        texts += [tool.model_dump_json(include={"name", "description", "parameters"}) for tool in self.order.tools]
        return max(1, sum(len(text.encode()) for text in texts) // 4)

    def interrupt(self) -> None:
        """The answer was cut off; what becomes of its text, `begin` decides."""
        self.completion += self.pieces
        self.pieces, self.is_cut = 0, True

    def begin(self) -> str:
        """Return the text to go on with in the next request, and remember how a cut was mended."""
        if self.is_cut and self.can_continue:
            self.recovery = self.recovery or "continued from the partial text"
        elif self.is_cut:
            self.recovery, self.begun, self.logprobs, self.since = "restarted", "", [], self.count
        self.is_cut = False
        return self.begun

    def row(self, piece: Piece) -> TokenRow:
        """Take in a piece and return what the kernel is told of it: one row a piece, without a token id."""
        self.begun += piece.text
        order, position = self.order, self.count
        self.count += 1
        self.pieces += 1
        # A kernel that crashes loses what was asked behind the conversation: such an answer can only begin anew.
        since = self.count if self.more else self.since
        return TokenRow(order.context, order.epoch, position, NO_ID, piece.text, since=since)

    def charge(self, answer: Answer) -> None:
        """Book what a request that ended has cost."""
        counts = answer.counts
        self.prompt += counts.prompt if counts is not None else self.prompt_estimate
        self.cached += min(counts.cached, counts.prompt) if counts is not None else 0
        self.completion += counts.completion if counts is not None else self.pieces
        self.pieces = 0

    def ask_again(self, calls: Sequence[ToolCall], objections: Sequence[str]) -> None:
        """Put what was said and why it cannot be behind the conversation; the next answer begins anew."""
        self.num_asked_again += 1
        self.more.append(Message(role="assistant", content=self.begun, tool_calls=tuple(calls)))
        reason = "; ".join(objections)
        told = f"Not done: {reason}. None of these calls ran. Answer in another way."
        answers = [Message(role="tool", content=told, tool_call_id=call.id, name=call.name) for call in calls]
        self.more.extend(answers or [Message(role="user", content=told)])
        self.begun, self.logprobs = "", []

    def generation(self, finish: Finish, calls: tuple[ToolCall, ...] = (), now: float = 0.0) -> Generation:
        """Return the result as it stands at time `now`."""
        started = now if self.started_s is None else self.started_s
        first = now if self.first_s is None else self.first_s
        usage = Usage(
            prompt_tokens=self.prompt or (self.prompt_estimate if self.is_admitted else 0),
            cached_tokens=self.cached,
            completion_tokens=self.completion + self.pieces,
            queue_s=started - self.since_s,
            prefill_s=max(0.0, first - started),
            decode_s=max(0.0, now - first),
            switches=self.suspensions,
        )
        return Generation(
            text=self.begun,
            tool_calls=calls,
            finish=finish,
            usage=usage,
            logprobs=tuple(self.logprobs),
            mask_version=self.mask.version if self.mask is not None else None,
            recovery=self.recovery,
        )
