"""What the kernel costs: the model is replaced by a latency model, so all that is measured is ours.

    python -m benchmarks.kernel_overhead [--json [OUT]] [--check] [--quick]

The kernel runs in a process of its own and is called over its Unix socket. Peer in the same run: plain async clients
on the same latency core without a kernel, in this process. `measured_elsewhere` quotes what AIOS (the paper's code)
was measured to do on another day; it is no peer of this run.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from aios import config
from aios.abi.process import ProcessClass
from aios.abi.sched import Budget, Call, Load, Planner, Policy
from aios.engine import modelstore
from aios.ids import ContextId
from aios.sched import make_planner
from aios.testing import LatencyCore, LatencyModel
from benchmarks.common import Sheet, Target, main, percentile
from benchmarks.load import Agent, Caller, Work, plain, steady, timed, together
from benchmarks.served import served

STEP_S = 0.02
"""Seconds a token of the paced latency model: about a step of the small model on two cores."""
POLICIES: tuple[Policy, ...] = ("fifo", "rr", "priority")

AIOS_MEASURED_ELSEWHERE = {
    "source": "AIOS (agiresearch/AIOS at 2155966, 2026-04-14), measured on another day; quoted, not a peer of this run",
    "idle_syscall_ms": 1106,
    "short_beside_long_ratio": 51,
    "late_arrival_ms": 6310,
    "sixteen_by_ten_vs_ideal": 6.5,
    "steady_arrivals": "starves everybody above about 10 calls/s",
}


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes, with how much of each to do."""

    quick: bool

    def times(self, many: int) -> int:
        """Return a number of repetitions."""
        return max(4, many // 5) if self.quick else many

    # --- one call at a time -----------------------------------------------------------------------------------------

    async def idle_syscalls(self, sheet: Sheet) -> None:
        """One client, one generation of one token that takes no time."""
        async with served(LatencyModel(), durability="crash") as kernel:
            agent = Agent(kernel.root)
            await repeat(20, lambda: agent.generate(1))
            samples = await repeat(self.times(1000), lambda: agent.generate(1))
        sheet.keep("idle_syscall", [1000 * one for one in samples], "ms")
        sheet.values["idle_syscall_p50_ms"] = 1000 * statistics.median(samples)
        sheet.values["idle_syscall_p99_ms"] = 1000 * percentile(samples, 99)
        async with plain(LatencyCore(), 1) as callers:
            peer = await repeat(self.times(1000), lambda: callers[0].generate(1))
        sheet.keep("plain_idle_call", [1000 * one for one in peer], "ms")

    async def power_syscalls(self, sheet: Sheet) -> None:
        """Durable notes against a bare append and fsync of 4 KiB on the same disk, in turn."""
        async with served(LatencyModel(), durability="power") as kernel:
            agent = Agent(kernel.root)
            await repeat(10, agent.remember)
            ours: list[float] = []
            bare: list[float] = []
            for _ in range(self.times(20)):
                ours += await repeat(20, agent.remember)
                bare += append_and_fsync(20)
            agents = [Agent(await kernel.agent()) for _ in range(50)]
            each = self.times(60)
            elapsed = await together([partial(repeat, each, agent.remember) for agent in agents])
        sheet.keep("power_mem_add", [1000 * one for one in ours], "ms")
        sheet.keep("bare_append_fsync_4k", [1000 * one for one in bare], "ms")
        sheet.values["power_syscall_p50_vs_fsync"] = statistics.median(ours) / statistics.median(bare)
        sheet.values["power_syscalls_per_s"] = 50 * each / elapsed

    # --- calls side by side -----------------------------------------------------------------------------------------

    async def side_by_side(self, sheet: Sheet) -> None:
        """Short calls beside and into long ones, and sixteen agents at once."""
        async with served(LatencyModel(decode_s=STEP_S), durability="crash") as kernel:
            agents = [Agent(await kernel.agent()) for _ in range(16)]
            await self._short_beside_long(sheet, agents[0], agents[1], "")
            await self._sixteen_by_ten(sheet, agents, "")
        async with plain(LatencyCore(LatencyModel(decode_s=STEP_S)), 16) as callers:
            await self._sixteen_by_ten(sheet, callers, "plain_")

    async def _short_beside_long(self, sheet: Sheet, short: Caller, long: Caller, peer: str) -> None:
        brief = partial(short.generate, tokens(0.1))
        solo = await repeat(self.times(30), brief)
        beside: list[float] = []

        async def meanwhile() -> None:
            await anyio.sleep(0.2)
            beside.extend(await repeat(25, brief))

        await together([partial(long.generate, tokens(4)), meanwhile])
        late: list[float] = []

        async def later() -> None:
            await anyio.sleep(2)
            late.append(await timed(brief))

        await together([partial(long.generate, tokens(6)), later])
        sheet.keep(f"{peer}short_solo", solo, "s")
        sheet.keep(f"{peer}short_beside_long", beside, "s")
        sheet.values[f"{peer}short_beside_long_ratio"] = statistics.median(beside) / statistics.median(solo)
        sheet.values[f"{peer}late_arrival_ms"] = 1000 * max(0.0, late[0] - statistics.median(solo))

    async def _sixteen_by_ten(self, sheet: Sheet, callers: Sequence[Caller], peer: str) -> None:
        ideal_s = 10 * tokens(0.2) * STEP_S
        rounds = [
            await together([partial(repeat, 10, partial(caller.generate, tokens(0.2))) for caller in callers])
            for _ in range(1 if self.quick else 3)
        ]
        sheet.keep(f"{peer}sixteen_by_ten_makespan", rounds, "s")
        ratio = statistics.median(rounds) / ideal_s
        if peer:
            sheet.results[f"{peer}sixteen_by_ten_vs_ideal"] = ratio
        else:
            sheet.values["sixteen_by_ten_vs_ideal"] = ratio

    async def steady_arrivals(self, sheet: Sheet) -> None:
        """Two hundred calls a second of 60 ms each; what counts is how much longer they take."""
        seconds, num_tokens = 5.0 if self.quick else 15.0, tokens(0.06)
        async with served(LatencyModel(decode_s=STEP_S), durability="crash") as kernel:
            agents = [Agent(await kernel.agent()) for _ in range(32)]
            waits = [1000 * (one - num_tokens * STEP_S) for one in await steady(agents, 200, seconds, num_tokens)]
        sheet.keep("steady_200_per_s_wait", waits, "ms")
        sheet.values["steady_200_per_s_p99_ms"] = percentile(waits, 99)
        async with plain(LatencyCore(LatencyModel(decode_s=STEP_S)), 32) as callers:
            peer = await steady(callers, 200, seconds, num_tokens)
        sheet.keep("plain_steady_200_per_s_wait", [1000 * (one - num_tokens * STEP_S) for one in peer], "ms")

    # --- many agents ------------------------------------------------------------------------------------------------

    async def two_thousand_agents(self, sheet: Sheet) -> None:
        """Threads and memory of the kernel with 2,000 processes that have done something and now idle."""
        count = 2000
        async with served(LatencyModel(), max_children=10_000, durability="crash") as kernel:
            warm = [Agent(await kernel.agent()) for _ in range(20)]
            await repeat(50, warm[0].remember)
            before = kernel.process.memory_info().rss
            for _ in range(count):
                door = await kernel.agent()
                await Agent(door).remember()
                await door.aclose()
            sheet.values["threads_at_2000_agents"] = float(kernel.process.num_threads())
            sheet.values["kib_per_idle_agent"] = (kernel.process.memory_info().rss - before) / count / 1024

    # --- the real engine --------------------------------------------------------------------------------------------

    async def busy_engine(self, sheet: Sheet) -> None:
        """Syscalls while eight agents decode on the real model, and what that costs the engine."""
        model = modelstore.find(config.load().model)
        async with served(None, model=str(model.path), durability="crash") as kernel:
            sheet.results["busy_model_sha256"] = model.sha256
            agents = [Agent(await kernel.agent()) for _ in range(8)]
            caller = Agent(await kernel.agent())
            await together([partial(agent.generate, 4) for agent in agents])
            warm_s = await together([partial(agent.generate, 16) for agent in agents])
            num_tokens = max(16, round(16 * (3 if self.quick else 10) / warm_s))
            idle, busy, quiet, noisy = [], [], [], []
            for _ in range(2 if self.quick else 4):
                idle += await paced(caller, 50, self.times(150))
                quiet.append(8 * num_tokens / await together([partial(one.generate, num_tokens) for one in agents]))
                elapsed, samples = await self._beside_decoding(caller, agents, num_tokens)
                noisy.append(8 * num_tokens / elapsed)
                busy += samples
        sheet.keep("syscall_idle", [1000 * one for one in idle], "ms")
        sheet.keep("syscall_busy", [1000 * one for one in busy], "ms")
        sheet.keep("tokens_per_s_without_traffic", quiet, "1/s")
        sheet.keep("tokens_per_s_with_traffic", noisy, "1/s")
        sheet.values["busy_vs_idle_syscall_p99"] = percentile(busy, 99) / percentile(idle, 99)
        sheet.values["busy_tokens_per_s_loss"] = 1 - statistics.median(noisy) / statistics.median(quiet)

    async def _beside_decoding(self, caller: Agent, agents: list[Agent], num_tokens: int) -> tuple[float, list[float]]:
        samples: list[float] = []
        done = anyio.Event()

        async def traffic() -> None:
            while not done.is_set():
                samples.extend(await paced(caller, 50, 5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(traffic)
            elapsed = await together([partial(one.generate, num_tokens) for one in agents])
            done.set()
        return elapsed, samples

    # --- planning ---------------------------------------------------------------------------------------------------

    async def planning(self, sheet: Sheet) -> None:
        """The step planner with 1,000 runnable contexts and pages for a tenth of them."""
        for policy in POLICIES:
            plans, repeats = replay_steps(make_planner(policy, quantum_tokens=8), self.times(2000))
            sheet.keep(f"plan_{policy}", plans, "us")
            if repeats:
                sheet.keep(f"plan_{policy}_repeated", repeats, "us")
        sheet.values["plan_p99_ms_1000_runnable"] = sheet.results["plan_rr"]["p99"] / 1000


def tokens(seconds: float) -> int:
    """Return how many tokens of the paced latency model take so long."""
    return round(seconds / STEP_S)


async def repeat(count: int, work: Work) -> list[float]:
    """Do `work` so often, one after the other; return the seconds of each."""
    return [await timed(work) for _ in range(count)]


async def paced(agent: Agent, rate: float, count: int) -> list[float]:
    """Do `count` small syscalls, `rate` a second; return the seconds of each."""
    samples = []
    for _ in range(count):
        samples.append(await timed(agent.remember))
        await anyio.sleep(max(0.0, 1 / rate - samples[-1]))
    return samples


def append_and_fsync(count: int) -> list[float]:
    """Append 4 KiB to a file and fsync it, `count` times; return the seconds of each."""
    samples = []
    with tempfile.TemporaryFile() as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            samples.append(time.perf_counter() - start)
    return samples


def replay_steps(planner: Planner, steps: int, *, contexts: int = 1000) -> tuple[list[float], list[float]]:
    """Plan `steps` steps over a pool of pages; return CPU microseconds of new plans and of repeated ones."""
    loads = {}
    for number in range(contexts):
        name = ContextId(f"{number}:main")
        planner.arrived(Call(name, number, ProcessClass.INTERACTIVE, 0, 0.0, 100, 256))
        loads[name] = Load(name, 100, 0, 0, 0)
    lengths = dict.fromkeys(loads, 0)
    free, last = 100 * 12, None
    plans: list[float] = []
    repeats: list[float] = []
    for step in range(steps):
        budget = Budget(step * STEP_S, 256, 32, free, 16)
        start = time.thread_time()
        plan = planner.plan(loads, budget)
        (repeats if plan is last else plans).append(1e6 * (time.thread_time() - start))
        last = plan
        for name in plan.swap_out:
            free += loads[name].pages_held
            loads[name].pages_away, loads[name].pages_held = loads[name].pages_held, 0
        for name in plan.swap_in:
            free -= loads[name].pages_away
            loads[name].pages_held, loads[name].pages_away = loads[name].pages_away, 0
        for name, count in plan.grants.items():
            load = loads[name]
            lengths[name] += count
            pages = -(-lengths[name] // 16)
            free -= pages - load.pages_held
            load.pages_held, load.page_room = pages, pages * 16 - lengths[name]
            load.prefill_tokens = max(0, load.prefill_tokens - count)
            planner.served(name, count, 0 if load.prefill_tokens else 1)
    return plans, repeats


async def measure(quick: bool) -> Sheet:
    """Run all probes."""
    real = {"engine": "latency-model", "model_sha256": None, "durability": "crash", "transport": "unix socket"}
    sheet = Sheet(real, extra={"plan_p99_ms_1000_runnable": Target("max", 1.0)})
    sheet.results["measured_elsewhere"] = {"aios": AIOS_MEASURED_ELSEWHERE}
    probes = Probes(quick)
    await sheet.attempt(probes.idle_syscalls, "idle_syscall_p50_ms", "idle_syscall_p99_ms")
    await sheet.attempt(probes.power_syscalls, "power_syscall_p50_vs_fsync", "power_syscalls_per_s")
    names = ("short_beside_long_ratio", "late_arrival_ms", "sixteen_by_ten_vs_ideal")
    await sheet.attempt(probes.side_by_side, *names)
    await sheet.attempt(probes.steady_arrivals, "steady_200_per_s_p99_ms")
    await sheet.attempt(probes.two_thousand_agents, "threads_at_2000_agents", "kib_per_idle_agent")
    await sheet.attempt(probes.busy_engine, "busy_vs_idle_syscall_p99", "busy_tokens_per_s_loss")
    await sheet.attempt(probes.planning, "plan_p99_ms_1000_runnable")
    return sheet


if __name__ == "__main__":
    main("kernel_overhead", measure)
