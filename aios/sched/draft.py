"""One step's plan in the making: what of the budget is spent, who was granted what.

Owns the arithmetic of one step (tokens, rows, pages) and nothing that outlives it.
Invariant: pages free now, plus those that leave, cover those brought in and those that grants grow by.
"""

from dataclasses import dataclass, field

from aios.abi.sched import Budget, Load, Plan
from aios.ids import ContextId
from aios.sched.admission import growth_pages, step_pages
from aios.sched.victim import Candidate


@dataclass(slots=True)
class Draft:
    """Spend with `grant` and `evict`; read the result with `plan`."""

    budget: Budget
    free_pages: int
    tokens: int
    rows: int
    paced_tokens: int
    """Most tokens for prompts, so that those who decode do not wait long."""
    prompt_tokens: int
    """Of these at first: the budget less one for every row, so that decodes are never crowded out."""
    reserved: dict[ContextId, int] = field(default_factory=dict)
    """Pages that turns under way may still take, oldest turn first."""
    reserved_pages: int = 0
    grants: dict[ContextId, int] = field(default_factory=dict)
    swap_in: list[ContextId] = field(default_factory=list)
    prefetch: list[ContextId] = field(default_factory=list)
    reasons: dict[ContextId, str] = field(default_factory=dict)
    idle: list[Candidate] | None = None
    """Who was on the device without a turn when the step began, victims first; made when first asked for."""
    is_closed: bool = False
    """Someone waits for pages or there are turns enough: nobody behind may begin one and take the pages first."""

    @classmethod
    def of(cls, budget: Budget, paced_tokens: int) -> "Draft":
        """Start with the whole budget."""
        prompt_tokens = min(paced_tokens, max(1, budget.tokens - budget.rows))
        return cls(budget, budget.free_pages, budget.tokens, budget.rows, paced_tokens, prompt_tokens)

    @property
    def is_full(self) -> bool:
        """Whether no further grant is possible."""
        return self.rows <= 0 or self.tokens <= 0

    def wanted(self, load: Load) -> int:
        """Return how many tokens the context could get now."""
        if load.prefill_tokens <= 0:
            return min(load.decode_tokens, self.tokens)
        return min(load.prefill_tokens, self.prompt_tokens, self.tokens)

    def reserve(self, context: ContextId, pages: int) -> None:
        """Set what a turn under way may still take."""
        self.reserved_pages += pages - self.reserved.get(context, 0)
        self.reserved[context] = pages

    def unreserved(self, context: ContextId) -> int:
        """Return the free pages that no other turn counts on (negative when promises exceed the pages)."""
        return self.free_pages - self.reserved_pages + self.reserved.get(context, 0)

    def unreserved_by_elders(self, context: ContextId) -> int:
        """Return the free pages that no turn older than that of `context` counts on."""
        free = self.free_pages
        for other, pages in self.reserved.items():
            if other == context:
                break
            free -= pages
        return free

    def grant(self, load: Load, tokens: int) -> None:
        """Give the context `tokens` tokens and the pages for them; brings it back first if it is away."""
        self.free_pages -= step_pages(load, tokens, self.budget.page_tokens)
        self.rows -= 1
        self.tokens -= tokens
        if load.prefill_tokens > 0:
            self.prompt_tokens -= tokens
            self.paced_tokens -= tokens
        self.grants[load.context] = tokens
        if load.pages_away > 0:
            self.swap_in.append(load.context)

    def evict(self, victim: Candidate) -> None:
        """Take a context off the device."""
        self.free_pages += victim.pages
        self.reasons[victim.context] = "quantum" if victim.is_expired else "pages"

    def stretch(self, load: Load) -> None:
        """Give a prompt that was granted a part of its tokens what is left of the budget and fits."""
        granted = self.grants[load.context]
        more = min(load.prefill_tokens - granted, self.tokens, self.paced_tokens)
        page_tokens = self.budget.page_tokens
        pages = growth_pages(load, granted + more, page_tokens) - growth_pages(load, granted, page_tokens)
        if more <= 0 or pages > self.unreserved(load.context):
            return
        self.grants[load.context] = granted + more
        self.tokens -= more
        self.paced_tokens -= more
        self.free_pages -= pages
        self.reserve(load.context, max(0, self.reserved.get(load.context, 0) - pages))

    def plan(self) -> Plan:
        """Return the finished plan."""
        return Plan(self.grants, tuple(self.reasons), tuple(self.swap_in), tuple(self.prefetch), self.reasons)
