"""A kernel whose core is another kernel's OpenAI door, with the real model behind it."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from aios import env
from aios.abi.chat import Generation, Message, Sampling
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Signal
from aios.abi.replies import Delta, Ok
from aios.abi.syscalls import KernelInfo, LlmGenerate, ProcList, ProcSignal
from aios.boot.cores import make_core
from aios.config import CoreSettings, EngineSettings, Settings
from aios.engine import modelstore
from aios.errors import ModelError
from aios.guard.judging.gate import compile_rules
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from aios.tools.toolbox import Toolbox
from tests.kernel.world import MemoryJournal, ask, done

pytestmark = [pytest.mark.anyio, pytest.mark.model]

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 100
MODEL = "served-model"


@dataclass
class Served:
    """A serving kernel in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    settings: CoreSettings

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    """Start serving kernels by name; all end with the module."""
    try:
        model = modelstore.find(EngineSettings().model).path
    except ModelError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:

        def start(name: str) -> Served:
            home = tmp_path_factory.mktemp(name)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.server.served"],
                cwd=REPOSITORY,
                env={**os.environ, env.HOME: str(home), "AIOS_MODEL": str(model)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.terminate)
            assert process.stdout is not None
            os.environ[f"KEY_OF_{name.upper()}"] = process.stdout.readline().strip()
            port = process.stdout.readline().strip()
            stack.callback(os.environ.pop, f"KEY_OF_{name.upper()}")
            settings = CoreSettings(
                url=f"http://127.0.0.1:{port}/v1",
                model=model.stem,
                aliases=(MODEL,),
                key=f"KEY_OF_{name.upper()}",
                continuation="flag",
                retry_wait_s=0.01,
                attempts=2,
            )
            return Served(name, process, settings)

        yield start


@pytest.fixture(scope="module")
def near(serve: Callable[[str], Served]) -> Served:
    return serve("near")


@asynccontextmanager
async def kernel_on(*cores: Served) -> AsyncIterator[Kernel]:
    chosen = Settings(name="asking", durability="none", cores={one.name: one.settings for one in cores})
    with anyio.fail_after(PATIENCE_S):
        core = make_core(chosen)
        async with Kernel(chosen, MemoryJournal(), core, Toolbox(), compile_rules, secret=b"s", drain_s=0.0) as kernel:
            yield kernel


def question(text: str, max_tokens: int = 24, **fields: Any) -> LlmGenerate:
    sampling = Sampling(max_tokens=max_tokens, logprobs=fields.pop("logprobs", 0), ignore_eos=True)
    return LlmGenerate(messages=(Message(role="user", content=text),), model=MODEL, sampling=sampling, **fields)


async def until(condition: Callable[[], bool]) -> None:
    """Look now and then: a loop that only looks would take the core from the model."""
    while not condition():  # noqa: ASYNC110  # what is awaited happens in another process
        await anyio.sleep(0.02)


@dataclass
class Telling:
    """A generation that is being listened to."""

    shown: str = ""
    result: Generation | None = None

    async def listen(self, door: Door, call: LlmGenerate) -> None:
        async for piece in door.stream(ask(call, stream=True)):
            if isinstance(piece, Delta):
                self.shown += piece.text
            else:
                assert isinstance(piece, Ok), piece
                self.result = Generation.model_validate(piece.value)


@tool
async def pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


async def test_text_calls_schema_and_logprobs_cross_two_kernels(near: Served) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    async with kernel_on(near) as kernel:
        kernel.add_tool(pay)
        door = await kernel.root("asker", caps=(CapSpec(resource="tool:*"),))
        brief = Sampling(max_tokens=48)
        ask_ = LlmGenerate(messages=(Message(role="user", content="Pay 5."),), tool_choice="required", sampling=brief)
        called: dict[str, Any] = {}
        parsed: dict[str, Any] = {}
        spoken: dict[str, Any] = {}

        async def one(into: dict[str, Any], call: LlmGenerate, context: str) -> None:
            into.update(await done(door, call.model_copy(update={"context": context})))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, called, ask_, "a")
            tasks.start_soon(one, parsed, LlmGenerate(messages=ask_.messages, tools=(), output_schema=schema), "b")
            tasks.start_soon(one, spoken, question("Name two colours.", 8, tools=(), logprobs=2), "c")
    made = called["tool_calls"][0]
    assert (made["name"], type(made["arguments"]["amount"])) == ("pay", int)
    assert (called["finish"], parsed["finish"], spoken["finish"]) == ("tool_calls", "stop", "length")
    assert parsed["parsed"]["n"] <= 9
    assert "".join(one["text"] for one in spoken["logprobs"]).startswith(spoken["text"][:4])
    assert len(spoken["logprobs"]) == spoken["usage"]["completion_tokens"] == 8
    assert all(one["logprob"] <= 0 for one in spoken["logprobs"])
    assert spoken["usage"]["prompt_tokens"] > 8


async def test_a_stopped_process_frees_the_other_kernel_and_goes_on_behind_its_text(near: Served) -> None:
    async with kernel_on(near) as kernel, anyio.create_task_group() as tasks:
        door = await kernel.root("teller")
        telling = Telling()
        tasks.start_soon(telling.listen, door, question("Tell a story."))
        await until(lambda: len(telling.shown) > 12)
        await done(kernel.operator(), ProcSignal(pid=door.pid, signal=Signal.STOP))
        await until(lambda: kernel.parts.book.statistics is not None and kernel.parts.book.statistics.running == 0)
        begun = telling.shown
        await done(kernel.operator(), ProcSignal(pid=door.pid, signal=Signal.CONT))
        await until(lambda: telling.result is not None)
    assert telling.result is not None
    assert telling.result.recovery == "continued from the partial text"
    assert telling.result.text.startswith(begun)
    assert telling.result.text == telling.shown
    assert len(telling.result.text) > len(begun)


async def test_when_the_serving_kernel_is_killed_in_mid_answer_another_goes_on(
    serve: Callable[[str], Served], near: Served
) -> None:
    first = serve("first")
    async with kernel_on(first, near) as kernel, anyio.create_task_group() as tasks:
        door = await kernel.root("teller")
        telling = Telling()
        tasks.start_soon(telling.listen, door, question("Tell a story."))
        await until(lambda: len(telling.shown) > 12)
        first.kill()
        begun = telling.shown
        await until(lambda: telling.result is not None)
        [row] = await done(kernel.operator(), ProcList())
        cores = (await done(kernel.operator(), KernelInfo()))["cores"]
    assert telling.result is not None
    assert telling.result.recovery == "continued from the partial text"
    assert telling.result.text.startswith(begun)
    assert telling.result.text == telling.shown
    assert row["recovery"].startswith("main: fail-over from first to near: E-REMOTE-")
    assert [(core["name"], core["reason"] == "") for core in cores] == [("first", False), ("near", True)]
