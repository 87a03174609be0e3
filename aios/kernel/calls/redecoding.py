"""Calls that the rules would refuse are decoded again, from their first token on, before anybody gets them.

Owns the guard's modes (`aios.abi.chat.GuardMode`), how often is tried, and the books of what that cost. Judges nothing
for good: the gate does, at `tool.call` and at emission, whatever was found here. Invariants: what was streamed stays
valid, for tokens from the first call on are held back until the end; wasted tokens are reserved before they are
replaced, and charged; after the last try the answer stands as it is.
"""

from dataclasses import dataclass, field

from aios.abi.chat import Generation, GuardMode, Sampling, Usage
from aios.abi.events import CallRedone
from aios.abi.syscalls import LlmGenerate
from aios.ids import Pid
from aios.kernel.contexts import Generating
from aios.kernel.outcome import Refusal
from aios.kernel.parts import Parts
from aios.kernel.table import Running

MOST_DRAWS = 3
"""Free draws of a refused call (`resample`); the next one is masked, so that it ends."""
_HEAT = 1.0
"""Temperature of another draw where the request is greedy: the same one would say the same."""
_ADDED = ("queue_s", "prefill_s", "decode_s", "switches", "drafted_tokens", "accepted_tokens", "forced_tokens")


@dataclass(slots=True)
class _Spent:
    """What earlier tries cost."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class Redecoding:
    """Of one generation; see the module."""

    def __init__(self, parts: Parts, running: Running, ask: LlmGenerate, generation: Generating) -> None:
        self._parts, self._running, self._ask, self._generation = parts, running, ask, generation
        self._mode: GuardMode = ask.guard_mode or parts.settings.guard_mode
        self._is_masked = self._mode == "mask" or not _can_mask(parts)
        self._draws = 0
        self._spent: _Spent | None = None
        self.masked_steps = self.refused_calls = self.stale_masks = self.wasted_tokens = 0

    @property
    def pid(self) -> Pid:
        """Whose generation it is."""
        return Pid(self._running.pid)

    def take_mask(self) -> None:
        """Let the generation have the residuals of this moment, its own completed calls counted as started (S14)."""
        now, calls = self._parts.clock.now(), self._generation.calls
        self._generation.mask = self._parts.guardian.mask(self.pid, now, calls) if self._is_masked else None

    def called(self) -> None:
        """Answer a core that has told of complete calls: residuals that count them; or why they are refused, in words.

        A core that cannot mask tells only of calls that it found forbidden and will ask about again.
        """
        generation = self._generation
        if _can_mask(self._parts):
            self.take_mask()
        else:
            calls, generation.calls = generation.calls, ()
            generation.mask = self._parts.guardian.explained(self.pid, self._parts.clock.now(), calls)
        if generation.mask is not None:
            self._parts.book.steer(generation, generation.mask)

    def again(self, result: Generation) -> int | None:
        """Judge the calls of a result; where one would be refused and may be decoded again, prepare that.

        Returns the position from which on the tokens are void; None: the result stands.
        """
        if self._is_masked and not self._is_stale:
            return None  # a mask that knew all there is would let the same pass again: only the gate can tell
        found = self._refused(result)
        if found is None or not self._may_try():
            return None
        number, rules = found
        position = result.call_starts[number]
        if not self._make_room(len(result.tokens) - position, position):
            return None
        self._note(result, number, rules)
        self._generation.cut(position, result.tool_calls[:number])
        self._generation.request = self._request()
        self.take_mask()
        return position

    def total(self, usage: Usage) -> Usage:
        """Return the usage of all tries together; `usage` is the last one's."""
        books = {
            "masked_steps": self.masked_steps,
            "refused_calls": self.refused_calls,
            "stale_masks": self.stale_masks,
            "wasted_tokens": self.wasted_tokens,
        }
        if self._spent is not None:
            sums = {name: getattr(usage, name) + value for name, value in self._spent.sums.items()}
            books |= {"prompt_tokens": self._spent.prompt_tokens, "cached_tokens": self._spent.cached_tokens, **sums}
        return usage.model_copy(update=books)

    def _refused(self, result: Generation) -> tuple[int, tuple[str, ...]] | None:
        """Return the number of the first call that the gate would refuse, or that came to a dead end; and the rules."""
        calls = result.tool_calls
        if len(result.call_starts) < len(calls) or result.finish == "cancelled":
            return None
        verdicts = self._parts.guardian.rehearse(self.pid, self._parts.clock.now(), calls) if calls else ()
        for number, verdict in enumerate(verdicts):
            if not verdict.allow:
                return number, verdict.rules
        has_begun = len(result.call_starts) > len(calls)
        return (len(calls), ()) if has_begun and result.finish == "no_compliant_call" else None

    # --- one more try ------------------------------------------------------------------------------------------

    @property
    def _is_stale(self) -> bool:
        """Whether the rules' state has changed under a masked generation, and no try was spent on that yet."""
        return self._generation.is_overtaken and self.stale_masks == 0

    def _may_try(self) -> bool:
        """Whether another try may bring another call, and is left. Decides whether it will be masked."""
        if not self._is_masked:
            self._draws += 1
            self._is_masked = self._mode == "hybrid" or self._draws > MOST_DRAWS
            return True
        return self._is_stale

    def _make_room(self, void: int, position: int) -> bool:
        """Reserve as many tokens as are void, or what is left of that; whether any can be decoded."""
        generation, added = self._generation, 0
        try:
            hold = self._parts.quotas.reserve_up_to(self.pid, "tokens", void)
            self._running.defer(hold.release)
            added = hold.amount
        except Refusal:
            pass  # the line is used up; what the void tokens leave of the lease may still do
        if generation.lease_tokens - void + added <= position:
            return False
        generation.lease_tokens += added - void
        return True

    def _note(self, result: Generation, number: int, rules: tuple[str, ...]) -> None:
        was_masked = result.mask_version is not None
        void = len(result.tokens) - result.call_starts[number]
        self.refused_calls += 1
        self.stale_masks += was_masked
        self.wasted_tokens += void
        usage = result.usage
        spent = self._spent = self._spent or _Spent(usage.prompt_tokens, usage.cached_tokens)
        for name in _ADDED:
            spent.sums[name] = spent.sums.get(name, 0) + getattr(usage, name)
        self._parts.guardian.counts.redecoded(void, is_stale=was_masked)
        self._parts.bus.emit(
            CallRedone(
                pid=self.pid,
                context=self._ask.context,
                tool="".join(call.name for call in result.tool_calls[number : number + 1]),
                rules=rules,
                why="stale_mask" if was_masked else self._mode,
                masked=self._is_masked,
                tokens=void,
            )
        )

    def _request(self) -> LlmGenerate:
        """The request of the next try: another draw where it is free, the asked one where it is masked."""
        if self._is_masked:
            return self._ask
        asked = self._ask.sampling
        drawn = Sampling.model_validate(
            {
                **asked.model_dump(),
                "seed": (asked.seed + self._draws) % 2**63,
                "temperature": asked.temperature or _HEAT,
            }
        )
        return self._ask.model_copy(update={"sampling": drawn})


def _can_mask(parts: Parts) -> bool:
    """A core that cannot mask restricts and asks again by itself, with the residuals (`aios.remote`)."""
    ready = parts.book.ready
    return ready is not None and ready.token_mask
