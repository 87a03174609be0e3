"""A support desk: ten agents at work on one small shared model, under a rule that holds while calls are decoded.

    aios run examples/support_desk.py [-- --agents 8 --unguarded --orders FILE --prompts FILE --json demo.json]

Each agent is a process with typed tools over a real SQLite database. The KV pool holds only some of them, so the
kernel switches contexts in mid-generation. One agent hands its letter to a child and waits, one call waits for a
manager (a second program), one agent is suspended to disk and brought back. At the end the desk judges the run from
the kernel's own events, writes demo.json and exits 1 when a line fails.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

import aios
from aios import Generation, Message, Sampling, ToolCall, ToolReport
from aios.abi.events import AnyEvent, TokensStreamed
from support import judge, orders, progress
from support.watch import watched

HERE = Path(__file__).parent / "support"
SETTINGS = {"pool_pages": 64, "quantum_tokens": 4}
"""A pool for about half of the ten contexts, which share the head of their prompts, and short turns; flags and
environment rank above these."""
MAX_TURNS = 4
ON_DISK_S = 1.0
"""How long the suspended agent stays on disk."""


@dataclass(frozen=True)
class Desk:
    """All that one run of the desk works with."""

    prompts: dict[str, Any]
    orders: tuple[dict[str, Any], ...]
    rules: str
    seed: int
    report: Path
    is_own_data: bool
    tickets: "tuple[Ticket, ...]" = ()

    def sampling(self, max_tokens: int) -> Sampling:
        """Greedy, unless the prompts say otherwise."""
        return Sampling(max_tokens=max_tokens, seed=self.seed, temperature=self.prompts.get("temperature", 0.0))


@dataclass(frozen=True)
class Ticket:
    """One customer's request as its agent works on it."""

    desk: Desk
    agent: str
    message: str
    tools: tuple[str, ...]
    goal: str
    """The tool that settles it."""
    hands_over: bool

    async def work(self) -> str:
        """Take turns until the goal was called, then write to the customer; return the letter."""
        messages = [*examples(self.desk.prompts, self.tools), Message(role="user", content=self.message)]
        order: dict[str, Any] = {"customer": "", "item": "", "status": "open"}
        for _ in range(MAX_TURNS):
            generation = await self.next_call(messages)
            reports = await aios.call_tools(generation.tool_calls, mask_version=generation.mask_version)
            messages += [as_message(generation), *map(result_message, reports)]
            order |= next((report.result for report in reports if isinstance(report.result, dict)), {})
            if any(report.name == self.goal and report.status == "ok" for report in reports):
                order["status"] = self.goal
                break
            messages.append(Message(role="user", content=self.desk.prompts["go_on"].format(message=self.message)))
        return await self.letter(order)

    async def next_call(self, messages: Sequence[Message]) -> Generation:
        """Let the model choose and write its next tool call."""
        return await aios.generate(messages, tools=self.tools, tool_choice="required", sampling=self.desk.sampling(64))

    async def letter(self, order: dict[str, Any]) -> str:
        """Write the letter, or have a child process write it."""
        if not self.hands_over:
            return await write_letter(self.desk, order)
        writer = await aios.start(lambda: write_letter(self.desk, order), name="writer", caps=())
        return await writer.wait()


async def write_letter(desk: Desk, order: dict[str, Any]) -> str:
    """Have the model write to the customer."""
    reply = desk.prompts["reply"]
    prompt = Message(role="user", content=reply["prompt"].format(**order))
    generation = await aios.generate([prompt], context="letter", sampling=desk.sampling(reply["max_tokens"]))
    return generation.text


def examples(prompts: dict[str, Any], tools: Sequence[str]) -> list[Message]:
    """Return the system message and the worked examples for these tools."""
    messages = [Message(role="system", content=prompts["system"])]
    for number, example in enumerate(prompts["examples"]):
        if example["tool"] in tools:
            call = ToolCall(id=f"example-{number}", name=example["tool"], arguments=example["arguments"])
            messages += [Message(role="user", content=example["user"]), Message(role="assistant", tool_calls=(call,))]
            if "result" in example:
                content = json.dumps(example["result"])
                messages.append(Message(role="tool", content=content, tool_call_id=call.id, name=call.name))
    return messages


def as_message(generation: Generation) -> Message:
    """Put what the model said into the transcript."""
    return Message(role="assistant", content=generation.text, tool_calls=generation.tool_calls)


def result_message(report: ToolReport) -> Message:
    """Put what a tool said into the transcript; a refusal is told with its reason."""
    content = json.dumps(report.result) if report.status == "ok" else f"{report.status}: {report.reason}"
    return Message(role="tool", content=content, tool_call_id=report.id, name=report.name)


class Pulse:
    """Something that happens again and again."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    def beat(self) -> None:
        """Say that it happens now."""
        self._next.set()
        self._next = anyio.Event()

    async def wait(self) -> None:
        """Wait until it happens the next time."""
        await self._next.wait()


async def suspend_one(agent: aios.Child[str], writing: Pulse) -> None:
    """Once the agent is in the middle of a generation, put it on disk and bring it back."""
    is_back = False
    while not is_back:
        await first_of(writing, agent.ended)
        if agent.ended.is_set():
            return
        is_back = await rest_on_disk(agent.pid)


async def rest_on_disk(pid: int) -> bool:
    """Put an agent on disk for a while; return whether it came back from there as it had gone.

    Not so if a kernel was killed meanwhile: what it had on disk is gone, and the next one computes it again.
    """
    try:
        out = await aios.suspend(pid=pid, tier="disk")
        await aios.sleep(ON_DISK_S)
        back = await aios.resume(pid=pid)
    except aios.SyscallError as error:
        if error.reply_code not in {"E-NO-CONTEXT", "E-NO-PROCESS"}:
            raise
        return False
    return back.seconds > 0 and back.digests == out.digests


async def first_of(*events: Pulse | anyio.Event) -> None:
    """Wait for one of the events."""

    async def wait(event: Pulse | anyio.Event) -> None:
        await event.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for event in events:
            group.start_soon(wait, event)


async def run_desk(desk: Desk) -> bool:
    """Be the root process: start the agents and the manager, watch, judge. Return whether every line holds."""
    status = await aios.kernel_info()
    database = aios.home() / "support_desk" / f"orders-{status.name}-{aios.current_pid()}.db"
    orders.create(database, desk.orders)
    tools = orders.make_tools(database)
    counts, writing = judge.Tally(), Pulse()
    agents: list[aios.Child[str]] = []
    async with AsyncExitStack() as stack:
        show = await stack.enter_async_context(progress.shown(status.name, counts))

        def see(event: AnyEvent) -> None:
            counts.take(event)
            show(event)
            if isinstance(event, TokensStreamed) and len(agents) > 1 and event.pid == agents[1].pid:
                writing.beat()

        await stack.enter_async_context(watched(status.name, see))
        stack.enter_context(manager(status.name))
        for ticket in desk.tickets:
            agents.append(await start_agent(ticket, tools))
        await aios.gather(suspend_one(agents[1], writing), *(agent.wait() for agent in agents))
    return await report(desk, counts, len(agents))


async def start_agent(ticket: Ticket, tools: Sequence[aios.Tool]) -> aios.Child[str]:
    """Start the ticket's agent as a child process that may call the ticket's tools and no others."""
    chosen = [tool for tool in tools if tool.name in ticket.tools]
    rights = (aios.CapSpec(resource="spawn"),) if ticket.hands_over else ()
    return await aios.start(ticket.work, name=ticket.agent, tools=chosen, caps=rights, rules=ticket.desk.rules)


@contextmanager
def manager(kernel: str) -> Iterator[None]:
    """Run the second program while the desk is at work."""
    program = subprocess.Popen([sys.executable, str(HERE / "manager.py"), "--kernel", kernel])
    aios.vouch(program.pid)
    try:
        yield
    finally:
        program.terminate()
        program.wait()


async def report(desk: Desk, counts: judge.Tally, agents: int) -> bool:
    """Print the judgement and write it down; return whether every line holds."""
    known = counts.model_sha256 == desk.prompts.get("made_for") and desk.is_own_data
    lines = judge.judge(counts, agents, known_model=known, guarded=bool(desk.rules))
    processes = await aios.list_processes(all=True)
    summary = judge.summary(counts, processes, agents) | {"passed": all(line.passed for line in lines)}
    desk.report.write_text(json.dumps(summary, indent=1) + "\n")
    print(*lines, f"written to {desk.report}", sep="\n")
    return bool(summary["passed"])


def read_desk(options: argparse.Namespace) -> Desk:
    """Read prompts, orders and rules. Raises UsageError when there are fewer tickets than agents."""
    data = json.loads(options.orders.read_text())
    tickets = data["tickets"]
    if len(tickets) < options.agents:
        raise aios.UsageError(f"--agents {options.agents}: {options.orders} has only {len(tickets)} tickets")
    desk = Desk(
        prompts=tomllib.loads(options.prompts.read_text()),
        orders=tuple(data["orders"]),
        rules="" if options.unguarded else options.rules.read_text(),
        seed=options.seed,
        report=options.json,
        is_own_data=options.orders == HERE / "orders.json" and options.prompts == HERE / "prompts.toml",
    )
    # The last ticket of the file is the one that needs a manager; it stays whatever the number of agents.
    chosen = [*tickets[: options.agents - 1], tickets[-1]]
    return replace(desk, tickets=tuple(make_ticket(desk, number, entry) for number, entry in enumerate(chosen)))


def make_ticket(desk: Desk, number: int, entry: dict[str, Any]) -> Ticket:
    """Turn an entry of the tickets file into a ticket; the first one hands its letter over."""
    tools = tuple(entry["tools"])
    return Ticket(desk, entry["agent"], entry["message"], tools, goal=tools[0], hands_over=number == 0)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--unguarded", action="store_true", help="leave the rules out: the forbidden call is made")
    parser.add_argument("--orders", type=Path, default=HERE / "orders.json")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.toml")
    parser.add_argument("--rules", type=Path, default=HERE / "desk.rules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("demo.json"))
    return parser.parse_args()


def main() -> int:
    """Run the desk; return the exit status."""
    desk = read_desk(arguments())
    passed = aios.run_sync(lambda: run_desk(desk), name="support_desk", settings=SETTINGS)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
