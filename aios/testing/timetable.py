"""Records of the latency core: how long things take, and what is under way.

Owns data only; `aios.testing.latency` moves it through time.
"""

from dataclasses import dataclass

from aios.abi.core import Submit
from aios.testing.script import Output


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """How long things take: a call lasts `prompt * prefill_s + completion * decode_s`, once it has a slot."""

    prefill_s: float = 0.0
    """Per uncached prompt token."""
    decode_s: float = 0.0
    """Per completion token."""
    slots: int | None = None
    """Generations at once; None = no limit. Others wait in order of arrival."""
    max_context: int = 131_072
    page_tokens: int = 16


@dataclass(slots=True)
class Run:
    """A generation under way."""

    submit: Submit
    output: Output
    uncached: int
    accepted_s: float
    count: int
    """Tokens made."""
    started_s: float | None = None
    due_s: float = 0.0
    """When the next token comes; while suspended, how long it still takes."""
    prefilled_s: float = 0.0
    switches: int = 0

    @property
    def is_done(self) -> bool:
        return self.count >= len(self.output.tokens)


@dataclass(slots=True)
class Context:
    """The tokens of a context, and what is being generated."""

    tokens: tuple[int, ...] = ()
    """Prompt and what was generated, as far as it is known."""
    tier: str = "device"
    is_suspended: bool = False
    run: Run | None = None


def common_length(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Return the length of the common beginning."""
    if second[: len(first)] == first:
        return len(first)
    return next((number for number, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))


def per_tier(tier: str, pages: int) -> tuple[int, int, int]:
    """Return the pages on device, host and disk when all lie in one tier."""
    return tuple(pages if tier == one else 0 for one in ("device", "host", "disk"))  # type: ignore[return-value]  # three
