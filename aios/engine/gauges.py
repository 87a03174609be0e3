"""What the machine really does: bytes a second between the tiers, tokens a second of prefill.

Owns moving averages over real copies and steps; the calibration at the start fills them first. Decides nothing.
"""

from collections.abc import Sequence

import msgspec

from aios.abi.sched import Rates
from aios.engine.pages import Tier
from aios.engine.storage import Frame, Place

_WEIGHT = 0.1
"""Of a new sample: some ten samples make an average."""
_PREFILL_TOKENS = 32
"""A step with fewer tokens of one context says more about decoding."""


class Gauges:
    """Moving averages."""

    def __init__(self, rates: Rates | None = None) -> None:
        self.rates = rates or Rates()

    def copied(self, to: Tier, sources: Sequence[Place], num_bytes: int, seconds: float) -> None:
        """Take in a copy; one that took no time was called off."""
        if seconds <= 0:
            return
        source = "host" if isinstance(sources[0], Frame) else "disk"
        self._average(f"from_{source}" if to is Tier.DEVICE else f"to_{to}", num_bytes / seconds)

    @property
    def overhead_tokens(self) -> float | None:
        """Prompt tokens that could be computed in the time that a step takes whatever its size."""
        prefill, overhead_s = self.rates.prefill, self.rates.overhead_s
        return None if prefill is None else prefill * (overhead_s or 0.0)

    def computed(self, counts: Sequence[int], seconds: float) -> None:
        """Take in a step that computed so many tokens of each context."""
        if seconds <= 0:
            return
        if max(counts) >= _PREFILL_TOKENS:
            self._average("prefill", sum(counts) / seconds)
        elif max(counts) == 1 and self.rates.prefill is not None:
            self._average("overhead_s", max(0.0, seconds - len(counts) / self.rates.prefill))

    def _average(self, name: str, sample: float) -> None:
        before: float | None = getattr(self.rates, name)
        value = sample if before is None else before + _WEIGHT * (sample - before)
        self.rates = msgspec.structs.replace(self.rates, **{name: value})
