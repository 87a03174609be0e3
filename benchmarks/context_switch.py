"""What a context switch costs on the embedded model, and whether it is exact.

    python -m benchmarks.context_switch [--json [OUT]] [--check] [--quick]

One context of 1,000 tokens is suspended and resumed from the host and from disk, against computing it anew in the
same run, alternating; a suspend of a context that grew since its last switch against a decode step; a fork of 2,000
tokens; what four others notice when such a context comes back from disk by order, its copies made at once or beside
the steps, in turn; and random interruptions of contexts at work, half of them with copies in threads, every page
compared byte by byte (by digest) with before.
"""

import functools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aios.abi.chat import Sampling
from aios.abi.core import Drop, Fork, ProcessFacts, Resume, Submit, Suspend
from aios.abi.syscalls import LlmGenerate
from aios.boot.engine_host import HostSettings, make_engine, make_memory, physical_cores
from aios.engine import modelstore
from aios.engine.context import Context
from aios.engine.copier import AtOnce, Copier, InThreads
from aios.engine.engine import Engine
from aios.engine.loader import LoadedModel, load_model
from aios.engine.pages import Tier
from aios.ids import ContextId
from benchmarks.common import Sheet, Target, main

MODEL = "smollm2-135m"
LENGTH = 1000
MAIN, FORKED = ContextId("1:main"), ContextId("2:fork")
POINTS = 200
OTHERS = 4
STEPS = 6
"""In which the context must have come back."""


def submit(name: str, prompt: range, max_tokens: int, seed: int = 0) -> Submit:
    """Return an order to generate from a prompt of arbitrary tokens."""
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True, temperature=1.0, seed=seed)
    request = LlmGenerate(tokens=tuple(prompt), sampling=sampling)
    facts = ProcessFacts(pid=int(name.split(":", 1)[0]))
    return Submit(context=ContextId(name), epoch=seed, request=request, facts=facts, lease_tokens=max_tokens)


def timed(act: Callable[[], object]) -> float:
    """Return the milliseconds that `act` takes."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


class Probes:
    """The measurements, on one engine."""

    def __init__(self, loaded: LoadedModel, folder: Path, *, quick: bool) -> None:
        self.engine = self.make(loaded, folder / "at-once", AtOnce())
        self.threaded = self.make(loaded, folder / "threads", InThreads())
        self.quick = quick

    @staticmethod
    def make(loaded: LoadedModel, folder: Path, copier: Copier) -> Engine:
        """Return an engine of its own pools and disk tier."""
        # without a prefix tree, in which a context that is to be computed anew would find itself
        settings = HostSettings(
            model=MODEL, pool_pages=400, host_pages=400, swap_folder=folder, step_tokens=256, prefix_sharing=False
        )
        return make_engine(loaded, make_memory(loaded, settings, copier), settings)

    def prepared(self, length: int) -> Context:
        """Return a context of `length` computed tokens."""
        self.work(submit(MAIN, range(100, 100 + length), 1, seed=1))
        return self.engine.contexts[MAIN]

    def work(self, *orders: Submit) -> None:
        """Do the orders to their end."""
        for order in orders:
            self.engine.do(order)
        while self.engine.step():
            pass
        self.engine.take_messages()

    async def switches(self, sheet: Sheet) -> None:
        """Suspend and resume on both tiers, beside a recompute of the same context."""
        context, memory = self.prepared(LENGTH), self.engine.memory
        host, disk, anew = [], [], []
        for _ in range(3 if self.quick else 7):
            before = memory.digests(context.table)
            memory.suspend(context.table, Tier.HOST)
            host.append(timed(lambda: memory.resume(context.table)))
            memory.suspend(context.table, Tier.DISK)
            disk.append(timed(lambda: memory.resume(context.table)))
            assert memory.digests(context.table) == before, "a switch changed bytes"
            memory.suspend(context.table, Tier.DROPPED)
            anew.append(timed(lambda: self.work(submit(MAIN, range(100, 100 + LENGTH), 1, seed=1))))
        sheet.keep("host_resume", host, "ms")
        sheet.keep("disk_resume", disk, "ms")
        sheet.keep("recompute", anew, "ms")
        sheet.values["host_resume_vs_recompute"] = statistics.median(host) / statistics.median(anew)
        sheet.values["disk_resume_vs_recompute"] = statistics.median(disk) / statistics.median(anew)

    async def suspend(self, sheet: Sheet) -> None:
        """Suspend a context in mid-generation, every time a few tokens further, beside its decode steps."""
        context, memory = self.prepared(LENGTH), self.engine.memory
        self.engine.do(submit(MAIN, range(100, 100 + LENGTH), 400, seed=2))
        self.engine.step()
        away, steps = [], []
        for _ in range(8 if self.quick else 30):
            steps += [timed(self.engine.step) for _ in range(3)]
            away.append(timed(lambda: memory.suspend(context.table)))
            memory.resume(context.table)
        sheet.keep("suspend", away, "ms")
        sheet.keep("decode_step", steps, "ms")
        sheet.values["suspend_vs_decode_step"] = statistics.median(away) / statistics.median(steps)
        self.engine.do(Drop(context=MAIN, epoch=2))

    async def fork(self, sheet: Sheet) -> None:
        """Fork a context of 2,000 tokens by order, and let the fork write: only a partial page may be copied."""
        self.prepared(2 * LENGTH + 1)
        memory = self.engine.memory
        samples, copied = [], 0
        for number in range(5 if self.quick else 20):
            free = memory.device.num_free
            samples.append(self.fork_once())
            self.engine.do(Fork(context=MAIN, epoch=1, into=FORKED))
            copied += free - memory.device.num_free
            before = memory.statistics().pages_copied_on_write
            self.work(submit(FORKED, range(100, 100 + 2 * LENGTH + 8), 1, seed=2 + number))
            copied += max(0, memory.statistics().pages_copied_on_write - before - 1)
            self.engine.do(Drop(context=FORKED, epoch=2 + number))
        sheet.keep("fork_2k", samples, "ms")
        sheet.values["fork_2k_ms"] = statistics.median(samples)
        sheet.values["fork_full_pages_copied"] = copied

    def fork_once(self) -> float:
        """Fork, give the fork up again, and return the milliseconds of the fork alone."""
        memory, table = self.engine.memory, self.engine.contexts[MAIN].table
        began = time.perf_counter()
        twin = memory.fork(table)
        seconds = time.perf_counter() - began
        memory.release(twin)
        return seconds * 1000

    async def overlap(self, sheet: Sheet) -> None:
        """Bring a long context back from disk by order while four others decode; time their steps."""
        engines = {"at_once": self.engine, "threads": self.threaded}
        for engine in engines.values():
            self.begin_others(engine)
        undisturbed: list[float] = []
        steps: dict[str, list[list[float]]] = {name: [] for name in engines}
        blocked: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(3 if self.quick else 8):
            for name, engine in engines.items():
                engine.do(Suspend(context=MAIN, epoch=1, tier="disk"))
                engine.wait_for_copies()
                undisturbed += [timed(engine.step) for _ in range(STEPS)]
                blocked[name].append(timed(functools.partial(engine.do, Resume(context=MAIN, epoch=1))))
                steps[name].append(self.steps_while_resuming(engine, blocked[name][-1]))
                engine.wait_for_copies()
                engine.take_messages()
        usual = statistics.median(undisturbed)
        sheet.keep("others_step_undisturbed", undisturbed, "ms")
        for name, rounds in steps.items():
            sheet.keep(f"loop_blocked_by_resume_{name}", blocked[name], "ms")
            sheet.keep(f"others_longest_gap_{name}", [max(one) for one in rounds], "ms")
            rate = statistics.median(1000 * OTHERS * len(one) / sum(one) for one in rounds)
            share = rate * usual / 1000 / OTHERS
            sheet.results[f"others_while_resuming_{name}"] = {"tokens_per_s": rate, "vs_undisturbed": share}
        sheet.extra["resume_blocks_loop_vs_at_once"] = Target("max", 0.25)
        sheet.values["resume_blocks_loop_vs_at_once"] = statistics.median(blocked["threads"]) / statistics.median(
            blocked["at_once"]
        )

    def begin_others(self, engine: Engine) -> None:
        """Let a long context be computed and rest, and the others decode without end."""
        engine.do(Drop(context=MAIN, epoch=10**6))
        engine.do(submit(MAIN, range(100, 100 + LENGTH), 1, seed=1))
        while engine.step():
            pass
        for number in range(OTHERS):
            engine.do(submit(f"{number + 10}:other", range(50 * number, 50 * number + 32), 600, seed=number))
        for _ in range(3):
            engine.step()

    @staticmethod
    def steps_while_resuming(engine: Engine, blocked_ms: float) -> list[float]:
        """Return the milliseconds from token to token of the others while the long context comes back."""
        steps = [timed(engine.step) for _ in range(STEPS)]
        assert engine.contexts[MAIN].table.resident, "the context did not come back in time"
        return [blocked_ms + steps[0], *steps[1:]]

    async def exactness(self, sheet: Sheet) -> None:
        """Interrupt contexts at work at random points; count pages whose bytes differ afterwards."""
        tiers = {"host": 0, "disk": 0}
        differing = sum(self.differing(engine, tiers) for engine in (self.engine, self.threaded))
        sheet.results["preemption_points"] = {"points": sum(tiers.values()), **tiers}
        sheet.values["differing_bytes"] = differing * self.engine.memory.page_bytes

    def differing(self, engine: Engine, tiers: dict[str, int]) -> int:
        """Interrupt an engine's contexts; count the switches by tier and return how many pages differed."""
        dice, differing, points, seed = random.Random(1), 0, 0, 100
        for name in [*engine.contexts]:
            engine.do(Drop(context=name, epoch=10**6))
        while points < POINTS // 2:
            seed += 1
            for number in range(1, 4):
                engine.do(submit(f"{number}:exact", range(1000 * number, 1000 * number + 40), 40, seed=seed))
            while points < POINTS // 2 and engine.step():
                engine.take_messages()
                for number in range(1, 4):
                    tier = dice.choice(("host", "disk"))
                    differing += self.interrupt(engine, ContextId(f"{number}:exact"), Tier(tier))
                    tiers[tier] += 1
                    points += 1
        return differing

    @staticmethod
    def interrupt(engine: Engine, name: ContextId, tier: Tier) -> int:
        """Take a context away and bring it back; return how many of its pages differ, away or back."""
        table, memory = engine.contexts[name].table, engine.memory
        before = memory.digests(table)
        memory.suspend(table, tier)
        away = memory.digests(table)
        memory.resume(table)
        back = memory.digests(table)
        return sum(len({*three}) > 1 for three in zip(before, away, back, strict=True))


async def measure(quick: bool) -> Sheet:
    """Run all probes."""
    model = modelstore.find(MODEL)
    threads = int(os.environ.get("OMP_NUM_THREADS", physical_cores()))
    loaded = load_model(model.path, threads=threads, native=True)
    real = {"engine": "torch", "model_sha256": loaded.sha256, "durability": "none", "transport": "in process"}
    sheet = Sheet(real)
    sheet.results["threads"] = threads
    with tempfile.TemporaryDirectory() as folder:
        probes = Probes(loaded, Path(folder), quick=quick)
        await sheet.attempt(probes.switches, "host_resume_vs_recompute", "disk_resume_vs_recompute")
        await sheet.attempt(probes.suspend, "suspend_vs_decode_step")
        await sheet.attempt(probes.fork, "fork_2k_ms", "fork_full_pages_copied")
        await sheet.attempt(probes.overlap, "resume_blocks_loop_vs_at_once")
        await sheet.attempt(probes.exactness, "differing_bytes")
        probes.engine.close()
        probes.threaded.close()
    return sheet


if __name__ == "__main__":
    main("context_switch", measure)
