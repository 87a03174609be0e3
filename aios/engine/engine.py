"""The step loop: plan, move pages, forward, decode, report.

Owns the order of these and the guarantee that something always runs: if a plan moves nothing, the engine makes room
for the call that has waited longest, and in the worst case computes it anew from its tokens.
Knows neither sockets nor processes; whoever drives it calls `do` for orders, `step` for work and sends the messages.
Invariant: between two calls every context is at a token boundary, so any switch there is exact. On a device a step may
be in flight then (`aios.engine.overlap`); it writes behind that boundary alone, and lands before an order is done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from aios.abi.core import AnyMessage, AnyOrder, Refused, Statistics, Stepped
from aios.abi.guard import MaskFactory
from aios.abi.sched import Budget, Plan, Planner, Retention
from aios.engine.batch import Model
from aios.engine.batching import Grant, assemble
from aios.engine.choosing import Chooser, HostChooser
from aios.engine.context import Context, Turn
from aios.engine.decoding import Decoding
from aios.engine.desk import Desk, Limits, Prompter
from aios.engine.device_choosing import DeviceChooser
from aios.engine.grammar import Grammar, GrammarError, Grammars, Lexicon, PendingGrammar
from aios.engine.overlap import AheadModel, Flight, Overlap
from aios.engine.pages import Tier
from aios.engine.patience import LIMIT_S, Patience
from aios.engine.prefix import PrefixTrees
from aios.engine.sharing import Sharing
from aios.engine.shortcuts import Shortcuts
from aios.engine.tiers import Memory
from aios.engine.workspace import Workspace
from aios.formats.spelling import HERMES, CallFormat
from aios.ids import ContextId

STATISTICS_PERIOD_S = 0.25


@dataclass(slots=True)
class _Meter:
    """Counters since the start and since the last statistics."""

    steps: int = 0
    tokens: int = 0
    step_s: float = 0.0
    since_s: float = 0.0
    was_working: bool = False


class Engine:
    """Many contexts on one model.

    `is_exact`: the model's numbers for a context do not depend on the batch. `patience_s`: how long a row waits for an
    answer of the guard. `prefixes`: where the contexts of a tenant
    find each other's pages; None: nowhere. `ahead`: the same model where it computes beside the host; its logits then
    stay on the device, and steps are left in flight.
    """

    def __init__(
        self,
        model: Model,
        lexicon: Lexicon,
        memory: Memory,
        planner: Planner,
        *,
        retention: Retention,
        limits: Limits,
        prompt: Prompter,
        clock: Callable[[], float],
        mask_factory: MaskFactory | None = None,
        is_exact: bool = False,
        may_drop: bool = True,
        call_format: CallFormat = HERMES,
        shortcuts: Shortcuts = Shortcuts(),  # noqa: B008 - immutable
        prefixes: PrefixTrees | None = None,
        ahead: AheadModel | None = None,
        on_ready: Callable[[], None] = lambda: None,
        patience_s: float = LIMIT_S,
    ) -> None:
        self.memory = memory
        self._model, self.lexicon, self._limits, self._clock = model, lexicon, limits, clock
        self._workspace = Workspace(memory, planner, clock, retention, may_drop=may_drop)
        self.grammars = Grammars(lexicon, on_ready=on_ready)
        self._shortcuts, self._is_exact = shortcuts, is_exact
        self._flight: Flight | None = None
        self._overlap: Overlap | None = None
        self._chooser: Chooser = HostChooser(lexicon)
        if ahead is not None:
            self._chooser = chooser = DeviceChooser(lexicon, memory.pool.device, vocab=limits.vocab)
            self._overlap = Overlap(ahead, chooser, memory)
        self._decoding = Decoding(lexicon, self._chooser, shortcuts=shortcuts, clock=clock)
        self._patience = Patience(clock, patience_s)
        self._meter = _Meter(since_s=clock())
        self._sharing = Sharing(prefixes)
        self._desk = Desk(
            self._workspace,
            self._sharing,
            limits=limits,
            prompt=prompt,
            grammars=self.grammars,
            token_bytes=lexicon.token_bytes,
            eos_ids=lexicon.eos_ids,
            mask_factory=mask_factory,
            call_format=call_format,
        )

    @property
    def contexts(self) -> Mapping[ContextId, Context]:
        """The contexts as they are now; for inspection between steps, not to be changed."""
        return self._workspace.contexts

    @property
    def is_closed(self) -> bool:
        """Whether `Shutdown` was ordered."""
        return self._desk.is_closed

    def close(self) -> None:
        """End the grammar worker and the copies; what is in flight is not read."""
        self._flight = None
        self.grammars.close()
        self.memory.close()

    def do(self, order: AnyOrder) -> None:
        """Do an order from the kernel, at a token boundary that nothing is beyond."""
        self.land()
        self._desk.do(order)

    def take_messages(self) -> list[AnyMessage]:
        """Return what there is to say to the kernel since the last call."""
        return self._workspace.take_messages()

    @torch.inference_mode()
    def land(self) -> None:
        """Wait for the step in flight, if there is one, and take in what it chose."""
        self._land_flight()

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one forward step, or on a device begin one and take in another, if there is work; whether there was."""
        self._workspace.settle()
        self._settle_grammars()
        began, had_flight = self._clock(), self._flight is not None
        if self._flight is not None and not self._flight.is_decode:
            self._land_flight()
        plan = self._plan()
        if self._flight is not None:
            plan = self._follow(self._flight, plan)
        is_working = self._flight is not None or self._launch(plan, began) or had_flight
        if self._overlap is None:
            self._land_flight()
        self._measure(began, is_working=is_working)
        return is_working

    def _follow(self, flight: Flight, plan: Plan) -> Plan:
        """Let the step in flight land and the one after it begin, before or after; return what is left to do then."""
        assert self._overlap is not None
        drafts = any(self._drafts(grant.context) for grant in flight.grants)
        following = None if drafts else self._overlap.follow(flight, plan)
        self._land(flight)
        self._flight = None if following is None else self._overlap.without_ended(following, self._clock())
        return plan if self._flight is not None or flight.fits(plan) else self._plan()

    def _launch(self, plan: Plan, began: float) -> bool:
        """Give a step away, if anything can be computed; whether it could."""
        self._move(plan)
        grants = self._reserve(plan) or self._await_copies(plan) or self._unblock()
        if grants:
            self._add_drafts(grants)
            self._flight = Flight(grants, self._chooser.look(grants, self._forward(grants)), began)
        return bool(grants)

    @property
    def patience_s(self) -> float | None:
        """Seconds after which `step` has something to do although nothing happens; None: it has not."""
        return self._patience.left_s(turn for _, turn in self._workspace.scheduled())

    def wait_for_grammar(self) -> bool:
        """Wait until a grammar that a turn waits for is compiled; False if none does."""
        for context in self._workspace.compiling.values():
            grammar = _turn(context).grammar
            assert isinstance(grammar, PendingGrammar)
            grammar.wait()
            return True
        return False

    def wait_for_copies(self) -> None:
        """Wait until no copy is under way and every order is answered that waits for one."""
        self._workspace.finish()

    # --- plan ----------------------------------------------------------------------------------------------

    def _settle_grammars(self) -> None:
        """Give grammars that were compiled meanwhile to their turns."""
        for context in [*self._workspace.compiling.values()]:
            turn = _turn(context)
            if isinstance(turn.grammar, PendingGrammar) and turn.grammar.is_ready:
                self._settle_grammar(context, turn, turn.grammar)

    def _settle_grammar(self, context: Context, turn: Turn, pending: PendingGrammar) -> None:
        try:
            grammar = pending.take()
            if not grammar.accept(turn.generated):
                raise GrammarError("the tokens generated before do not fit it")
        except GrammarError as error:
            reason = f"context {context.id}: the grammar cannot be used: {error}"
            self._workspace.withdraw(context)
            self._workspace.say(
                Refused(
                    context=context.id,
                    epoch=context.epoch,
                    ticket=turn.order.ticket,
                    code="E-GRAMMAR",
                    reason=reason,
                )
            )
            return
        turn.grammar = grammar
        del self._workspace.compiling[context.id]
        finish = turn.finish(len(context.tokens), self.lexicon.eos_ids) if turn.generated else None
        if finish is not None:  # it was complete when the core or the kernel was lost
            self._workspace.end(context, finish)
            return
        self._workspace.planner.served(context.id, 0, self._decoding.jump(context))
        self._report()

    def _plan(self) -> Plan:
        plan = self._workspace.planner.repeat(self._budget())
        in_flight: Set[ContextId] = frozenset() if self._flight is None else self._flight.names
        if plan is not None and plan.grants and all(self._decodes_in_place(name, in_flight) for name in plan.grants):
            return plan
        scheduled = [context for context, _ in self._workspace.scheduled()]
        if not scheduled:
            return Plan()
        for context in scheduled:
            if context.id not in in_flight:
                self._sharing.bind(context)
        self._workspace.reclaim(min(self.memory.device.num_frames, sum(map(self._frames_wanted, scheduled))))
        loads = {context.id: self._workspace.load(context) for context in scheduled}
        if self._flight is not None:
            self._flight.foresee(loads)
        return self._workspace.planner.plan(loads, self._budget())

    def _budget(self) -> Budget:
        return Budget(
            now_s=self._clock(),
            tokens=self._limits.step_tokens,
            rows=self._limits.max_rows,
            free_pages=self.memory.num_available,
            page_tokens=self.memory.page_tokens,
            overhead_tokens=self.memory.gauges.overhead_tokens,
        )

    def _decodes_in_place(self, name: ContextId, in_flight: Set[ContextId]) -> bool:
        context, wanted = self._workspace.contexts[name], 1 + (name in in_flight)
        return context.outstanding == 1 and context.table.resident and context.table.room >= wanted

    def _frames_wanted(self, context: Context) -> int:
        table = context.table
        return table.num_away + table.frames_needed(min(context.outstanding, self._limits.step_tokens))

    def _move(self, plan: Plan) -> None:
        contexts = self._workspace.contexts
        for name in plan.swap_out:
            self._workspace.evict(contexts[name], plan.reasons.get(name, "pages"))
        for name in plan.swap_in:
            self._workspace.switch_in(contexts[name], "scheduled")
        for name in plan.prefetch:
            self._workspace.switch_in(contexts[name], "prefetch")

    def _reserve(self, plan: Plan) -> list[Grant]:
        grants: list[Grant] = []
        self._sharing.begin_step()
        for name, count in plan.grants.items():
            context = self._workspace.contexts[name]
            grant = None if self._sharing.must_wait(context) else self._grant(context, count)
            if grant is not None:
                self._sharing.granted(grant)
                grants.append(grant)
        return grants

    def _grant(self, context: Context, wanted: int) -> Grant | None:
        """Reserve frames for up to `wanted` tokens; None if the context must sit this step out."""
        turn = context.turn
        if turn is None or context.is_held or not self._workspace.switch_in(context, "scheduled"):
            return None
        self._sharing.bind(context, may_fetch=True)
        if not context.table.resident:
            return None  # what it shares is on its way
        # the last token is not computed before grammar and guard are ready, since a choice follows it
        must_wait = self._patience.holds(turn)
        self._patience.num_waited += must_wait
        count = min(wanted, context.outstanding - (must_wait or not turn.is_ready))
        if count > context.table.room:
            self.memory.make_room(context.table, context.table.frames_needed(count))
            count = min(count, context.table.fits(self.memory.device.num_free))
        if count <= 0:
            return None
        self.memory.extend(context.table, count)
        # tokens forced before the first step do not count: nothing was computed before them
        has_begun = turn.first_token_s is not None or bool(turn.order.generated)
        has_lost = has_begun and context.outstanding > 1 + turn.ahead
        turn.is_recomputed |= has_lost and not self._is_exact
        return Grant(context, count)

    def _await_copies(self, plan: Plan) -> list[Grant]:
        """With nothing to compute meanwhile, wait for copies under way until something can be."""
        while plan.grants and self.memory.is_copying:
            self.memory.wait()
            self._workspace.settle()
            grants = self._reserve(plan)
            if grants:
                return grants
        return []

    def _unblock(self) -> list[Grant]:
        """Run the call that has waited longest, whatever must leave for it."""
        able = [(c, turn) for c, turn in self._workspace.scheduled() if self._can_run(c, turn)]
        if not able:
            return []
        first = min(able, key=lambda pair: pair[1].arrived_s)[0]
        for victim in self._who_leaves(first):
            grant = self._grant_at_last(first)
            if grant is not None:
                return [grant]
            if victim is first:
                self.memory.clear_shelf()
                self._workspace.switch_out(first, Tier.DROPPED, "pages")
            elif victim.table.is_active:
                self._workspace.evict(victim, "pages")
            elif self.memory.shelf.warm:
                self._workspace.give_way(victim)
        grant = self._grant_at_last(first)
        assert grant is not None, "a context that fits the empty pool found no room in it"
        return [grant]

    def _can_run(self, context: Context, turn: Turn) -> bool:
        """Whether a turn has anything to compute before a choice that it must wait with."""
        return context.outstanding > 1 or (turn.is_ready and not self._patience.holds(turn))

    def _grant_at_last(self, context: Context) -> Grant | None:
        """Grant what can be, frames and pages included that are on their way."""
        self.memory.drain()
        grant = self._grant(context, self._limits.step_tokens)
        if grant is None and context.table.arriving:
            self.memory.drain()
            grant = self._grant(context, self._limits.step_tokens)
        return grant

    def _who_leaves(self, first: Context) -> Iterator[Context]:
        """Yield who could leave for `first`: contexts without work, those with, those on the host, at last itself."""
        running = [context for context, _ in self._workspace.scheduled() if context is not first]
        yield from [c for c in self._workspace.idle() if c is not first]
        yield from reversed(running)
        yield from self._workspace.on_host(first)
        yield first

    # --- drafts --------------------------------------------------------------------------------------------

    def _drafts(self, context: Context) -> bool:
        return context.turn is not None and self._shortcuts.drafts(context.turn.sampling)

    def _add_drafts(self, grants: Sequence[Grant]) -> None:
        """Fill the step up with guesses, as far as they cost little: nobody loses a token or a page to them."""
        room = min(self._shortcuts.most_tokens, self._limits.step_tokens) - sum(grant.count for grant in grants)
        for grant in grants:
            if room > 0 and grant.samples and self._drafts(grant.context):
                grant.draft = self._draft(grant.context, _turn(grant.context), grant.count, room)
                self.memory.extend(grant.context.table, grant.size)
                room -= len(grant.draft)

    def _draft(self, context: Context, turn: Turn, count: int, room: int) -> Sequence[int]:
        """Guess what follows; all of it may be taken, and there are frames for it behind `count` tokens."""
        most = min(room, turn.most_tokens - len(turn.generated) - 1, turn.capacity - len(context.tokens) - 1)
        table = context.table
        self.memory.make_room(table, table.frames_needed(count + most))
        frames = len(table.pages) + self.memory.device.num_free
        most = min(most, frames * table.page_tokens - table.tokens - count)
        draft = turn.drafter.draft(context.tokens, most, self._shortcuts.token_cost)
        return draft[: turn.grammar.fitting(draft)] if draft and isinstance(turn.grammar, Grammar) else draft

    # --- forward and decode --------------------------------------------------------------------------------

    def _forward(self, grants: Sequence[Grant]) -> Tensor:
        now = self._clock()
        for grant in grants:
            turn = _turn(grant.context)
            if turn.started_s is None:
                turn.started_s = now
        return self._model.forward(assemble(grants), self.memory.pool)

    def _land_flight(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        """Take tokens; keep the KV of what was outstanding and of the drafts that were right, give back the rest."""
        grants = flight.grants
        self._decoding.decode(grants, flight.rows)
        for grant in grants:
            table, count = grant.context.table, grant.count + grant.accepted
            self.memory.commit(table, count)
            if count < grant.size:
                self.memory.truncate(table, table.tokens)
            self._sharing.note(grant.context)
            self._workspace.planner.served(grant.context.id, count, grant.gained)
        self._meter.steps += 1
        self.memory.gauges.computed([grant.size for grant in grants], self._clock() - flight.began_s)
        self._report()

    # --- report --------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Say the tokens since the last report, then end the turns that ended with them."""
        rows = self._decoding.take_rows()
        if rows:
            self._meter.tokens += len(rows)
            self._workspace.say(Stepped(step=self._meter.steps, rows=tuple(rows)))
        for context in self._decoding.take_callers():
            if context.turn is not None and context.turn.lacks_word:
                self._workspace.say_called(context)
        for context, finish in self._decoding.take_endings():
            self._workspace.end(context, finish)

    def _measure(self, began: float, *, is_working: bool) -> None:
        """Say the statistics a few times a second while there is work, and once when it ends."""
        meter, now = self._meter, self._clock()
        if is_working:
            meter.step_s = now - began
        has_ended = meter.was_working and not is_working
        if has_ended or (is_working and now - meter.since_s >= STATISTICS_PERIOD_S):
            self._workspace.say(self.statistics())
            meter.since_s, meter.tokens = now, 0
        meter.was_working = is_working

    def statistics(self) -> Statistics:
        """Return an immutable snapshot of the whole engine."""
        tiers, meter, workspace = self.memory.statistics(), self._meter, self._workspace
        elapsed = self._clock() - meter.since_s
        scheduled = [context for context, _ in workspace.scheduled()]
        running = sum(context.table.resident and bool(context.table.tokens) for context in scheduled)
        return Statistics(
            forward_passes=meter.steps,
            running=running,
            waiting=len(scheduled) - running,
            suspended=sum(context.is_held for context in workspace.contexts.values()),
            tokens_per_s=meter.tokens / elapsed if elapsed > 0 else 0.0,
            pages_total=tiers.pages_total,
            pages_free=tiers.pages_free,
            pages_host=tiers.pages_host,
            pages_disk=tiers.pages_disk,
            pages_swapped=workspace.num_swapped,
            switches=workspace.num_switches,
            masked_argmax=self._decoding.num_masked,
            step_ms=meter.step_s * 1000,
            contexts=workspace.pages(),
            rates=self.memory.gauges.rates,
            pages_cached=tiers.pages_cached,
            tokens_shared=self._sharing.num_hits,
            rows_waited=self._patience.num_waited,
            masks_given_up=self._patience.num_given_up,
        )


def _turn(context: Context) -> Turn:
    assert context.turn is not None
    return context.turn
