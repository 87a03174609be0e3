"""The state-exact contract as a story: contexts that are interrupted at random points, beside twins that are not.

A point is: suspend (host, disk), compare, resume, compare; or fork and compare. What is compared: the digest of every
page, counters, the sampler's position, what the grammar allows next, and the text so far.
"""

import random
from collections.abc import Sequence

from aios.abi.core import Describe, Described, Drop, Fork, Resume, Submit, Suspend
from aios.engine.context import Context, Turn
from aios.engine.engine import Engine
from aios.engine.grammar import Grammar
from aios.ids import ContextId

FORK = ContextId("99:fork")


def state(engine: Engine, name: ContextId) -> tuple[object, ...]:
    """Return everything that a switch must not change."""
    context = engine.contexts[name]
    return (*_kv(engine, context), *(_turn(context.turn) if context.turn else ()))


def _kv(engine: Engine, context: Context) -> tuple[object, ...]:
    return context.table.tokens, tuple(context.tokens), engine.memory.digests(context.table)


def _turn(turn: Turn) -> tuple[object, ...]:
    allowed = turn.grammar.bits().tobytes() if isinstance(turn.grammar, Grammar) else b""
    return tuple(turn.generated), turn.output.text, allowed, turn.mask.version if turn.mask else None


def digests(engine: Engine, name: ContextId) -> tuple[str, ...]:
    """Ask as the kernel would."""
    engine.do(Describe(context=name, epoch=engine.contexts[name].epoch, ticket=77))
    engine.wait_for_copies()
    return next(m.digests for m in engine.take_messages() if isinstance(m, Described) and m.ticket == 77)


def interrupt(engine: Engine, name: ContextId, choice: str) -> int:
    """Interrupt a context once and bring it back; return how many parts of its state differ."""
    before, epoch = state(engine, name), engine.contexts[name].epoch
    if choice == "fork":
        engine.do(Fork(context=name, epoch=epoch, into=FORK))
        differing = int(digests(engine, FORK) != digests(engine, name))
        engine.do(Drop(context=FORK, epoch=epoch))
        return differing + (state(engine, name) != before)
    engine.do(Suspend(context=name, epoch=epoch, tier=choice))
    away = state(engine, name) != before
    engine.do(Resume(context=name, epoch=epoch))
    return int(away) + (state(engine, name) != before)


def interrupted_run(engine: Engine, orders: Sequence[Submit], points: int, seed: int = 1) -> tuple[int, int]:
    """Run the orders, again and again, with random interruptions; return the points met and the differences found."""
    dice, met, differing, epoch = random.Random(seed), 0, 0, 0
    while met < points:
        epoch += 1
        for order in orders:
            engine.do(_again(order, epoch))
        while met < points and (engine.step() or engine.wait_for_grammar()):
            names = [order.context for order in orders if dice.random() < 0.7]
            for name in names[: points - met]:
                differing += interrupt(engine, name, dice.choice(("host", "disk", "fork")))
                met += 1
            engine.take_messages()
    return met, differing


def _again(order: Submit, epoch: int) -> Submit:
    return Submit(
        context=order.context,
        epoch=epoch,
        ticket=order.ticket,
        request=order.request,
        tools=order.tools,
        facts=order.facts,
        lease_tokens=order.lease_tokens,
    )
