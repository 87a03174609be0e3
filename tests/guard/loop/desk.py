"""The program: conversations of a model with the tools of a world, each a process with a world of its own.

    python -m tests.guard.loop.desk PLAN.json

Writes what happened beside the plan. A second program decides what waits for a confirmation.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec

import aios
from aios.abi.chat import Generation, Message, Sampling, ToolCall
from aios.abi.events import AnyEvent, GateJudged, TokenMasked
from aios.abi.tools import ToolReport, ToolSpec
from aios.errors import SyscallError, ToolError
from aios.tools.tool import Tool
from tests.guard.worlds import WORLDS, Goal, World

SYSTEM = "You work at a service desk. Do what the customer wants, one tool call at a time."
MOST_SHOWN = 600
"""Characters of a result that the model reads."""


class Plan(msgspec.Struct):
    """What to run."""

    world: str
    seed: int
    conversations: int
    turns: int
    settings: dict[str, Any]
    guarded: bool = True
    at_once: int = 8
    max_tokens: int = 160
    temperature: float = 1.0
    tool_choice: str = "required"


class Found(msgspec.Struct):
    """What happened."""

    made: list[tuple[int, str, dict[str, Any]]] = []
    """Calls that reached a tool: process, tool, arguments."""
    ended: list[int] = []
    """Processes that were let finish; the others were cut off, which no rule judges."""
    counts: dict[str, int] = {}
    seconds: float = 0.0
    failures: list[str] = []


class Desk:
    """All conversations."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.found, self.counts = plan, Found(), Counter[str]()
        self.goals = WORLDS[plan.world]().goals
        self.worlds: dict[int, World] = {}

    def tools(self) -> tuple[Tool[..., Any], ...]:
        """The world's tools; whose world a call changes is known by its process."""
        world = WORLDS[self.plan.world]()
        return tuple(Tool(_asking(spec, world), self._runner(spec.name)) for spec in world.specs)

    def _runner(self, name: str) -> Any:
        async def run(args: dict[str, Any], ctx: aios.Ctx) -> Any:
            self.found.made.append((ctx.pid, name, args))
            answer = self.worlds[ctx.pid].run(name, args)
            if answer.kind == "err":
                raise ToolError(str(answer.value))
            return answer.value

        return run

    async def run(self) -> None:
        """Hold all conversations, a few at once."""
        tools, rules = self.tools(), WORLDS[self.plan.world]().rules if self.plan.guarded else ""
        began, limiter = anyio.current_time(), anyio.Semaphore(self.plan.at_once)
        async with aios.watching(self.see), anyio.create_task_group() as group:
            for number in range(self.plan.conversations):
                await limiter.acquire()
                group.start_soon(self._hold, number, tools, rules, limiter)
        self.found.seconds = anyio.current_time() - began

    async def _hold(self, number: int, tools: Sequence[Tool[..., Any]], rules: str, limiter: anyio.Semaphore) -> None:
        talk = Talk(self, number)
        try:
            child = await aios.start(talk.run, name=f"talk-{number}", tools=tools, rules=rules)
            await child.wait()
            self.found.ended.append(child.pid)
        except SyscallError as error:
            is_owing = error.denied and "finish denied" in str(error)
            self.counts["finish_denied"] += is_owing
            if not is_owing:
                self.found.failures.append(f"conversation {number}: {error}")
        except (aios.AgentError, aios.ProcessKilled) as error:
            self.found.failures.append(f"conversation {number}: {type(error).__name__}: {error}")
        finally:
            limiter.release()

    def see(self, event: AnyEvent) -> None:
        """Count what the kernel tells."""
        if isinstance(event, TokenMasked):
            self.counts["masked"] += 1
        elif isinstance(event, GateJudged):
            self.counts["judged"] += 1
            self.counts["stale_mask"] += event.stale_mask and event.verdict == "deny"
            self.counts["rejected_at_gate"] += event.verdict == "deny"

    def take(self, generation: Generation) -> None:
        """Count one generation."""
        self.counts["generations"] += 1
        self.counts["tokens"] += len(generation.tokens)
        self.counts["calls"] += len(generation.tool_calls)
        self.counts["several"] += len(generation.tool_calls) > 1
        self.counts[f"finish_{generation.finish}"] += 1


class Talk:
    """One conversation: first the model, then what a careful agent reads, then the model again."""

    def __init__(self, desk: Desk, number: int) -> None:
        self.desk, self.number = desk, number
        self.dice = Random(desk.plan.seed * 100_003 + number)
        self.goal: Goal = desk.goals[number % len(desk.goals)]
        self.messages = [Message(role="system", content=SYSTEM), Message(role="user", content=self.goal.text)]
        self.is_over = False

    async def run(self) -> str:
        """Take turns."""
        pid = aios.current_pid()
        world = WORLDS[self.desk.plan.world]()
        self.desk.worlds[pid] = world
        await self._turn(0)
        await self._read(world)
        for turn in range(1, self.desk.plan.turns):
            if self.is_over:
                break
            await self._turn(turn)
        return "done"

    async def _turn(self, turn: int) -> None:
        plan = self.desk.plan
        generation = await aios.generate(
            self.messages,
            tools=None,
            tool_choice=plan.tool_choice,
            sampling=Sampling(
                max_tokens=plan.max_tokens, temperature=plan.temperature, seed=self.dice.randrange(2**31) + turn
            ),
        )
        self.desk.take(generation)
        if generation.finish == "no_compliant_call" and not generation.tool_calls:
            self.desk.counts["stuck"] += 1
            self.is_over = True
            return
        await self._call(generation.tool_calls, generation.text, generation.mask_version)
        self.messages.append(Message(role="user", content="Go on."))

    async def _read(self, world: World) -> None:
        """Make the first of the goal's calls that ask nobody, as many as the dice say."""
        quiet = []
        for call in self.goal.calls:
            if call.tool in world.asking:
                break
            quiet.append(call)
        for number, call in enumerate(quiet[: self.dice.randint(0, len(quiet))]):
            await self._call((ToolCall(id=f"r{number}", name=call.tool, arguments=call.args),), "", None)

    async def _call(self, calls: Sequence[ToolCall], text: str, mask_version: int | None) -> None:
        if not calls:
            return
        self.messages.append(Message(role="assistant", content=text, tool_calls=tuple(calls)))
        for report in await aios.call_tools(calls, mask_version=mask_version):
            self.desk.counts[f"report_{report.status}"] += 1
            self.messages.append(_told(report))
            self.is_over |= report.status == "ok" and report.name in ("transfer_to_human_agents", "hand_over")


def _told(report: ToolReport) -> Message:
    content = json.dumps(report.result) if report.status == "ok" else f"{report.status}: {report.reason}"
    return Message(role="tool", content=content[:MOST_SHOWN], tool_call_id=report.id, name=report.name)


def _asking(spec: ToolSpec, world: World) -> ToolSpec:
    return spec.model_copy(update={"needs_approval": spec.name in world.asking})


@contextmanager
def clerk(kernel: str, seed: int) -> Iterator[None]:
    """The second program, which answers for the customers, while the block runs."""
    program = subprocess.Popen([sys.executable, "-m", "tests.guard.loop.clerk", kernel, str(seed)])
    aios.vouch(program.pid)
    try:
        yield
    finally:
        program.terminate()
        program.wait()


async def main(desk: Desk) -> None:
    """Run the plan as the root process."""
    status = await aios.kernel_info()
    with clerk(status.name, desk.plan.seed):
        await desk.run()


def run_plan(path: Path) -> None:
    """Run the plan that lies at `path`, and write beside it what was found."""
    desk = Desk(msgspec.json.decode(path.read_bytes(), type=Plan))
    rights = (aios.CapSpec(resource="tool:*"), aios.CapSpec(resource="spawn"))
    aios.run_sync(partial(main, desk), name="loop", caps=rights, settings=desk.plan.settings)
    desk.found.counts = dict(desk.counts)
    path.with_suffix(".out").write_bytes(msgspec.json.encode(desk.found))


if __name__ == "__main__":
    run_plan(Path(sys.argv[1]))
