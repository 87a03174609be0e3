"""The engine on the CPU beside its peers: same GGUF file, same threads, same call, in turns.

    python -m benchmarks.engine_cpu [--peers llama-cpp,transformers] [--json [OUT]] [--check] [--quick]

Decode and prefill speeds with ratios to each peer and to the measured read bandwidth; time to the first token; what a
shared head saves; the gaps of eight decoding agents while a long prompt arrives; the step loop's own Python; steps
saved by jump-forward. A peer that cannot run is null, with the reason.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from aios.boot.engine_host import physical_cores
from aios.engine import modelstore
from benchmarks import engine_probes
from benchmarks.common import BenchmarkError, Sheet, main
from benchmarks.peers import llama_cpp, transformers_peer
from benchmarks.peers.protocol import Peer

MODEL = "smollm2-135m"
PEERS: dict[str, Callable[[Path, int], Peer]] = {"llama-cpp": llama_cpp.peer, "transformers": transformers_peer.peer}
CONTEXT = 64
PROMPT = 512
JOBS = {
    "prefill": ("prefill", 1, PROMPT, 0),
    "decode_b1": ("decode", 1, CONTEXT, 64),
    "decode_b8": ("decode", 8, CONTEXT, 64),
    "decode_b32": ("decode", 32, CONTEXT, 32),
}
"""What ours and llama.cpp are asked for."""
BATCH = ("batch", 32, CONTEXT, 32)
"""What ours and transformers are asked for: it has no step to time."""
_READ_BYTES = 512 * 2**20


class Race:
    """Our engine and its peers, asked in turns. A context manager."""

    def __init__(self, model: Path, threads: int, wanted: tuple[str, ...]) -> None:
        self.model, self.threads, self._wanted = model, threads, wanted
        self.missing: dict[str, str] = {}
        self.peers: dict[str, Peer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Race":
        own = Peer("ours", [sys.executable, "-m", "benchmarks.peers.ours", str(self.model), str(self.threads)])
        self.peers["ours"] = self._stack.enter_context(own)
        for name in self._wanted:
            try:
                self.peers[name] = self._stack.enter_context(PEERS[name](self.model, self.threads))
            except BenchmarkError as error:
                self.missing[name] = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, job: tuple[str, int, int, int], names: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
        """Return tokens/s of each engine that is there, `rounds` times in turns after one round of warming up."""
        what, rows, context, tokens = job
        work = context if what == "prefill" else rows * tokens
        there = [name for name in names if name in self.peers]
        found: dict[str, list[float]] = {name: [] for name in there}
        for turn in range(rounds + 1):
            for name in there:
                seconds = self.peers[name].seconds(*job)
                if turn:
                    found[name].append(work / seconds)
        return found


def ratio(speeds: dict[str, list[float]], over: str) -> float:
    """Return our median speed over the other's. Raises BenchmarkError when the other is not there."""
    if over not in speeds:
        raise BenchmarkError(f"peer {over} did not run")
    return statistics.median(speeds["ours"]) / statistics.median(speeds[over])


def read_bandwidth(threads: int) -> float:
    """Return bytes/s at which `threads` threads read memory: the best of five sums over 512 MiB."""
    torch.set_num_threads(threads)
    block = torch.ones(_READ_BYTES // 4)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - began)
    return _READ_BYTES / min(times)


async def against_peers(sheet: Sheet, race: Race, rounds: int) -> None:
    """Decode and prefill, ours and theirs."""
    speeds = {}
    for name, job in JOBS.items():
        speeds[name] = race.run(job, ("ours", "llama-cpp"), rounds)
    speeds["batch_b32"] = race.run(BATCH, ("ours", "transformers"), max(1, rounds // 2))
    for name, found in speeds.items():
        for engine in ("ours", "llama-cpp", "transformers"):
            if engine in found:
                sheet.keep(f"{name}_{engine}", found[engine], "tokens/s")
            elif engine in race.missing:
                sheet.results[f"{name}_{engine}"] = None
    bandwidth = read_bandwidth(race.threads)
    bound = bandwidth / race.model.stat().st_size
    sheet.results["read_gib_per_s"] = bandwidth / 2**30
    sheet.results["decode_b1_of_bandwidth"] = statistics.median(speeds["decode_b1"]["ours"]) / bound
    if "llama-cpp" in race.peers:
        sheet.values["decode_b1_vs_llamacpp"] = ratio(speeds["decode_b1"], "llama-cpp")
        sheet.values["decode_b8_vs_llamacpp"] = ratio(speeds["decode_b8"], "llama-cpp")
        sheet.values["prefill_vs_llamacpp"] = ratio(speeds["prefill"], "llama-cpp")
        alone = statistics.median(speeds["decode_b1"]["llama-cpp"])
        sheet.values["decode_b8_vs_llamacpp_b1"] = statistics.median(speeds["decode_b8"]["ours"]) / alone
    if "transformers" in race.peers:
        sheet.values["decode_b32_vs_transformers"] = ratio(speeds["batch_b32"], "transformers")


LLAMA_TARGETS = ("decode_b1_vs_llamacpp", "decode_b8_vs_llamacpp", "decode_b8_vs_llamacpp_b1", "prefill_vs_llamacpp")


async def measure(wanted: tuple[str, ...], quick: bool) -> Sheet:
    """Run all probes."""
    stored, threads = modelstore.find(MODEL), physical_cores()
    sheet = Sheet({"engine": "torch", "model_sha256": stored.sha256, "durability": "none", "transport": "in process"})
    sheet.results["threads"] = threads
    with Race(stored.path, threads, wanted) as race:

        async def beside_peers(sheet: Sheet) -> None:
            await against_peers(sheet, race, 1 if quick else 5)

        await sheet.attempt(beside_peers, *LLAMA_TARGETS, "decode_b32_vs_transformers")
        sheet.results["peers"] = {name: peer.about for name, peer in race.peers.items()} | dict.fromkeys(race.missing)
        for name, why in race.missing.items():
            missed = LLAMA_TARGETS if name == "llama-cpp" else ("decode_b32_vs_transformers",)
            sheet.why |= dict.fromkeys(missed, f"{name}: {why}")
    for probe, names in engine_probes.probes(stored.path, threads, quick=quick):
        await sheet.attempt(probe, *names)
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peers", type=lambda names: tuple(filter(None, names.split(","))), default=())
    chosen, rest = parser.parse_known_args()
    if unknown := set(chosen.peers) - set(PEERS):
        parser.error(f"unknown peers {sorted(unknown)}; there are {', '.join(PEERS)}")
    main("engine_cpu", partial(measure, chosen.peers), rest)
