"""Steps in flight: what a device computes while the host reads, says and plans.

On a device a step is given away and left in flight; the next call of the step loop plans what comes next while the
device computes, and only then reads what was chosen. Where no row's next choice needs its last token on the host
(greedy or seeded rows with any `top_k`, `top_p`, stop strings and log-probabilities; not: grammar, guard mask,
penalty, draft), the step after it is launched before that reading, its tokens taken where they were chosen: the device
never waits for the host. At most two steps are on the device, and at most one of them when the loop returns.

Invariants:
- A step in flight writes K and V only behind what its contexts' tables count, into pages that are theirs alone. So
  the host's view of every context is at a token boundary at any time, and a step can land or be thrown away.
- What ends a turn may be learned one step late (end token, stop string): the row's next step is then ignored and its
  page given back. The device runs what it is given in order, so whoever gets that page next writes to it later.
- Limits known beforehand (tokens, lease, capacity) are never overrun.

Source of the idea: the overlap scheduler of SGLang 0.4 (2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from aios.abi.sched import Load, Plan
from aios.engine.batch import Batch, Row
from aios.engine.batching import Grant
from aios.engine.choosing import Rows
from aios.engine.context import Context
from aios.engine.device_choosing import DeviceChooser, Picks, is_plain
from aios.engine.pages import OutOfFrames
from aios.engine.tiers import Memory
from aios.ids import ContextId


class AheadModel(Protocol):
    """A model that can be given a step whose tokens the host does not know."""

    def forward(self, batch: Batch, pool: Tensor, *, chosen: Tensor | None = None) -> Tensor:
        """Compute a step of single tokens; `chosen`, int32 [T], stand in for the batch's tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was given away and not read."""

    grants: Sequence[Grant]
    rows: Rows
    began_s: float = 0.0
    """When the device could begin with it."""

    @property
    def is_decode(self) -> bool:
        """Whether every context computes its one outstanding token, so that the step after can be planned."""
        return all(grant.samples and grant.size == 1 for grant in self.grants)

    @property
    def names(self) -> frozenset[ContextId]:
        """Its contexts."""
        return frozenset(grant.context.id for grant in self.grants)

    def foresee(self, loads: dict[ContextId, Load]) -> None:
        """Turn the loads of its contexts into those that they will have, as far as that is known."""
        for grant in self.grants:
            if _will_end(grant.context):
                loads.pop(grant.context.id, None)
            elif grant.context.id in loads:
                load = loads[grant.context.id]
                load.page_room = max(0, load.page_room - 1)

    def fits(self, plan: Plan) -> bool:
        """Whether a plan that was made while this step was in flight is right now that it has landed."""
        planned = [
            (grant.context, plan.grants[grant.context.id]) for grant in self.grants if grant.context.id in plan.grants
        ]
        return all(context.turn is not None and context.outstanding == count for context, count in planned)


class Overlap:
    """Launches steps whose tokens are still on the device."""

    def __init__(self, model: AheadModel, chooser: DeviceChooser, memory: Memory) -> None:
        self._model, self._chooser, self._memory = model, chooser, memory

    def follow(self, flight: Flight, plan: Plan) -> Flight | None:
        """Launch the step that `plan` says is next, if nothing of it hangs on what `flight` chooses."""
        if plan.swap_out or plan.swap_in or plan.prefetch or not isinstance(flight.rows, Picks):
            return None
        places = {grant.context.id: place for place, grant in enumerate(flight.grants)}
        if not all(places.get(name) is not None and count == 1 for name, count in plan.grants.items()):
            return None
        kept = [places[name] for name in plan.grants if not _will_end(flight.grants[places[name]].context)]
        contexts = [flight.grants[place].context for place in kept]
        if not contexts or not all(map(_is_free, contexts)) or not self._reserve(contexts):
            return None
        return self._launch(contexts, flight.rows.only(kept).tokens)

    def without_ended(self, flight: Flight, began_s: float) -> Flight | None:
        """Leave out the rows whose turns have ended with the step before; None if no other is left."""
        assert isinstance(flight.rows, Picks)
        for grant in flight.grants:
            if grant.context.turn is None:
                self._memory.truncate(grant.context.table, grant.context.table.tokens)
        kept = [place for place, grant in enumerate(flight.grants) if grant.context.turn is not None]
        if not kept:
            return None
        return Flight([flight.grants[place] for place in kept], flight.rows.only(kept), began_s)

    def _reserve(self, contexts: Sequence[Context]) -> bool:
        """Give each context a place for one token more than those in flight; or change nothing."""
        for done, context in enumerate(contexts):
            try:
                self._memory.extend(context.table, 2)
            except OutOfFrames:
                for other in contexts[:done]:
                    self._memory.truncate(other.table, other.table.tokens + 1)
                return False
        return True

    def _launch(self, contexts: Sequence[Context], chosen: Tensor) -> Flight:
        # a row that may take nothing says -1, which is no row of the embedding
        logits = self._model.forward(self._batch(contexts), self._memory.pool, chosen=chosen.clamp(min=0))
        grants = [Grant(context, 1) for context in contexts]
        return Flight(grants, self._chooser.look(grants, logits, ahead=1))

    def _batch(self, contexts: Sequence[Context]) -> Batch:
        """Return the step behind the one in flight, without its tokens."""
        size, count = self._memory.page_tokens, len(contexts)
        positions = np.array([context.table.tokens + 1 for context in contexts], dtype=np.int64)
        pages = [self._memory.frames(context.table) for context in contexts]
        frames = np.array([int(own[at // size]) for own, at in zip(pages, positions, strict=True)], dtype=np.int64)
        return Batch(
            tokens=torch.zeros(count, dtype=torch.int64),
            positions=torch.from_numpy(positions),
            slots=torch.from_numpy(frames * size + positions % size),
            rows=[Row(place, 1, int(positions[place]) + 1, own) for place, own in enumerate(pages)],
            sample=torch.arange(count),
        )


def _is_free(context: Context) -> bool:
    """Whether a turn's next choice needs nothing of its last token that only the host can tell."""
    return context.turn is not None and is_plain(context.turn)


def _will_end(context: Context) -> bool:
    """Whether the token in flight is the last that a turn may take."""
    turn = context.turn
    return turn is not None and (
        len(turn.generated) + 1 >= turn.most_tokens or len(context.tokens) + 1 >= turn.capacity
    )
