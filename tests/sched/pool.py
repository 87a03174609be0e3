"""A device pool without tensors: contexts hold pages, plans move them. Checks every plan that it is given."""

from dataclasses import dataclass, field

from aios.abi.process import ProcessClass
from aios.abi.sched import Budget, Call, Load, Plan, Planner
from aios.ids import ContextId


@dataclass
class Context:
    """One generation: what it still has to do and where its pages are."""

    call: Call
    prefill: int
    decode: int
    tokens: int = 0
    is_away: bool = False
    since_in: int | None = None
    """Tokens decoded since it was brought in."""


@dataclass
class Step:
    plan: Plan
    ready: set[ContextId]
    decoding: set[ContextId]
    """Those that were on the device and decoding when the plan was made."""


@dataclass
class Pool:
    """Runs a planner against `pages` pages; every step is checked and kept."""

    planner: Planner
    pages: int
    tokens: int = 64
    rows: int = 8
    page_tokens: int = 4
    overhead_tokens: float | None = None
    step_s: float = 0.01
    now_s: float = 0.0
    contexts: dict[ContextId, Context] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    decoded_before_swap_out: list[tuple[ContextId, int]] = field(default_factory=list)

    def add(
        self,
        name: str,
        prompt: int,
        new: int,
        *,
        klass: ProcessClass = ProcessClass.INTERACTIVE,
        nice: int = 0,
        pid: int = 1,
    ) -> ContextId:
        context = ContextId(name)
        call = Call(context, pid, klass, nice, self.now_s, prompt, new)
        self.contexts[context] = Context(call, prompt, new)
        self.planner.arrived(call)
        return context

    def held(self, context: Context) -> int:
        return -(-context.tokens // self.page_tokens)

    @property
    def free(self) -> int:
        return self.pages - sum(self.held(one) for one in self.contexts.values() if not one.is_away)

    def load(self, context: Context) -> Load:
        held = self.held(context)
        away = held if context.is_away else 0
        room = held * self.page_tokens - context.tokens
        return Load(context.call.context, context.prefill, held - away, away, room)

    def step(self) -> Plan:
        """Ask for a plan, check it against the budget, carry it out."""
        loads = {name: self.load(one) for name, one in self.contexts.items()}
        decoding = {name for name, one in self.contexts.items() if one.prefill == 0 and not one.is_away}
        budget = Budget(self.now_s, self.tokens, self.rows, self.free, self.page_tokens, self.overhead_tokens)
        plan = self.planner.plan(loads, budget)
        self.check(plan)
        self.steps.append(Step(plan, set(loads), decoding))
        self.move(plan)
        assert self.free >= 0, "more pages than there are"
        for name, tokens in plan.grants.items():
            self.forward(name, tokens)
        assert self.free >= 0, "more pages than there are"
        self.now_s += self.step_s
        return plan

    def check(self, plan: Plan) -> None:
        assert sum(plan.grants.values()) <= self.tokens
        assert len(plan.grants) <= self.rows
        assert not set(plan.swap_out) & set(plan.grants)
        assert set(plan.swap_in) <= set(plan.grants)
        assert set(plan.reasons) == set(plan.swap_out)
        for name in plan.swap_out:
            assert not self.contexts[name].is_away
        for name in plan.prefetch:
            assert self.contexts[name].is_away
            assert name not in plan.grants
        for name, tokens in plan.grants.items():
            one = self.contexts[name]
            assert one.is_away == (name in plan.swap_in)
            assert 1 <= tokens <= (one.prefill or 1)

    def move(self, plan: Plan) -> None:
        for name in plan.swap_out:
            one = self.contexts[name]
            one.is_away = True
            if one.since_in is not None:
                self.decoded_before_swap_out.append((name, one.since_in))
        for name in (*plan.swap_in, *plan.prefetch):
            self.contexts[name].is_away = False
            self.contexts[name].since_in = 0

    def forward(self, name: ContextId, tokens: int) -> None:
        one = self.contexts[name]
        one.tokens += tokens
        one.prefill = max(0, one.prefill - tokens)
        decoded = 1 if one.prefill == 0 else 0
        one.decode -= decoded
        if one.since_in is not None:
            one.since_in += decoded
        self.planner.served(name, tokens, decoded)
        if one.decode == 0:
            del self.contexts[name]
            self.planner.left(name)

    def run(self, limit: int = 10_000) -> None:
        """Step until everyone is done."""
        for _ in range(limit):
            if not self.contexts:
                return
            self.step()
        raise AssertionError(f"not done after {limit} steps: {sorted(self.contexts)}")

    def longest_wait(self, context: ContextId) -> int:
        """Return the most steps in a row in which `context` was ready and got nothing."""
        longest = waited = 0
        for step in self.steps:
            waited = waited + 1 if context in step.ready and context not in step.plan.grants else 0
            longest = max(longest, waited)
        return longest
