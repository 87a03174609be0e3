"""Does it fit: how many pages a step, and a whole turn, of a context takes.

Reserve-max: a turn begins only when the pages for its whole prompt and quantum are there or can be made, so that
whoever was brought in can use its quantum up. Pure arithmetic; knows no queue.
"""

from aios.abi.sched import Load


def growth_pages(load: Load, tokens: int, page_tokens: int) -> int:
    """Return how many new pages `tokens` more tokens need."""
    beyond = tokens - load.page_room
    return -(-beyond // page_tokens) if beyond > 0 else 0


def step_pages(load: Load, tokens: int, page_tokens: int) -> int:
    """Return the pages that a step of `tokens` takes from the free ones: those to bring back and those to grow by."""
    return load.pages_away + growth_pages(load, tokens, page_tokens)


def turn_pages(load: Load, decode_tokens: int, page_tokens: int) -> int:
    """Return the pages that the rest of a turn takes: the rest of the prompt and `decode_tokens` after it.

    The step that ends a prompt samples the first token, whose KV is written by the next step.
    """
    ahead = load.prefill_tokens or load.decode_tokens - 1
    return step_pages(load, ahead + decode_tokens, page_tokens)
