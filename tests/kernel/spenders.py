"""T10 in a whole kernel: processes that spend at once, tools that fail in every way, kills, a crash; one shared limit.

Everything is drawn from a seed: amounts, batches, what becomes of each call, and how long each waits for its turn. The
till is the truth: it holds the money that really moved, and what it held at worst.
"""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import anyio

from aios.abi.chat import ToolCall
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Signal
from aios.abi.replies import Ok
from aios.abi.syscalls import ProcSignal, ToolCallBatch
from aios.errors import ToolError, ToolTimeout
from aios.guard.judging.gate import compile_rules
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from aios.tools.tool import Tool
from tests.kernel.world import World, ask

MOST = Decimal(10)
RULES = "viability V0\nshared rule spend: limit sum(amount) of pay(amount, team = t) per t to 10.00\n"
FATES = ("ok", "ok", "refused", "refused", "lost after it moved", "lost before it moved", "hangs after it moved")
CAPS = (CapSpec(resource="tool:*"),)


@dataclass
class Till:
    """Money that moved, by team."""

    spent: Counter[str] = field(default_factory=Counter)
    worst: Decimal = Decimal(0)
    seen: Counter[str] = field(default_factory=Counter)

    def move(self, amount: float, team: str) -> None:
        """Money moves: that is never taken back."""
        self.spent[team] += round(amount * 100)
        self.worst = max(self.worst, Decimal(self.spent[team]) / 100)


def paying(till: Till, dice: Random) -> Tool:
    """The tool `pay`, whose calls fare as the dice fall."""

    @tool
    async def pay(amount: float, team: str) -> float:
        """Pay."""
        fate, turns = dice.choice(FATES), dice.randrange(6)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        till.seen[fate] += 1
        if fate == "refused":
            raise ToolError("no money moved")
        if fate != "lost before it moved":
            till.move(amount, team)
        if fate == "hangs after it moved":
            await anyio.sleep_forever()
        if fate != "ok":
            raise ToolTimeout("who knows")
        return amount

    return pay


async def spend(seed: int, folder: Path, *, processes: int = 4, rounds: int = 4) -> Till:
    """Let the processes spend, crash the kernel in the middle, let them go on. Returns the till."""
    dice, till = Random(seed), Till()
    (folder / "spend.rules").write_text(RULES)
    world = World(settings={"rules": (folder / "spend.rules",)}, compile_rules=compile_rules)
    async with world.crashed() as kernel:
        await _live(kernel, till, dice, processes, rounds)
    async with world.kernel() as kernel:
        till.seen["restarts"] += 1
        await _live(kernel, till, dice, processes, rounds)
    return till


async def _live(kernel: Kernel, till: Till, dice: Random, processes: int, rounds: int) -> None:
    kernel.add_tool(paying(till, dice))
    doors = [await kernel.root(f"spender-{number}", caps=CAPS) for number in range(processes)]
    async with anyio.create_task_group() as group:
        for door in doors:
            group.start_soon(_spender, door, till, dice, rounds)
        group.start_soon(_killer, kernel, [door.pid for door in doors], till, dice)


async def _spender(door: Door, till: Till, dice: Random, rounds: int) -> None:
    for _ in range(rounds):
        for _ in range(dice.randrange(4)):
            await anyio.lowlevel.checkpoint()
        calls = tuple(_call(dice, number) for number in range(dice.randint(1, 3)))
        reply = await door.call(ask(ToolCallBatch(calls=calls)))
        for report in reply.value if isinstance(reply, Ok) else ():
            till.seen[_outcome(report)] += 1


def _call(dice: Random, number: int) -> ToolCall:
    arguments = {"amount": dice.choice((1, 2.5, 4, 6)), "team": dice.choice(("x", "x", "y"))}
    return ToolCall(id=f"c{number}", name="pay", arguments=arguments)


def _outcome(report: Any) -> str:
    assert isinstance(report, dict)
    if report["status"] == "denied":
        assert report["code"] == "E-GUARD-DENIED", report
    return f"reported {report['status']}"


async def _killer(kernel: Kernel, pids: list[int], till: Till, dice: Random) -> None:
    """Kill every process in the end, so that calls that hang come to theirs; some early."""
    for pid in dice.sample(pids, len(pids)):
        for _ in range(dice.randrange(60)):
            await anyio.lowlevel.checkpoint()
        await kernel.operator().call(ask(ProcSignal(pid=pid, signal=Signal.KILL)))
        till.seen["kills"] += 1
