"""A tiny model that wants to write a given text, whatever the weights say, and a kernel's side that answers it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aios.abi.chat import ToolCall
from aios.abi.core import AnyMessage, Called, MaskState, Steer, Submit
from aios.engine.batch import Batch
from aios.engine.engine import Engine
from tests.engine.tiny import CONFIG, EOS

WANT = 1000.0


class Says:
    """A model without weights: it wants the bytes of `text` behind prompts of one token, then the end."""

    config = CONFIG

    def __init__(self, text: str) -> None:
        self._wanted = [*text.encode(), EOS]

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Want what comes next of the text; all else alike."""
        logits = torch.zeros((len(batch.sample), CONFIG.vocab))
        places = batch.positions[batch.sample].tolist()
        for row, place in enumerate(places):
            logits[row, self._wanted[min(place, len(self._wanted) - 1)]] += WANT
        return logits


def served(
    engine: Engine, *orders: Submit, mask: Callable[[Sequence[ToolCall]], MaskState], steps: int = 2000
) -> list[AnyMessage]:
    """Do the orders to their end; what was called is answered with the residuals `mask` behind these calls."""
    for order in orders:
        engine.do(order)
    said = engine.take_messages()
    answered = 0
    for _ in range(steps):
        has_worked = engine.step() or engine.wait_for_grammar()
        said += engine.take_messages()
        called = [message for message in said if isinstance(message, Called)]
        for message in called[answered:]:
            engine.do(Steer(context=message.context, epoch=message.epoch, mask=mask(message.calls)))
        if not has_worked and answered == len(called):
            return said + engine.take_messages()
        answered = len(called)
    raise AssertionError(f"still at work after {steps} steps")
