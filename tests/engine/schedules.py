"""Preemption schedules as stories: generations that are interrupted at random beside random company.

What may happen between two steps: a context goes to the host, the disk or nowhere and comes back some steps later; it
is forked and the fork ends, or the fork goes on as a twin; its kernel gives it again with the tokens that it had, with
or without its pages; strangers come, share the batch and are cancelled. In deterministic mode every generation owes
the tokens that it has alone.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aios.abi.core import Cancel, Drop, Finished, Fork, Refused, Resume, Submit, Suspend
from aios.engine.engine import Engine
from aios.ids import ContextId
from tests.engine.tiny import run, submit, tokens_of

Tokens = tuple[int, ...]
TIERS = ("host", "disk", "dropped")


def solo(engine: Engine, order: Submit) -> Tokens:
    """Run one generation alone and forget it."""
    (tokens,) = tokens_of(run(engine, order)).values()
    run(engine, Drop(context=order.context, epoch=order.epoch))
    return tokens


@dataclass(slots=True)
class Story:
    """One schedule: the orders that are compared, and what happens to them."""

    engine: Engine
    orders: Sequence[Submit]
    stranger: Callable[[int], Sequence[int]]
    """From a number to the prompt of a stranger."""
    dice: random.Random
    rate: float = 0.3
    """Chance that something happens to a context between two steps."""
    points: int = 0
    finished: dict[str, Tokens] = field(default_factory=dict)
    """Tokens of the generations that were not cancelled, by context."""
    held: dict[ContextId, int] = field(default_factory=dict)
    """Contexts that are away, with the steps until they come back."""
    given: dict[ContextId, Submit] = field(default_factory=dict)
    """What each context was last asked, twins and strangers included."""
    strangers: set[ContextId] = field(default_factory=set)

    def play(self) -> dict[str, Tokens]:
        """Run until all have ended; return the tokens by context, twins under their own names."""
        for order in self.orders:
            self._give(order)
        while self._is_running():
            self._interrupt()
            self._bring_back()
            stepped = self.engine.step()
            self._read()
            assert stepped or self.held or not self._is_running(), "nothing runs and nothing is held"
        for name in list(self.engine.contexts):
            self.engine.do(Drop(context=name, epoch=self.engine.contexts[name].epoch))
        self._read()
        return {name: tokens for name, tokens in self.finished.items() if name not in self.strangers}

    def order_of(self, name: str) -> str:
        """Return the order's context whose tokens a context must have."""
        return name.removesuffix("-twin")

    def _is_running(self) -> bool:
        return any(context.turn is not None for context in self.engine.contexts.values())

    def _give(self, order: Submit) -> None:
        self.given[order.context] = order
        self.engine.do(order)

    def _interrupt(self) -> None:
        for name in [name for name in self.given if name not in self.strangers]:
            context = self.engine.contexts.get(name)
            if context is not None and context.turn is not None and self.dice.random() < self.rate:
                self.dice.choice((self._suspend, self._suspend, self._fork, self._give_again))(name)
        if self.dice.random() < self.rate / 4:
            self._strange()

    def _suspend(self, name: ContextId) -> None:
        epoch = self.engine.contexts[name].epoch
        self.engine.do(Suspend(context=name, epoch=epoch, tier=self.dice.choice(TIERS)))
        self.held[name] = self.dice.randrange(3)
        self.points += 1

    def _bring_back(self) -> None:
        for name in [name for name, steps in self.held.items() if steps == 0]:
            del self.held[name]
            if name in self.engine.contexts:
                self.engine.do(Resume(context=name, epoch=self.engine.contexts[name].epoch))
        self.held = {name: steps - 1 for name, steps in self.held.items()}

    def _fork(self, name: ContextId) -> None:
        """Fork; the fork ends at once, or goes on as a twin from the same token."""
        twin, context = ContextId(f"{name}-twin"), self.engine.contexts[name]
        if twin in self.engine.contexts or name.endswith("-twin"):
            return
        assert context.turn is not None
        generated = tuple(context.turn.generated)
        self.engine.do(Fork(context=name, epoch=context.epoch, into=twin))
        self.points += 1
        if self.dice.random() < 0.5:
            self._give(again(self.given[name], twin, context.epoch, generated))
        else:
            self.engine.do(Drop(context=twin, epoch=context.epoch))

    def _give_again(self, name: ContextId) -> None:
        """Do what the kernel does when it has lost the core: the same order with the tokens so far, in a new epoch."""
        context = self.engine.contexts[name]
        assert context.turn is not None
        order = again(self.given[name], name, context.epoch + 1, tuple(context.turn.generated))
        if self.dice.random() < 0.5:
            self.engine.do(Drop(context=name, epoch=context.epoch))
            self.held.pop(name, None)
        self._give(order)
        self.points += 1

    def _strange(self) -> None:
        """Let a stranger come, or cancel one."""
        if self.strangers and self.dice.random() < 0.5:
            name = self.dice.choice(sorted(self.strangers))
            if name in self.engine.contexts:
                self.engine.do(Cancel(context=name, epoch=self.engine.contexts[name].epoch))
            return
        number = 50 + len(self.strangers)
        name = ContextId(f"{number}:stranger")
        self.strangers.add(name)
        prompt = self.stranger(self.dice.randrange(1 << 30))
        self._give(submit(name, prompt, max_tokens=self.dice.randrange(1, 9), temperature=1.0, seed=number))

    def _read(self) -> None:
        for message in self.engine.take_messages():
            assert not isinstance(message, Refused), message
            if isinstance(message, Finished) and message.generation.finish != "cancelled":
                self.finished[message.context] = message.generation.tokens


def again(order: Submit, name: ContextId, epoch: int, generated: Tokens = ()) -> Submit:
    """Return the same order for a context, with the tokens that it has already."""
    return Submit(
        context=name,
        epoch=epoch,
        ticket=order.ticket,
        request=order.request,
        tools=order.tools,
        facts=order.facts,
        lease_tokens=order.lease_tokens,
        generated=generated,
    )
