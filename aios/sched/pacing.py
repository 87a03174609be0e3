"""How much of the waiting prompts is read in a step in which others decode.

Counted in the time of one prompt token, a step takes `overhead + tokens`: so many prompt tokens beside `n` decoding
contexts that it takes at most `slowdown` times `overhead + n`. Where many wait for their first token, the share grows
in proportion. One page is always read, so a prompt of `p` pages that is served takes at most `p` steps. Pure
arithmetic; knows no queue and no clock.
Source of the method: Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve (2024),
section 4 (stall-free batching).
"""

from collections.abc import Iterable

from aios.abi.sched import Budget, Load

FIRST_TOKEN_WEIGHT = 8
"""So many that wait for their next token count as much as one that waits for its first. Agents that come together are
then read in nearly at once and decode together, which takes fewer steps; see benchmarks/LOG.md."""


def paced_tokens(loads: Iterable[Load], budget: Budget, slowdown: float) -> int:
    """Return the most prompt tokens of the coming step: whole pages, or the whole budget where nobody decodes."""
    decoding, waiting = 0, 0
    for load in loads:
        if load.prefill_tokens > 0:
            waiting += 1
        elif not load.pages_away:
            decoding += load.decode_tokens
    if budget.overhead_tokens is None or not decoding:
        return budget.tokens
    newcomers = min(waiting, budget.rows - decoding)
    share = (slowdown - 1) * max(1.0, FIRST_TOKEN_WEIGHT * newcomers / decoding)
    most = share * (budget.overhead_tokens + decoding)
    if most >= budget.tokens:
        return budget.tokens
    return min(max(1, int(most) // budget.page_tokens) * budget.page_tokens, budget.tokens)
