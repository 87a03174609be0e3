"""What `engine_cpu` measures of our engine alone, on the real model."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
from torch import Tensor

from aios.abi.chat import Message, Sampling
from aios.abi.core import Drop, Finished, ProcessFacts, Stepped, Submit
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.engine.batch import Batch, Model, ModelConfig
from aios.engine.engine import Engine
from aios.engine.loader import LoadedModel, load_model
from aios.ids import ContextId
from aios.kernel.host import EngineHost
from benchmarks.common import BenchmarkError, Sheet, percentile
from benchmarks.peers.protocol import prompt

Probe = Callable[[Sheet], Awaitable[None]]
_HELLO = """
import time
from aios import Agent, TextDelta
for step in Agent("hello", "You answer in one short sentence.").stream_sync("Say hello."):
    if isinstance(step, TextDelta):
        print("first", time.time(), flush=True)
        break
"""
_TOOLS = tuple(
    ToolSpec.model_validate(
        {
            "name": name,
            "description": f"{name} an order",
            "parameters": {
                "type": "object",
                "properties": {
                    "order_number": {"type": "string", "maxLength": 8},
                    "customer_name": {"type": "string", "maxLength": 12},
                    "notify_customer": {"type": "boolean"},
                },
                "required": ["order_number", "customer_name", "notify_customer"],
                "additionalProperties": False,
            },
        }
    )
    for name in ("cancel", "refund", "replace")
)


def probes(model: Path, threads: int, *, quick: bool) -> Iterator[tuple[Probe, tuple[str, ...]]]:
    """Yield each probe with the targets that it measures."""
    found = Probes(model, threads, quick=quick)
    yield found.load_to_first_token, ("load_to_first_token_s",)
    yield found.run_to_first_token, ("run_to_first_token_s",)
    yield found.shared_head, ("shared_head_prefill_saved",)
    yield found.mixed_load, ("mixed_gap_p99_vs_median",)
    yield found.step_python, ("step_python_ms_b1",)
    yield found.jump_forward, ("jump_forward_fewer_steps",)


class Probes:
    """The measurements."""

    def __init__(self, model: Path, threads: int, *, quick: bool) -> None:
        self.model, self.threads, self.quick = model, threads, quick
        self._loaded: LoadedModel | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model, loaded at first use."""
        if self._loaded is None:
            self._loaded = load_model(self.model, threads=self.threads, native=True)
        return self._loaded

    def engine(self, **settings: object) -> Engine:
        """Return a new engine with a pool that is large enough for everything here."""
        chosen = HostSettings.model_validate({"model": str(self.model), "pool_pages": 2048, **settings})
        return make_engine(self.loaded, make_memory(self.loaded, chosen), chosen)

    # --- start ------------------------------------------------------------------------------------------------------

    async def load_to_first_token(self, sheet: Sheet) -> None:
        """From the start of the engine host's process to its first token, packed weights there."""
        samples = [await self._first_token() for _ in range(2 if self.quick else 6)][1:]
        sheet.keep("load_to_first_token", samples, "s")
        sheet.values["load_to_first_token_s"] = statistics.median(samples)

    async def _first_token(self) -> float:
        settings = {"model": str(self.model), "threads": self.threads, "pool_pages": 256}
        host = EngineHost((sys.executable, "-m", "aios.boot.engine_host"), settings)
        began = time.perf_counter()
        await host.start()
        try:
            await host.send(submit("1:main", prompt(32, 1), 1))
            async for message in host.messages():
                if isinstance(message, Stepped):
                    return time.perf_counter() - began
        finally:
            await host.aclose()
        raise BenchmarkError("the engine host ended without a token")

    async def run_to_first_token(self, sheet: Sheet) -> None:
        """From `aios run` to the first token of a program."""
        samples = [await self._first_delta() for _ in range(2 if self.quick else 6)][1:]
        sheet.keep("run_to_first_token", samples, "s")
        sheet.values["run_to_first_token_s"] = statistics.median(samples)

    async def _first_delta(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "hello.py"
            script.write_text(_HELLO)
            command = [sys.executable, "-c", "from aios.cli.main import main; main()", "run", "--embedded"]
            environment = {**os.environ, "AIOS_HOME": folder, "AIOS_MODEL": str(self.model)}
            began = time.time()
            done = await anyio.run_process([*command, str(script)], check=False, env=environment)
        firsts = [line.split()[1] for line in done.stdout.decode().splitlines() if line.startswith("first ")]
        if not firsts:
            raise BenchmarkError(f"aios run ended with status {done.returncode}: {done.stderr.decode()[-300:]}")
        return float(firsts[0]) - began

    # --- many agents ------------------------------------------------------------------------------------------------

    async def shared_head(self, sheet: Sheet) -> None:
        """Sixteen agents with prompts of 512 tokens, of which the first 400 are the same."""
        engine, head = self.engine(prefix_sharing=True), prompt(400, 1)
        for number in range(1, 17):
            engine.do(submit(f"{number}:main", head + prompt(112, 10 + number), 1))
        usages = [one.generation.usage for one in finish(engine)]
        engine.close()
        asked, cached = sum(one.prompt_tokens for one in usages), sum(one.cached_tokens for one in usages)
        sheet.results["shared_head"] = {"prompt_tokens": asked, "cached_tokens": cached}
        sheet.values["shared_head_prefill_saved"] = cached / asked

    async def mixed_load(self, sheet: Sheet) -> None:
        """Gaps between the tokens of eight decoding agents while a prompt of 2,000 tokens arrives and is read."""
        engine = self.engine()
        gaps: list[float] = []
        alone: list[float] = []
        firsts: list[float] = []
        for turn in range(1 if self.quick else 3):
            for number in range(1, 9):
                engine.do(submit(f"{number}:main", prompt(64, number), 400))
            run_until(engine, lambda: all(c.turn and len(c.turn.generated) > 20 for c in engine.contexts.values()))
            alone += [_step_ms(engine) for _ in range(20)]
            engine.do(submit("9:long", prompt(2000, 99 + turn), 16))  # another each time: none is shared
            found, first_s = self._gaps(engine)
            gaps += found
            firsts.append(first_s)
            for number in range(1, 9):
                engine.do(Drop(context=ContextId(f"{number}:main"), epoch=1))
            engine.do(Drop(context=ContextId("9:long"), epoch=1))
            engine.take_messages()
        engine.close()
        sheet.keep("mixed_gap", gaps, "ms")
        sheet.keep("mixed_gap_undisturbed", alone, "ms")
        sheet.keep("mixed_first_token", firsts, "s")
        sheet.results["mixed_gap_p99_vs_undisturbed"] = percentile(gaps, 99) / statistics.median(alone)
        sheet.values["mixed_gap_p99_vs_median"] = percentile(gaps, 99) / statistics.median(gaps)

    def _gaps(self, engine: Engine) -> tuple[list[float], float]:
        """Return the milliseconds between one decoding agent's tokens until the long prompt has its answer, and the
        seconds until its first token."""
        gaps: list[float] = []
        began, first_s = time.perf_counter(), 0.0
        last = {f"{number}:main": began for number in range(1, 9)}
        while engine.step():
            now = time.perf_counter()
            for message in engine.take_messages():
                if isinstance(message, Finished) and message.context == "9:long":
                    return gaps, first_s
                for row in message.rows if isinstance(message, Stepped) else ():
                    if row.context == "9:long":
                        first_s = first_s or now - began
                    if row.context in last:
                        gaps.append(1000 * (now - last[row.context]))
                        last[row.context] = now
        raise BenchmarkError("the long prompt was not answered while the others were decoding")

    # --- steps ------------------------------------------------------------------------------------------------------

    async def step_python(self, sheet: Sheet) -> None:
        """What a step of one row costs beside its forward pass, with messages taken as the host takes them."""
        clocked = _Clocked(self.loaded.model)
        settings = HostSettings(model=str(self.model), pool_pages=256)
        loaded = replace(self.loaded, model=clocked)
        engine = make_engine(loaded, make_memory(loaded, settings), settings)
        engine.do(submit("1:main", prompt(64, 1), 1000))
        run_until(engine, lambda: bool(engine.contexts[ContextId("1:main")].tokens[80:]))
        samples = []
        for _ in range(100 if self.quick else 400):
            clocked.seconds, began = 0.0, time.perf_counter()
            engine.step()
            engine.take_messages()
            samples.append(1000 * (time.perf_counter() - began - clocked.seconds))
        engine.close()
        sheet.keep("step_python_b1", samples, "ms")
        sheet.values["step_python_ms_b1"] = statistics.median(samples)

    async def jump_forward(self, sheet: Sheet) -> None:
        """Forward passes that the same tool calls take, without and with canonical jump-forward."""
        passes = {mode: self._passes(mode) for mode in ("off", "exact", "canonical")}
        sheet.results["jump_forward_passes"] = passes
        sheet.values["jump_forward_fewer_steps"] = passes["off"] / passes["canonical"]

    def _passes(self, mode: str) -> int:
        engine = self.engine(jump_forward=mode)
        for number in range(1, 5):
            message = Message(role="user", content=f"Please refund order A-{100 + number} of Ms. Lee.")
            request = LlmGenerate(
                messages=(message,),
                tools=tuple(tool.name for tool in _TOOLS),
                tool_choice="refund",
                sampling=Sampling(max_tokens=96),
            )
            order = Submit(
                context=ContextId(f"{number}:main"),
                epoch=1,
                request=request,
                tools=_TOOLS,
                facts=ProcessFacts(pid=number),
                lease_tokens=96,
            )
            engine.do(order)
            engine.wait_for_grammar()
            finish(engine)  # one after the other, so that passes count the steps of one call
        passes = engine.statistics().forward_passes
        engine.close()
        return passes


class _Clocked:
    """A model that adds up the seconds of its forward passes."""

    def __init__(self, model: Model) -> None:
        self._model, self.seconds = model, 0.0

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._model.config

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Compute as the model does."""
        began = time.perf_counter()
        try:
            return self._model.forward(batch, pool)
        finally:
            self.seconds += time.perf_counter() - began


def submit(name: str, tokens: list[int], max_tokens: int) -> Submit:
    """Return an order to generate greedily, past any end."""
    return Submit(
        context=ContextId(name),
        epoch=1,
        request=LlmGenerate(tokens=tuple(tokens), sampling=Sampling(max_tokens=max_tokens, ignore_eos=True)),
        facts=ProcessFacts(pid=int(name.partition(":")[0])),
        lease_tokens=max_tokens,
    )


def _step_ms(engine: Engine) -> float:
    began = time.perf_counter()
    engine.step()
    engine.take_messages()
    return 1000 * (time.perf_counter() - began)


def run_until(engine: Engine, is_done: Callable[[], bool]) -> None:
    """Step until `is_done`. Raises BenchmarkError when there is nothing left to do before."""
    while not is_done():
        if not engine.step():
            raise BenchmarkError("the engine came to rest too early")
        engine.take_messages()


def finish(engine: Engine) -> list[Finished]:
    """Step until nothing is left to do; return what was finished."""
    finished: list[Finished] = []
    while engine.step() or engine.wait_for_grammar():
        finished += [one for one in engine.take_messages() if isinstance(one, Finished)]
    return finished + [one for one in engine.take_messages() if isinstance(one, Finished)]
