"""`make compat`: what remote cores promise, tried on real servers of others. Prints a table and writes a dated JSON.

Each check runs a kernel whose only core is the endpoint. A server that cannot be had is null with the reason. Outside
CI: it builds llama.cpp's server once, in the user's cache folder. Servers: llama-server, which continues an answer
whose beginning is the last message ("prefill"), and another kernel's own door ("flag").
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from aios import env
from aios.abi.chat import Generation, Message, Sampling
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Signal
from aios.abi.replies import Delta, Failed, Ok
from aios.abi.syscalls import AnyCall, CallCancel, LlmGenerate, ProcSignal, Request
from aios.boot.compose import embedded
from aios.config import CoreSettings, EngineSettings, Settings
from aios.engine import modelstore
from aios.errors import AiosError
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from benchmarks.common import BenchmarkError, machine
from benchmarks.peers import llama_server

RESULTS = Path("benchmarks/results")
SLOTS = 4
CHECK_S = 120.0
RULES = 'rule little "little money": require amount in {3, 4} before pay(amount)'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
}
KNOWN = {
    (
        "llama-server",
        "tools",
    ): "the llama-server that llama-cpp-python 0.3.36 carries lets a model answer with text where a call is demanded; "
    "our core asks again and then says no_compliant_call, or length where the room is used up",
}
"""Failures of theirs that no remote core can mend."""
Check = Callable[[Kernel], Awaitable[str]]


class Unfit(Exception):
    """A check found what is not as promised."""


@tool
async def pay(amount: int, to: str) -> str:
    """Pay an amount to somebody."""
    return f"paid {amount} to {to}"


# --- talking to the kernel ------------------------------------------------------------------------------------------

_numbers = iter(range(1, 1_000_000))


def request(call: AnyCall, *, stream: bool = False) -> Request:
    """Wrap a call with a fresh id."""
    return Request.model_validate({"id": f"r{next(_numbers)}", "call": call, "stream": stream})


def question(text: str, max_tokens: int = 32, *, context: str = "main", **fields: Any) -> LlmGenerate:
    """Ask with one user message; sampling settings may be among `fields`."""
    chosen = {name: fields.pop(name) for name in ("temperature", "seed", "stop", "logprobs") if name in fields}
    sampling = Sampling(max_tokens=max_tokens, **chosen)
    return LlmGenerate(context=context, messages=(Message(role="user", content=text),), sampling=sampling, **fields)


async def generated(door: Door, call: LlmGenerate) -> Generation:
    """Generate. Raises Unfit."""
    reply = await door.call(request(call))
    if not isinstance(reply, Ok):
        raise Unfit(f"{reply.code}: {reply.reason}")
    return Generation.model_validate(reply.value)


async def streamed(door: Door, asked: Request, pieces: list[str]) -> Generation:
    """Generate, putting the pieces into the list as they come. Raises Unfit."""
    async for piece in door.stream(asked):
        if isinstance(piece, Delta):
            pieces.append(piece.text)
        elif isinstance(piece, Ok):
            return Generation.model_validate(piece.value)
        else:
            raise Unfit(f"{piece.code}: {piece.reason}")
    raise Unfit("no reply")


def expect(holds: bool, what: str) -> None:
    """Raises Unfit saying what was found."""
    if not holds:
        raise Unfit(what)


async def until(condition: Callable[[], bool]) -> None:
    """Look now and then."""
    while not condition():  # noqa: ASYNC110  # what is awaited happens in another process
        await anyio.sleep(0.01)


async def asker(kernel: Kernel, rules: str = "") -> Door:
    """Start a process that may use every tool."""
    return await kernel.root(f"asker-{next(_numbers)}", caps=(CapSpec(resource="tool:*"),), rules=rules)


# --- checks ---------------------------------------------------------------------------------------------------------


async def stream(kernel: Kernel) -> str:
    """A text comes piece by piece, with the endpoint's own count."""
    pieces: list[str] = []
    found = await streamed(await asker(kernel), request(question("Count to ten."), stream=True), pieces)
    expect("".join(pieces) == found.text and len(pieces) > 1, f"{len(pieces)} pieces of {found.text!r}")
    expect(found.usage.prompt_tokens > 5 and found.usage.completion_tokens > 5, f"usage {found.usage}")
    return f"{len(pieces)} pieces, {found.usage.completion_tokens} tokens, finish {found.finish}"


async def stop_and_seed(kernel: Kernel) -> str:
    """A stop string ends the text before it; one seed gives one text, another one another."""
    door = await asker(kernel)
    ended = await generated(door, question("Count: 1, 2, 3,", 40, stop=("5",)))
    expect("5" not in ended.text, f"stop: {ended.text!r}")
    texts = [
        (await generated(door, question("Invent a name.", 16, temperature=0.7, seed=seed))).text for seed in (7, 7, 8)
    ]
    expect(texts[0] == texts[1] != texts[2], f"texts by seed: {texts}")
    return f"stop ended with {ended.finish}"


async def tools(kernel: Kernel) -> str:
    """A demanded call is one of a tool that was offered, its arguments fit, and its result is understood."""
    door = await asker(kernel)
    found = await generated(door, question("Pay 5 to Ann.", 96, tool_choice="required"))
    expect(bool(found.tool_calls) and found.finish == "tool_calls", f"{found.finish}: {found.text!r}")
    call = found.tool_calls[0]
    arguments = call.arguments
    expect(call.name == "pay" and type(arguments.get("amount")) is int, f"{call.name}({arguments})")
    history = (
        Message(role="user", content="Pay 5 to Ann."),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="paid", tool_call_id=call.id, name=call.name),
    )
    after = await generated(door, LlmGenerate(messages=history, tool_choice="none", sampling=Sampling(max_tokens=16)))
    expect(bool(after.text), "no text behind the result")
    return f"{call.name}({arguments})"


async def rules(kernel: Kernel) -> str:
    """Under a rule the call is one that the rule allows, or there is none."""
    door = await asker(kernel, RULES)
    found = await generated(door, question("Pay 500 to Ann.", 96, tool_choice="required"))
    amounts = [call.arguments["amount"] for call in found.tool_calls]
    expect(all(amount in (3, 4) for amount in amounts), f"amounts {amounts}")
    return f"amounts {amounts}, finish {found.finish}, {found.usage.completion_tokens} tokens"


async def schema(kernel: Kernel) -> str:
    """A text by schema is valid."""
    found = await generated(await asker(kernel), question("Ann is 7.", 64, tools=(), output_schema=SCHEMA))
    expect(isinstance(found.parsed, dict) and found.parsed["age"] <= 99, f"parsed {found.parsed}")
    return json.dumps(found.parsed)


async def logprobs(kernel: Kernel) -> str:
    """Each token has its logprob."""
    found = await generated(await asker(kernel), question("Say yes.", 8, tools=(), logprobs=1))
    count, values = found.usage.completion_tokens, [one.logprob for one in found.logprobs]
    expect(abs(len(values) - count) <= 1 and all(value <= 0 for value in values), f"{len(values)} of {count}: {values}")
    return f"{len(values)} of {count} tokens"


async def continuation(kernel: Kernel) -> str:
    """A process that is stopped in mid-answer goes on behind its text when it may."""
    door, pieces = await asker(kernel), [""]
    whole = await generated(door, question("Tell a short story.", 40, tools=(), context="whole"))
    results: list[Generation] = []

    async def tell() -> None:
        results.append(
            await streamed(door, request(question("Tell a short story.", 40, tools=()), stream=True), pieces)
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell)
        await until(lambda: len("".join(pieces)) > 20)
        for signal in (Signal.STOP, Signal.CONT):
            await kernel.operator().call(request(ProcSignal(pid=door.pid, signal=signal)))
    [found], begun = results, "".join(pieces)
    expect(found.recovery == "continued from the partial text", f"recovery {found.recovery}")
    expect(found.text == begun, f"shown {begun!r}, said {found.text!r}")
    return "the same text as in one go" if found.text == whole.text else f"another text: {found.text!r}"


async def concurrency(kernel: Kernel) -> str:
    """More calls than the endpoint has places all end, and none gets another one's text."""
    door, texts = await asker(kernel), dict[int, str]()

    async def one(number: int) -> None:
        asked = question(f"Repeat: {number * 111}", 12, context=f"c{number}", tools=())
        texts[number] = (await generated(door, asked)).text

    began = time.monotonic()
    numbers = range(1, 2 * SLOTS + 1)
    async with anyio.create_task_group() as tasks:
        for number in numbers:
            tasks.start_soon(one, number)
    foreign = [(one, other) for one in numbers for other in numbers if one != other and str(other * 111) in texts[one]]
    expect(len(texts) == 2 * SLOTS and not foreign, f"answers with another one's number: {foreign} in {texts}")
    return f"{len(texts)} calls in {time.monotonic() - began:.1f} s"


async def cancel(kernel: Kernel) -> str:
    """A call that is cancelled frees its place at the endpoint."""
    door, pieces = await asker(kernel), list[str]()
    endless = [
        request(question("Tell a long story.", 1500, context=f"e{n}", tools=()), stream=True) for n in range(SLOTS)
    ]

    async def tell(asked: Request) -> None:
        try:
            await streamed(door, asked, pieces)
        except Unfit as ended:
            expect("E-CANCELLED" in str(ended), str(ended))

    async with anyio.create_task_group() as tasks:
        for asked in endless:
            tasks.start_soon(tell, asked)
        await until(lambda: len(pieces) > 2 * SLOTS)
        for asked in endless:
            await door.call(request(CallCancel(id=asked.id)))
    began = time.monotonic()
    await generated(door, question("Hi.", 4, tools=()))
    return f"the next answer {time.monotonic() - began:.2f} s later"


async def too_long(kernel: Kernel) -> str:
    """A prompt beyond the endpoint's context is refused by name, and the next one is answered."""
    door = await asker(kernel)
    reply = await door.call(request(question("word " * 12_000, 4, tools=())))
    expect(isinstance(reply, Failed) and reply.code == "E-REMOTE-REJECTED", f"{reply}"[:300])
    await generated(door, question("Hi.", 4, tools=()))
    assert isinstance(reply, Failed)
    return reply.reason[:120]


CHECKS: tuple[Check, ...] = (
    stream,
    stop_and_seed,
    tools,
    rules,
    schema,
    logprobs,
    continuation,
    concurrency,
    cancel,
    too_long,
)


# --- servers --------------------------------------------------------------------------------------------------------


@contextmanager
def llama(model: Path) -> Iterator[CoreSettings]:
    """Serve the file by llama-server."""
    with llama_server.serving(model, threads=1, slots=SLOTS) as url:
        yield CoreSettings(url=url, model=model.stem, continuation="prefill", concurrency=SLOTS)


@contextmanager
def ours(model: Path) -> Iterator[CoreSettings]:
    """Serve the file by a kernel in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        variables = {**os.environ, env.HOME: home, "AIOS_MODEL": str(model)}
        command = [sys.executable, "-m", "tests.server.served"]
        with subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            os.environ["SERVED_KEY"] = process.stdout.readline().strip()
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
            yield CoreSettings(url=url, model=model.stem, key="SERVED_KEY", continuation="flag", concurrency=SLOTS)
            process.terminate()


SERVERS = {"llama-server": llama, "aios": ours}


@asynccontextmanager
async def kernel_at(settings: CoreSettings) -> AsyncIterator[Kernel]:
    """Run a kernel whose only core is the endpoint."""
    with tempfile.TemporaryDirectory() as home:
        os.environ[env.HOME] = home
        async with embedded(Settings(name="compat", durability="none", cores={"far": settings})) as kernel:
            kernel.add_tool(pay)
            yield kernel


async def tried(settings: CoreSettings) -> dict[str, dict[str, Any]]:
    """Run all checks at one endpoint."""
    found: dict[str, dict[str, Any]] = {}
    async with kernel_at(settings) as kernel:
        for check in CHECKS:
            name = check.__name__
            try:
                with anyio.fail_after(CHECK_S):
                    found[name] = {"ok": True, "note": await check(kernel)}
            except* (Unfit, AiosError, TimeoutError) as errors:
                note = "; ".join(str(error) or type(error).__name__ for error in leaves(errors))
                found[name] = {"ok": False, "note": note}
            print(f"  {'ok  ' if found[name]['ok'] else 'FAIL'} {name}: {found[name]['note']}", flush=True)
    return found


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a group of groups."""
    return (
        [leaf for one in error.exceptions for leaf in leaves(one)] if isinstance(error, BaseExceptionGroup) else [error]
    )


def main() -> int:
    """Try all servers; return 1 if one that could be had is not as promised."""
    model = modelstore.find(EngineSettings().model).path
    servers: dict[str, Any] = {}
    for name, serve in SERVERS.items():
        print(name)
        try:
            with serve(model) as settings:
                servers[name] = anyio.run(tried, settings)
        except BenchmarkError as error:
            traceback.print_exc(limit=1)
            servers[name] = None
            print(f"  not tried: {error}")
    now = datetime.now(UTC)
    for (server, check), why in KNOWN.items():
        if servers.get(server) and not servers[server][check]["ok"]:
            servers[server][check]["known"] = why
            print(f"known: {server}, {check}: {why}")
    result = {"name": "compat", "date": now.isoformat(timespec="seconds"), "machine": machine(), "servers": servers}
    (RESULTS / f"{now:%Y-%m-%d}-compat.json").write_text(json.dumps(result, indent=1) + "\n")
    unknown = [
        (server, name)
        for server, checks in servers.items()
        for name, check in (checks or {}).items()
        if not check["ok"] and (server, name) not in KNOWN
    ]
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main())
