"""What a GPU makes of the engine, against what the machine can do at best. Made for one command without network.

    python -m benchmarks.gpu_suite [--json [OUT]] [--only PART …] [--device cuda|cpu] [--quick] [--check] [--minutes N]

Parts, in this order: ceilings, operations, qwen3_06b, qwen3_8b, swap, deterministic, peers. The result is written
after each of them; a part that the time no longer allows says so. Weights are random, sizes are those of the
models. On a CPU tiny sizes run through the same code, so that it cannot rot: those figures mean nothing.

The first commands on a device that this code has not seen, each of which may stop at what the next one needs. A device
error ends a process's use of the device, so they are commands of their own:

1. `--only operations --quick --minutes 4`: every kernel compiles, runs and is right. One that is wrong by a little is
   a matter of its tolerance, one that fails is named with its error; a hang here is a kernel's.
2. `--only ceilings --quick`, and `--only swap --quick`: streams, events and pinned memory (needs msgspec).
3. `--only qwen3_06b --quick`: capture and replay. `_waiting` and `_ahead` decode the same; should a capture fail, the
   operation that waits for the device or allocates outside its pool is in the traceback.
4. `python -m pytest tests/engine/test_overlap.py tests/engine/test_gpu.py` and an engine with `device = "cuda"`, on
   SmolLM2: the tokens are those of the CPU but for rounding, with and without other contexts beside it.
5. The whole suite with `--json`, in one command; the file is kept in `benchmarks/results/`.
"""

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from aios.engine.batch import ModelConfig
from aios.engine.placement import in_tiles
from benchmarks.common import Sheet, load_targets, report, table
from benchmarks.gpu import ceilings, models, operations, peers
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.models import Bed, Load

NAME = "gpu_suite"
TILE_ROWS = 64
Sizes = list[tuple[str, operations.Size, tuple[torch.dtype, ...]]]
_NEEDED_S = {"operations": 60, "qwen3_8b": 40, "deterministic": 40, "peers": 90}
"""Seconds that must be left for a part to be begun, where it is more than ten."""


@dataclass(slots=True)
class Suite:
    """The parts, and what they share."""

    device: torch.device
    quick: bool
    sheet: Sheet
    found: Ceilings | None = None
    decoded: dict[str, float] = field(default_factory=dict)

    @property
    def clock(self) -> Clock:
        """Return the clock of the device."""
        return Clock(self.device, self.quick)

    @property
    def is_gpu(self) -> bool:
        """Whether this measures something."""
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The models' type."""
        return torch.bfloat16 if self.is_gpu else torch.float32

    @property
    def load(self) -> Load:
        """What decodes."""
        if not self.is_gpu:
            return models.QUICK
        return replace(Load(), steps=16) if self.quick else Load()

    @property
    def limits(self) -> Ceilings:
        """The ceilings, measured once."""
        if self.found is None:
            self.found = ceilings.measure(self.clock, self.dtype)
            self.sheet.results["ceilings"] = asdict(self.found)
        return self.found

    def ceilings(self) -> None:
        """Copies and products of this machine."""
        print(f"    {self.limits}", file=sys.stderr)

    def operations(self) -> None:
        """Every operation against its reference."""
        wanted = operations.reference_operations()
        found = operations.triton_operations() if self.is_gpu else wanted
        outcomes = []
        for name, size, dtypes in self._sizes():
            for dtype in dtypes:
                bench = operations.Bench(found, wanted, self.device, dtype, size, tables=self.is_gpu)
                for outcome in _outcomes(bench):
                    outcomes.append({"size": name, "met": outcome.is_met, **asdict(outcome)})
        self.sheet.results["operations"] = outcomes
        wrong = [f"{one['size']} {one['name']}" for one in outcomes if not one["met"]]
        self.sheet.values["operations_wrong"] = len(wrong)
        self.sheet.why["operations_wrong"] = ", ".join(wrong)

    def qwen3_06b(self) -> None:
        """Decode and prefill, small model."""
        self._model("qwen3_06b", models.QWEN3_06B, is_tied=True)

    def qwen3_8b(self) -> None:
        """Decode and prefill, large model."""
        self._model("qwen3_8b", models.QWEN3_8B, is_tied=False)

    def peers(self) -> None:
        """transformers on the small model."""
        config = models.QWEN3_06B if self.is_gpu else models.TINY
        if "qwen3_06b" not in self.decoded:
            self.qwen3_06b()
        found = peers.measure(config, self.load, self.device, self.dtype)
        self.sheet.results["peers"] = {name: asdict(peer) for name, peer in found.items()}
        batched = found["generate_batch"]
        if batched.tokens_per_s is None:
            self.sheet.why["decode_vs_transformers"] = f"generate_batch: {batched.why}"
        else:
            self.sheet.values["decode_vs_transformers"] = self.decoded["qwen3_06b"] / batched.tokens_per_s

    def swap(self) -> None:
        """A gigabyte out and in."""
        from benchmarks.gpu import swap  # noqa: PLC0415  # alone in needing more than torch, triton and psutil

        config, num_bytes = (models.QWEN3_8B, 10**9) if self.is_gpu else (models.TINY, 10**5)
        found = swap.measure(self.clock, config, self.dtype, num_bytes, self._bed(models.QWEN3_06B, is_tied=True))
        self.sheet.results["swap"] = asdict(found)
        self.sheet.values["swap_1gb_of_memcpy"] = found.share(self.limits)

    def deterministic(self) -> None:
        """Products that take the same number of rows whatever the step; attention is split that way anyhow."""
        config = models.QWEN3_06B if self.is_gpu else models.TINY
        weights = models.random_weights(config, self.device, self.dtype, is_tied=True)
        seconds = {}
        for name, used in {"fast": weights, "fixed": in_tiles(weights, TILE_ROWS)}.items():
            bed = Bed(config, used, self.load, self.clock)
            one, many = bed.decode(1, self.load.short), bed.decode(self.load.rows, self.load.context)
            seconds[name] = {"b1": one.ahead_s, "b64": many.ahead_s, "prefill": bed.prefill()}
            differing = models.differing_rows(bed)
            self.sheet.results.setdefault("deterministic", {})[name] = {**seconds[name], "differing_rows": differing}
            del bed
            self.free()
        cost = {part: seconds["fixed"][part] / seconds["fast"][part] - 1 for part in seconds["fast"]}
        self.sheet.results["deterministic"]["cost"] = cost

    def _model(self, name: str, config: ModelConfig, *, is_tied: bool) -> None:
        bed = self._bed(config, is_tied=is_tied)
        values, figures = models.shares(bed, name, self.limits)
        self.sheet.values |= values
        self.sheet.results[name] = figures
        self.decoded[name] = figures["b64_tokens_per_s"]

    def _bed(self, config: ModelConfig, *, is_tied: bool) -> Bed:
        config = config if self.is_gpu else models.TINY
        weights = models.random_weights(config, self.device, self.dtype, is_tied=is_tied)
        return Bed(config, weights, self.load, self.clock)

    def _sizes(self) -> Sizes:
        if not self.is_gpu:
            return [("tiny", operations.TINY, (torch.float32,))]
        # each type of each size is some 25 kernels to compile; float32, which nothing runs in, takes the longest
        sizes = {"small": operations.SMALL, "qwen3_8b": operations.QWEN3_8B}
        if not self.quick:
            sizes |= {"smollm2": operations.SMOLLM2, "gemma3": operations.GEMMA3}
        half = (torch.bfloat16, torch.float16)
        return [(name, size, half if name == "small" else half[:1]) for name, size in sizes.items()]

    def free(self) -> None:
        """Give up what is no longer used."""
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()


PARTS: dict[str, Callable[[Suite], None]] = {
    name: getattr(Suite, name)
    for name in ("ceilings", "operations", "qwen3_06b", "qwen3_8b", "swap", "deterministic", "peers")
}


def run(suite: Suite, parts: Sequence[str], out: Path | None, seconds: float) -> None:
    """Run the parts that the time allows; write the result after each."""
    limit = time.monotonic() + seconds
    for name in parts:
        left = limit - time.monotonic()
        if left < (_NEEDED_S.get(name, 10) if suite.is_gpu else 0):
            note(suite, name, f"not begun: {left:.0f} s were left")
            continue
        print(f"  {name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            PARTS[name](suite)
        except Exception as error:  # noqa: BLE001  # a part that fails must not take the others' figures with it
            note(suite, name, f"{type(error).__name__}: {error}"[:500])
        suite.sheet.results.setdefault("seconds", {})[name] = time.monotonic() - began
        suite.free()
        if out is not None:
            write(suite, out)


def _outcomes(bench: operations.Bench) -> Iterator[operations.Outcome]:
    """Run all cases; one that cannot run is wrong, and the others still run."""
    for case in operations.CASES:
        try:
            yield from case(bench)
        except Exception as error:  # noqa: BLE001  # whatever stops a case is its result
            yield operations.Outcome(case.__name__, math.inf, 0.0, f"{type(error).__name__}: {error}"[:500])


def note(suite: Suite, part: str, reason: str) -> None:
    """Say why a part has no figures."""
    print(f"    {part}: {reason}", file=sys.stderr, flush=True)
    suite.sheet.results.setdefault("not_measured", {})[part] = reason
    for target in load_targets(NAME):
        if target.startswith((f"{part}_b", f"{part}_p", f"{part}_1")) and target not in suite.sheet.values:
            suite.sheet.why[target] = reason


def write(suite: Suite, out: Path) -> dict[str, Any]:
    """Write what is known so far."""
    found = report(NAME, suite.sheet)
    found["versions"] |= {"torch": torch.__version__, "triton": _triton()}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(partial, out)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU; --device cpu runs tiny sizes", file=sys.stderr)
        return 78
    is_gpu = device.type == "cuda"
    real = {
        "engine": "torch",
        "device": _device_name(device),
        "weights": "random",
        "sizes": "real" if is_gpu else "tiny",
    }
    suite = Suite(device, options.quick, Sheet(real=real))
    suite.sheet.extra["operations_wrong"] = operations.NONE_WRONG
    run(suite, options.only or list(PARTS), options.json, 60 * options.minutes)
    if not is_gpu:
        suite.sheet.why |= dict.fromkeys(suite.sheet.values, "tiny sizes on a CPU: the figure means nothing")
        for name in load_targets(NAME):
            suite.sheet.values.pop(name, None)
    found = write(suite, options.json) if options.json else report(NAME, suite.sheet)
    print(json.dumps(found, indent=1) if options.json else table(found))
    return int(options.check and not all(target["met"] for target in found["targets"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_suite")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write the result object, after each part, and print it"
    )
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be given several times")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU where there is one")
    parser.add_argument("--quick", action="store_true", help="fewer samples and shapes")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is not met")
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no part after this time")
    return parser


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _triton() -> str | None:
    return getattr(sys.modules.get("triton"), "__version__", None)


if __name__ == "__main__":
    sys.exit(main())
