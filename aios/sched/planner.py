"""The step planner: order, admission and victim choice composed into one plan a step.

Owns turns: a turn begins with a grant and lasts for a quantum of decode steps; while it lasts, its pages are reserved
and its context is no victim. So whoever was brought in uses its quantum up (no swap storms), and with pages enough
nobody leaves. A context that waits for pages lets nobody begin before it; contexts whose quantum is used up run on
with what nobody reserved. Bound (round robin): between two grants of a ready context lie at most the turns of all
others, one after the other. An empty plan while there are loads means that the oldest turn cannot get its pages even
alone: that context is too large for the pool, which is the engine's business.
Does not know time beyond `now_s`, the values of tokens, or where pages lie.
"""

from collections.abc import Callable, Iterator
from math import inf

from aios.abi.process import ProcessClass
from aios.abi.sched import Budget, Call, Load, Plan, Planner, Policy
from aios.ids import ContextId
from aios.sched.admission import step_pages, turn_pages
from aios.sched.draft import Draft
from aios.sched.job import Job
from aios.sched.order import FIRST, Fifo, Order, Place, RoundRobin, StrictPriority
from aios.sched.pacing import paced_tokens
from aios.sched.victim import Candidate, choose_victims, preference

AGEING_S = 0.25
"""Seconds of waiting that count as one step of niceness (40 of them as one class)."""


class StepPlanner:
    """Implements `aios.abi.sched.Planner` for one order."""

    def __init__(self, order: Order, slowdown: float) -> None:
        self._order, self._slowdown = order, slowdown
        self._jobs: dict[ContextId, Job] = {}
        self._turns: dict[ContextId, int] = {}
        """Decode tokens left of each turn under way, oldest turn first."""
        self._now_s = 0.0
        self._arrivals = 0
        self._steady: tuple[Plan, Budget] | None = None
        """The last plan, if it is right again as long as nothing happens."""

    # --- events ----------------------------------------------------------------------------------------------------

    def arrived(self, call: Call) -> None:
        """Queue a generation; the same context again replaces it."""
        self.left(call.context)
        job = self._jobs[call.context] = Job.of(call, self._arrivals)
        self._arrivals += 1
        self._order.enter(job)
        self._steady = None

    def served(self, context: ContextId, tokens: int, decoded: int) -> None:
        """Count a step; a quantum used up ends the turn."""
        job = self._jobs.get(context)
        if job is None:
            return
        job.remaining_tokens = max(0, job.remaining_tokens - decoded)
        if context in self._turns and decoded:
            self._turns[context] -= decoded
            if self._turns[context] <= 0:
                self._end_turn(job)

    def left(self, context: ContextId) -> None:
        """Forget a generation; unknown ones are ignored."""
        if self._jobs.pop(context, None) is None:
            return
        if self._turns.pop(context, None) is None:
            self._order.leave(context)
        self._steady = None

    def reclassified(self, pid: int, klass: ProcessClass, nice: int) -> None:
        """Re-rank the waiting generations of a process; turns under way keep their quantum."""
        for job in self._jobs.values():
            if job.pid != pid or (job.klass, job.nice) == (klass, nice):
                continue
            job.klass, job.nice = klass, nice
            if job.context in self._order:
                self._order.reclassified(job)
            self._steady = None

    def _end_turn(self, job: Job) -> None:
        del self._turns[job.context]
        job.had_turn, job.waiting_since_s = True, self._now_s
        self._order.enter(job)
        self._steady = None

    # --- one step --------------------------------------------------------------------------------------------------

    def plan(self, loads: dict[ContextId, Load], budget: Budget) -> Plan:
        """Choose for one step; see the module for what holds."""
        repeated = self.repeat(budget)
        if repeated is not None and all(_decodes_in_place(loads.get(context)) for context in repeated.grants):
            return repeated
        draft = Draft.of(budget, paced_tokens(loads.values(), budget, self._slowdown))
        self._reserve(draft, loads)
        turns = self._order.line(self._jobs[context] for context in self._turns)
        begun = self._serve(draft, turns, loads)
        if draft.is_closed:
            self._serve_the_rest(draft, turns, loads)
        self._stretch(draft, loads)
        self._look_ahead(draft, loads)
        return self._settle(draft, begun, loads)

    def repeat(self, budget: Budget) -> Plan | None:
        """Return the last plan if nothing happened since, given that each of its grants still decodes in place."""
        self._now_s = max(self._now_s, budget.now_s)
        if self._steady is None:
            return None
        plan, before = self._steady
        if (budget.tokens, budget.rows) != (before.tokens, before.rows) or budget.free_pages > before.free_pages:
            return None
        return plan

    def _serve(self, draft: Draft, turns: list[Place], loads: dict[ContextId, Load]) -> list[ContextId]:
        """Serve turns and begin new ones, by claim, until the budget is spent or no turn may begin; return the new."""
        begun: list[ContextId] = []
        for _, context in self._order.walk(turns):
            if draft.rows <= 0 or draft.tokens <= 0 or draft.is_closed:
                break
            load = loads.get(context)
            if load is None or (load.prefill_tokens > 0 and draft.prompt_tokens <= 0) or context in draft.reasons:
                continue
            if context in self._turns:
                self._go_on(draft, load, loads)
            elif len(draft.reserved) < draft.budget.rows and self._begin(draft, load, loads):
                begun.append(context)
            else:
                draft.is_closed = True
        return begun

    def _serve_the_rest(self, draft: Draft, turns: list[Place], loads: dict[ContextId, Load]) -> None:
        """No turn may begin any more: serve the other turns, then whoever is on the device and needs no promise."""
        for _, context in turns:
            if context in loads and context not in draft.grants and context not in draft.reasons and not draft.is_full:
                self._go_on(draft, loads[context], loads)
        for candidate in sorted(self._idle(draft, loads), key=lambda one: one.rank):
            if draft.is_full:
                break
            self._run_on(draft, loads[candidate.context])

    def _reserve(self, draft: Draft, loads: dict[ContextId, Load]) -> None:
        for context, left in self._turns.items():
            if context in loads:
                decode = min(left, self._jobs[context].remaining_tokens)
                draft.reserve(context, turn_pages(loads[context], decode, draft.budget.page_tokens))

    def _go_on(self, draft: Draft, load: Load, loads: dict[ContextId, Load]) -> None:
        """Serve a turn under way."""
        tokens = draft.wanted(load)
        if tokens <= 0:
            return
        pages = step_pages(load, tokens, draft.budget.page_tokens)
        short = pages - draft.unreserved_by_elders(load.context)
        if short > 0 and not self._find_pages(draft, load.context, short, loads):
            return
        draft.reserve(load.context, max(0, draft.reserved[load.context] - pages))
        draft.grant(load, tokens)

    def _begin(self, draft: Draft, load: Load, loads: dict[ContextId, Load]) -> bool:
        """Begin a turn if its pages can be had, and say so."""
        tokens = draft.wanted(load)
        if not self._can_begin(draft, load, tokens, loads):
            return False
        job = self._jobs[load.context]
        decode = min(self._order.quantum_tokens(job), job.remaining_tokens)
        pages = turn_pages(load, decode, draft.budget.page_tokens)
        draft.reserve(load.context, pages - step_pages(load, tokens, draft.budget.page_tokens))
        draft.grant(load, tokens)
        return True

    def _can_begin(self, draft: Draft, load: Load, tokens: int, loads: dict[ContextId, Load]) -> bool:
        job, page_tokens = self._jobs[load.context], draft.budget.page_tokens
        decode = min(self._order.quantum_tokens(job), job.remaining_tokens)
        short = turn_pages(load, decode, page_tokens) - draft.unreserved(load.context)
        if short <= 0 or self._make_room(draft, short, loads, load.context):
            return True
        if draft.reserved:
            return False
        # Alone on the device a turn may begin that cannot be promised to its end.
        short = step_pages(load, tokens, page_tokens) - draft.free_pages
        return short <= 0 or self._make_room(draft, short, loads, load.context)

    def _run_on(self, draft: Draft, load: Load) -> None:
        """Serve a context outside a turn, with pages that nobody counts on."""
        tokens = draft.wanted(load)
        pages = step_pages(load, tokens, draft.budget.page_tokens)
        if tokens > 0 and load.pages_away == 0 and pages <= draft.unreserved(load.context):
            draft.grant(load, tokens)

    def _stretch(self, draft: Draft, loads: dict[ContextId, Load]) -> None:
        for context in draft.grants:
            if draft.tokens > 0 and loads[context].prefill_tokens > 0:
                draft.stretch(loads[context])

    def _look_ahead(self, draft: Draft, loads: dict[ContextId, Load]) -> None:
        """Let the pages of whoever is next come back while others compute, if nobody counts on the room."""
        for _, context in self._order.walk([]):
            load = loads.get(context)
            if load is None or context in draft.grants:
                continue
            if draft.grants and context not in draft.reasons and 0 < load.pages_away <= draft.unreserved(context):
                draft.prefetch.append(context)
            return

    # --- pages -----------------------------------------------------------------------------------------------------

    def _find_pages(self, draft: Draft, context: ContextId, pages: int, loads: dict[ContextId, Load]) -> bool:
        return self._make_room(draft, pages, loads) or self._break_promise(draft, context, pages, loads)

    def _idle(self, draft: Draft, loads: dict[ContextId, Load]) -> Iterator[Candidate]:
        """Yield who holds pages, has no turn and is not part of the plan yet; victims first."""
        if draft.idle is None:
            jobs, order = self._jobs, self._order
            there = [(load.context, load.pages_held) for load in loads.values() if load.pages_held > 0]
            draft.idle = [
                Candidate(one, pages, jobs[one].had_turn, order.rank_of(one)) for one, pages in there if one in order
            ]
            draft.idle.sort(key=preference, reverse=True)
        grants, reasons = draft.grants, draft.reasons
        return (one for one in draft.idle if one.context not in grants and one.context not in reasons)

    def _make_room(
        self, draft: Draft, pages: int, loads: dict[ContextId, Load], behind: ContextId | None = None
    ) -> bool:
        """Evict contexts outside of turns (those `behind` another) until `pages` more are free; or change nothing."""
        floor = self._order.rank_of(behind) if behind is not None else FIRST
        victims = choose_victims((one for one in self._idle(draft, loads) if one.rank > floor), pages)
        for victim in victims:
            draft.evict(victim)
        return bool(victims)

    def _break_promise(self, draft: Draft, context: ContextId, pages: int, loads: dict[ContextId, Load]) -> bool:
        """Pages went elsewhere: for the oldest turn alone, end the youngest turns until there are `pages` more.

        Only the oldest may do this, so it always gets on and two turns never push each other out.
        """
        if context != next(iter(self._turns)):
            return False
        young = [
            Candidate(other, loads[other].pages_held, False, (float(place), 0))
            for place, other in enumerate(self._turns)
            if other != context and other in loads and other not in draft.grants and loads[other].pages_held > 0
        ]
        victims = choose_victims(sorted(young, key=preference, reverse=True), pages)
        for victim in victims:
            draft.evict(victim)
            draft.reserve(victim.context, 0)
        return bool(victims)

    # --- the end of a step -----------------------------------------------------------------------------------------

    def _settle(self, draft: Draft, begun: list[ContextId], loads: dict[ContextId, Load]) -> Plan:
        """Turn the draft into the plan and note whose turns began or were cut short."""
        for context in begun:
            self._order.leave(context)
            self._turns[context] = self._order.quantum_tokens(self._jobs[context])
        plan = draft.plan()
        self._steady = (plan, draft.budget) if _is_steady(plan, loads) else None
        for context in plan.swap_out:
            if context in self._turns:
                self._end_turn(self._jobs[context])
        return plan


def _is_steady(plan: Plan, loads: dict[ContextId, Load]) -> bool:
    has_moves = plan.swap_out or plan.swap_in or plan.prefetch
    return not has_moves and all(_is_plain_decode(loads[one]) for one in plan.grants)


def _is_plain_decode(load: Load) -> bool:
    return load.prefill_tokens <= 0 and load.decode_tokens == 1


def _decodes_in_place(load: Load | None) -> bool:
    return load is not None and _is_plain_decode(load) and load.page_room >= 1 and not load.pages_away


def make_planner(policy: Policy, *, quantum_tokens: int, ageing_s: float = AGEING_S, slowdown: float = inf) -> Planner:
    """Return a planner; `quantum_tokens` is the length of an interactive context's turn.

    `slowdown`: how many times as long a step of decoding contexts may take because prompts are read in it.
    """
    if quantum_tokens < 1:
        raise ValueError(f"quantum_tokens = {quantum_tokens}: a turn needs at least one token")
    orders: dict[str, Callable[[], Order]] = {
        "fifo": lambda: Fifo(quantum_tokens),
        "rr": lambda: RoundRobin(quantum_tokens),
        "priority": lambda: StrictPriority(quantum_tokens, ageing_s),
    }
    if policy not in orders:
        raise ValueError(f"policy {policy!r} is unknown; one of {', '.join(orders)}")
    return StepPlanner(orders[policy](), slowdown)
