"""Orders from the kernel, done between steps.

Owns what each order means for contexts and turns. Everything is checked before anything is changed; what cannot be
done is answered with `Refused`, and no order ends the engine.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aios.abi.core import (
    Admitted,
    AnyOrder,
    Cancel,
    ContextOrder,
    Describe,
    Described,
    Drop,
    Fork,
    MaskState,
    Reclassify,
    Refused,
    Resume,
    Shutdown,
    Steer,
    Submit,
    Suspend,
)
from aios.abi.guard import CallMask, MaskFactory
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.engine import masks, patience
from aios.engine.context import Context, Turn, common_prefix
from aios.engine.disk import SnapshotError
from aios.engine.grammar import Grammars
from aios.engine.output import Output
from aios.engine.pages import Tier, pages_for
from aios.engine.sharing import Sharing
from aios.engine.workspace import Workspace
from aios.errors import ModelError
from aios.formats.grammar import generation_grammar
from aios.formats.spelling import HERMES, CallFormat

_log = logging.getLogger(__name__)

Prompter = Callable[[LlmGenerate, Sequence[ToolSpec]], list[int]]
"""Turns a request and the tools offered into prompt tokens. Raises ValueError or ModelError for one that cannot be
rendered."""


class Refusal(Exception):
    """An order cannot be done."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model and the machine allow."""

    max_context: int
    vocab: int
    step_tokens: int = 256
    max_rows: int = 32


class Desk:
    """Does orders on a workspace."""

    def __init__(
        self,
        workspace: Workspace,
        sharing: Sharing,
        *,
        limits: Limits,
        prompt: Prompter,
        grammars: Grammars,
        token_bytes: Sequence[bytes],
        eos_ids: frozenset[int],
        mask_factory: MaskFactory | None,
        call_format: CallFormat = HERMES,
    ) -> None:
        self._workspace, self._sharing = workspace, sharing
        self._limits, self._prompt, self._grammars = limits, prompt, grammars
        self._token_bytes, self._eos_ids, self._mask_factory = token_bytes, eos_ids, mask_factory
        self._call_format = call_format
        self.is_closed = False

    def do(self, order: AnyOrder) -> None:
        """Do one order; what cannot be done is answered."""
        try:
            self._dispatch(order)
        except Refusal as refusal:
            self._refuse(order, refusal.code, refusal.reason)
        except SnapshotError as error:
            self._refuse(order, "E-SNAPSHOT", str(error))
        except Exception as error:  # noqa: BLE001 - an order may fail; the engine goes on for the others
            _log.exception("order %s failed", type(order).__name__)
            self._refuse(order, "E-ORDER", f"{type(error).__name__}: {error}")

    def _dispatch(self, order: AnyOrder) -> None:
        match order:
            case Submit():
                self._submit(order)
            case Suspend():
                self._suspend(order)
            case Resume():
                self._resume(order)
            case Fork():
                self._fork(order)
            case Drop() | Describe():
                self._drop_or_describe(order)
            case Cancel():
                self._cancel(order)
            case Steer():
                self._steer(order)
            case Reclassify(facts=facts):
                self._workspace.planner.reclassified(facts.pid, facts.klass, facts.nice)
            case Shutdown():
                self.is_closed = True

    def _refuse(self, order: AnyOrder, code: str, reason: str) -> None:
        if isinstance(order, ContextOrder):
            message = Refused(context=order.context, epoch=order.epoch, ticket=order.ticket, code=code, reason=reason)
            self._workspace.say(message)

    def _find(self, order: ContextOrder) -> Context:
        """Return the order's context, brought to its epoch. Raises Refusal."""
        context = self._workspace.contexts.get(order.context)
        if context is None:
            raise Refusal("E-NO-CONTEXT", f"context {order.context}: unknown here; submit a generation to create it")
        self._check_epoch(context, order)
        context.epoch = order.epoch
        return context

    @staticmethod
    def _check_epoch(context: Context, order: ContextOrder) -> None:
        if order.epoch < context.epoch:
            raise Refusal(
                "E-STALE", f"context {order.context}: the order is of epoch {order.epoch}, now is {context.epoch}"
            )

    # --- submit --------------------------------------------------------------------------------------------

    def _submit(self, order: Submit) -> None:
        known = self._workspace.contexts.get(order.context)
        if known is not None:
            self._check_epoch(known, order)
            self._check_free(known, order)
        prompt = self._render(order)
        log = [*prompt, *order.generated]
        capacity = self._capacity(order)
        # The last of the tokens that were made before needs no place: if nothing follows it, the turn ends with it.
        self._check_size(order, len(log) - bool(order.generated), capacity)
        turn = self._turn(order, len(prompt), capacity)
        context = known or self._workspace.open(
            order.context, order.epoch, self._workspace.memory.open(order.facts.tenant)
        )
        if context.turn is not None:
            self._workspace.end(context, "cancelled")
        context.epoch = order.epoch
        self._start(context, turn, log)

    def _check_free(self, context: Context, order: Submit) -> None:
        if context.turn is not None and order.epoch == context.epoch:
            raise Refusal(
                "E-BUSY", f"context {order.context}: a generation is under way; cancel it or use another context"
            )

    def _render(self, order: Submit) -> list[int]:
        request = order.request
        try:
            prompt = list(request.tokens) or self._prompt(request, order.tools)
        except (ModelError, ValueError) as error:
            raise Refusal("E-PROMPT", f"context {order.context}: the prompt cannot be rendered: {error}") from error
        if not prompt:
            raise Refusal("E-PROMPT", f"context {order.context}: the prompt is empty; give messages or tokens")
        foreign = next((token for token in (*prompt, *order.generated) if not 0 <= token < self._limits.vocab), None)
        if foreign is not None:
            raise Refusal("E-TOKEN", f"context {order.context}: token {foreign} is not below {self._limits.vocab}")
        return prompt

    def _capacity(self, order: Submit) -> int:
        """Most tokens that the context may hold: the model's, the pool's and the process's share."""
        memory = self._workspace.memory
        pages = memory.device.num_frames
        if order.facts.kv_pages is not None:
            pages = min(pages, order.facts.kv_pages)
        return min(self._limits.max_context, pages * memory.page_tokens)

    def _check_size(self, order: Submit, tokens: int, capacity: int) -> None:
        if tokens >= self._limits.max_context:
            raise Refusal(
                "E-CONTEXT-TOO-LONG",
                f"context {order.context}: the prompt has {tokens} tokens; this model takes at most "
                f"{self._limits.max_context - 1} and needs one to answer",
            )
        if tokens < capacity:
            return
        memory = self._workspace.memory
        needed, total = pages_for(tokens + 1, memory.page_tokens), memory.device.num_frames
        share = order.facts.kv_pages
        if share is not None and share < total:
            raise Refusal(
                "E-QUOTA-PAGES",
                f"context {order.context}: {tokens} tokens need {needed} pages; pid {order.facts.pid} may hold {share}",
            )
        raise Refusal(
            "E-POOL-TOO-SMALL",
            f"context {order.context}: {tokens} tokens need {needed} pages of {memory.page_tokens} tokens; the whole "
            f"pool has {total}",
        )

    def _turn(self, order: Submit, prompt_tokens: int, capacity: int) -> Turn:
        request = order.request
        try:
            grammar = generation_grammar(order.tools, request.tool_choice, request.output_schema, self._call_format)
        except ValueError as error:
            raise Refusal("E-GRAMMAR", f"context {order.context}: {error}") from error
        reads_calls = bool(order.tools) and request.tool_choice != "none" and request.output_schema is None
        turn = Turn(
            order=order,
            prompt_tokens=prompt_tokens,
            cached_tokens=0,
            output=Output(request.sampling.stop, reads_calls=reads_calls, format=self._call_format),
            arrived_s=self._workspace.clock(),
            capacity=capacity,
            grammar=self._grammars.open(grammar) if grammar else None,
            mask=self._open_mask(order, order.mask) if order.mask else None,
            counted_calls=order.mask.calls if order.mask else 0,
        )
        self._replay(turn)
        return turn

    def _open_mask(self, order: Submit, state: MaskState) -> CallMask | None:
        if self._mask_factory is None:
            return None  # a core that cannot mask ignores the residuals; the kernel's gate stands
        try:
            return self._mask_factory.open(state, order.tools)
        except Exception as error:
            raise Refusal("E-MASK", f"context {order.context}: the guard's mask cannot be made: {error}") from error

    def _replay(self, turn: Turn) -> None:
        """Bring output and mask to the point that `generated` reached (the grammar follows when it is ready)."""
        for position, token in enumerate(turn.order.generated):
            turn.generated.append(token)
            if token not in self._eos_ids:
                turn.output.push(self._token_bytes[token], position)
            if turn.mask is not None:
                masks.accept(turn.mask, token)

    def _start(self, context: Context, turn: Turn, log: list[int]) -> None:
        reuse = min(common_prefix(context.tokens, log), context.table.tokens, len(log) - 1)
        self._workspace.memory.truncate(context.table, reuse)
        context.tokens = log
        context.trail.cut(reuse // context.table.page_tokens)
        self._sharing.bind(context)
        turn.reached = context.table.tokens
        turn.cached_tokens = min(turn.reached, turn.prompt_tokens)
        self._workspace.say(
            Admitted(
                context=context.id,
                epoch=context.epoch,
                ticket=turn.order.ticket,
                prompt_tokens=turn.prompt_tokens,
                cached_tokens=turn.cached_tokens,
            )
        )
        self._workspace.begin(context, turn)
        finish = turn.finish(len(log), self._eos_ids) if turn.generated else None
        if finish is not None:
            self._workspace.end(context, finish)
        elif turn.lacks_word:
            self._workspace.say_called(context)

    # --- the other orders ----------------------------------------------------------------------------------

    def _suspend(self, order: Suspend) -> None:
        context = self._find(order)
        if order.tier not in (Tier.HOST, Tier.DISK, Tier.DROPPED):
            raise Refusal("E-TIER", f"context {order.context}: no tier {order.tier!r}; there are host, disk, dropped")
        if order.tier == Tier.DROPPED and not self._workspace.may_drop:
            reason = "this device cannot compute the same numbers again; there are host, disk"
            raise Refusal("E-TIER", f"context {order.context}: no tier 'dropped' in deterministic mode: {reason}")
        self._workspace.leave(context)
        context.is_held = True
        self._workspace.answer_resume(context)
        seconds = self._workspace.switch_out(context, Tier(order.tier), "order", order.ticket)
        self._workspace.describe(context, order.ticket, seconds)

    def _resume(self, order: Resume) -> None:
        """Lift the hold; come back at once if there is room, otherwise when the planner makes some. Then it answers."""
        context = self._find(order)
        if context.is_held:
            context.is_held = False
            if context.turn is not None:
                self._workspace.enter(context, context.turn)
        self._workspace.answer_resume(context)  # an earlier one that still waits
        context.resuming = order.ticket
        self._workspace.reclaim(context.table.num_away)
        is_back = self._workspace.switch_in(context, "order")
        if is_back or (context.turn is None and not context.table.arriving):
            self._workspace.answer_resume(context)

    def _fork(self, order: Fork) -> None:
        context = self._find(order)
        if order.into in self._workspace.contexts:
            raise Refusal("E-EXISTS", f"context {order.into}: exists already; drop it first or choose another name")
        table = self._workspace.memory.fork(context.table)
        fork = self._workspace.open(order.into, order.epoch, table)
        fork.tokens, fork.trail = list(context.tokens), context.trail.copy()
        self._workspace.describe(fork, order.ticket)

    def _drop_or_describe(self, order: Drop | Describe) -> None:
        """An unknown context is answered as one without pages: both orders may be repeated after a restart."""
        if order.context not in self._workspace.contexts:
            nothing = Described(
                context=order.context, epoch=order.epoch, ticket=order.ticket, tier=Tier.NONE, tokens=0, pages=0
            )
            self._workspace.say(nothing)
            return
        context = self._find(order)
        if isinstance(order, Drop):
            if context.turn is not None:
                self._workspace.end(context, "cancelled")
            self._workspace.forget(context)
            context.tokens = []
        self._workspace.describe(context, order.ticket)

    def _cancel(self, order: Cancel) -> None:
        context = self._find(order)
        if context.turn is not None:
            self._workspace.end(context, "cancelled")
        if order.ticket:
            self._workspace.describe(context, order.ticket)

    def _steer(self, order: Steer) -> None:
        context = self._find(order)
        turn = context.turn
        if turn is None:
            return
        if turn.mask is not None:
            patience.steer(turn, order.mask)
            return
        turn.mask, turn.counted_calls = self._open_mask(turn.order, order.mask), order.mask.calls
        if turn.mask is not None:
            for token in turn.generated:
                masks.accept(turn.mask, token)
