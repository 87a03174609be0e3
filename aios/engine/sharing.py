"""Sharing of prompt heads between the contexts of a tenant.

Owns when a context looks into the prefix tree: when its turn begins, before each plan, and before each chunk of its
prompt, so that agents that came together compute a common head once. For that a context waits while the page that it
would compute next is computed by another in the same step. Nobody waits longer than that step: afterwards the page is
in the tree, or there is nobody to wait for.

What is shared was computed by somebody else. In deterministic mode its bytes are those that the context would have
computed itself; otherwise they may differ in their last bits, as they do with other chunks of the same prompt.
"""

from aios.engine.batching import Grant
from aios.engine.context import Context
from aios.engine.prefix import PrefixTrees


class Sharing:
    """Binds contexts to trees; without trees nothing is shared."""

    def __init__(self, trees: PrefixTrees | None) -> None:
        self._trees = trees
        self._under_way: set[bytes] = set()
        self.num_hits = 0
        """Tokens of prompts that were not computed, so far."""

    def bind(self, context: Context, *, may_fetch: bool = False) -> None:
        """Let a context have what its tenant's tree holds. With `may_fetch` it may be on its way back afterwards."""
        if self._trees is None or context.is_held or not context.table.resident or context.outstanding <= 1:
            return  # the last token is never shared
        turn, table = context.turn, context.table
        before = table.tokens if turn is None else max(turn.reached, table.tokens)
        self._trees.bind(context.trail, context.tokens, table, may_fetch=may_fetch)
        gained = max(0, table.tokens - before)
        self.num_hits += gained
        if turn is not None:
            turn.cached_tokens = min(turn.prompt_tokens, turn.cached_tokens + gained)
            turn.reached = before + gained

    def note(self, context: Context) -> None:
        """Let others of its tenant have what a context has computed."""
        if context.turn is not None:
            context.turn.reached = max(context.turn.reached, context.table.tokens)
        if self._trees is not None:
            self._trees.note(context.trail, context.tokens, context.table)

    # --- within one step -----------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Nothing is computed yet."""
        self._under_way.clear()

    def must_wait(self, context: Context) -> bool:
        """Whether the page that a context would compute next is computed by another in this step."""
        table = context.table
        index = table.tokens // table.page_tokens
        if self._trees is None or not self._under_way or (index + 1) * table.page_tokens >= len(context.tokens):
            return False
        return self._trees.digest(context.trail, context.tokens, index, table.page_tokens) in self._under_way

    def granted(self, grant: Grant) -> None:
        """Note what a grant computes."""
        context, size = grant.context, grant.context.table.page_tokens
        if self._trees is not None and grant.count > 1:
            tokens = context.table.tokens
            for index in range(tokens // size, (tokens + grant.count) // size):
                self._under_way.add(self._trees.digest(context.trail, context.tokens, index, size))
