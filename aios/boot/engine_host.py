"""Main of the engine host: the child process that owns the model, the KV pool and the step loop.

The composition root of this process: it alone names planner, guard mask and model together. Started by the kernel as
`python -m aios.boot.engine_host --fd N --settings JSON` with a connected socket; ends with it.
"""

import os

# Before torch is imported: its OpenMP threads sleep between steps instead of spinning on the kernel's core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

from aios.engine import torchstart

if __name__ == "__main__":
    torchstart.prepare()

import argparse
import ctypes
import hashlib
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from aios.abi.core import Ready
from aios.abi.sched import Retention
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.boot.solver import open_solver
from aios.config import EngineSettings, home
from aios.engine import gpu
from aios.engine.calibration import measure, rates_file, read_rates, write_rates
from aios.engine.chat import ChatWriter
from aios.engine.copier import Copier, InThreads, OnStreams
from aios.engine.desk import Limits, Prompter
from aios.engine.disk import DiskTier
from aios.engine.engine import Engine
from aios.engine.headroom import Headroom
from aios.engine.host import Wire, die, serve
from aios.engine.loader import LoadedModel, load_model
from aios.engine.placement import GPU_DTYPE, pick_device
from aios.engine.prefix import PrefixTrees
from aios.engine.runner import Runner
from aios.engine.shortcuts import Shortcuts
from aios.engine.tiers import Memory
from aios.errors import AiosError
from aios.formats.spelling import CallFormat, format_of
from aios.guard.masking.mask import CallMasks
from aios.guard.solving.client import Solver
from aios.sched import make_planner, make_retention

_log = logging.getLogger(__name__)

NICENESS = 5
"""Under the kernel, whose syscalls must stay quick while the model computes."""
_PR_SET_PDEATHSIG = 1
_POOL_SHARE = 0.15
"""Share of the free memory for the device pool; on a CPU the host tier is in the same memory."""
_HOST_SHARE = 0.3
_MOST_CONTEXTS = 8
"""Full contexts for which the default pool is made; more memory would only lie idle."""


class HostSettings(EngineSettings):
    """What the kernel tells its engine host."""

    swap_folder: Path | None = None
    """Folder of the disk tier; None: no disk tier."""
    exact: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one kernel; return the exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="aios.boot.engine_host")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--settings", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    die_with_parent()
    try:
        run(socket.socket(fileno=options.fd), HostSettings(**json.loads(options.settings)), began)
    except AiosError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def die_with_parent() -> None:
    """Let Linux kill this process when its parent dies; elsewhere the end of the socket does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(connection: socket.socket, settings: HostSettings, began: float) -> None:
    """Load the model and serve until the kernel says `Shutdown` or goes away. Raises ModelError."""
    wire = Wire(connection, on_end=die)
    os.nice(NICENESS)
    device = pick_device(settings.device)
    loaded = load(settings, device)
    memory = make_memory(loaded, settings, make_copier(device, wire.wake), device)
    if device.type == "cuda":
        loaded = gpu.replaying(loaded, memory, max_rows=settings.max_rows)
    solver = open_solver(on_answer=wire.wake)
    engine = make_engine(loaded, memory, settings, on_ready=wire.wake, solver=solver)
    kept = rates_file(home() / "cache", fingerprint(loaded, settings), torch.get_num_threads())
    memory.gauges.rates = read_rates(kept) or measure(memory)
    write_rates(kept, memory.gauges.rates)
    torchstart.settled()
    serve(engine, wire, describe(loaded, memory, settings, load_s=time.monotonic() - began))
    write_rates(kept, memory.gauges.rates)
    engine.close()
    solver.close()


def load(settings: HostSettings, device: torch.device) -> LoadedModel:
    """Load the model where it is to run. Raises ModelError."""
    is_cpu = device.type == "cpu"
    loaded = load_model(
        Path(settings.model),
        threads=settings.threads or physical_cores(),
        exact=settings.exact,
        deterministic=settings.deterministic and is_cpu,
        native=settings.native and is_cpu,
        anyway=settings.load_anyway,
    )
    if is_cpu:
        return loaded
    dtype = torch.float32 if settings.exact else GPU_DTYPE
    return gpu.moved(loaded, device, deterministic=settings.deterministic, dtype=dtype)


def make_copier(device: torch.device, on_done: Callable[[], None]) -> Copier:
    """Return what copies between the tiers beside the step loop."""
    return OnStreams(on_done) if device.type == "cuda" else InThreads(on_done)


def make_engine(
    loaded: LoadedModel,
    memory: Memory,
    settings: HostSettings,
    *,
    on_ready: Callable[[], None] = lambda: None,
    solver: Solver | None = None,
) -> Engine:
    """Put model, memory and policies together. `solver`: for rules that relate numbers; it starts when one is asked."""
    spelling = format_of(loaded.tokenizer.template.source, settings.call_format)
    return Engine(
        loaded.model,
        loaded.tokenizer,
        memory,
        make_planner(settings.policy, quantum_tokens=settings.quantum_tokens, slowdown=settings.decode_slowdown),
        retention=make_retention("least-cost"),
        limits=Limits(
            max_context=loaded.config.max_context,
            vocab=loaded.config.vocab,
            step_tokens=settings.step_tokens,
            max_rows=settings.max_rows,
        ),
        prompt=prompter(loaded, spelling),
        clock=time.monotonic,
        mask_factory=CallMasks(
            loaded.tokenizer.token_bytes, loaded.tokenizer.special_ids, spelling, solver, in_order=True
        ),
        call_format=spelling,
        shortcuts=shortcuts(settings),
        prefixes=PrefixTrees(memory) if shares_prefixes(loaded, settings) else None,
        ahead=loaded.model if isinstance(loaded.model, Runner) else None,
        is_exact=loaded.numerics.is_exact,
        may_drop=loaded.numerics.is_exact or not settings.deterministic,
        on_ready=on_ready,
    )


def shares_prefixes(loaded: LoadedModel, settings: HostSettings) -> bool:
    """Whether contexts use each other's pages: in deterministic mode only where all compute the same numbers."""
    return settings.prefix_sharing and (loaded.numerics.is_exact or not settings.deterministic)


def shortcuts(settings: HostSettings) -> Shortcuts:
    """Return what may save steps; deterministic mode takes nothing that could choose other tokens."""
    return Shortcuts(settings.speculation, settings.jump_forward, is_deterministic=settings.deterministic)


def prompter(loaded: LoadedModel, spelling: CallFormat) -> Prompter:
    """Return the rendering of requests for this model; what its template can do is tried out here, once."""
    writer = ChatWriter(loaded.tokenizer, spelling)
    _log.info("chat template: calls as %s, %s", spelling.name, writer.abilities)

    def prompt(request: LlmGenerate, tools: Sequence[ToolSpec]) -> list[int]:
        if not request.continue_final:
            return writer.encode(request.messages, tools, request.tool_choice)
        *before, last = request.messages
        return writer.encode(before, tools, request.tool_choice) + loaded.tokenizer.encode_rest(last.content)

    return prompt


def make_memory(
    loaded: LoadedModel, settings: HostSettings, copier: Copier | None = None, device: torch.device | None = None
) -> Memory:
    """Allocate the pools; pages that are never touched cost no memory. Without `copier` copies are made at once."""
    config, kv_dtype = loaded.config, loaded.kv_dtype
    page_bytes = config.page_bytes(settings.page_tokens, kv_dtype.itemsize)
    free = psutil.virtual_memory().available
    enough = _MOST_CONTEXTS * -(-config.max_context // settings.page_tokens)
    if device is not None and device.type == "cuda":
        fitting, enough = gpu.pool_pages(page_bytes, device), enough * settings.max_rows
    else:
        fitting = int(free * _POOL_SHARE) // page_bytes
    pages = settings.pool_pages or max(1, min(enough, fitting))
    host_pages = settings.host_pages or min(4 * pages, int(free * _HOST_SHARE) // page_bytes)
    shape = (pages, config.layers, 2, config.kv_heads, settings.page_tokens, config.head_dim)
    return Memory(
        torch.zeros(shape, dtype=kv_dtype, device=device),
        host_pages=host_pages,
        disk=_disk(loaded, settings, page_bytes),
        copier=copier,
        writes_through=_writes_through(make_retention("least-cost")),
        checks_host=settings.check_host_pages,
        tenant_pages=settings.tenant_pages,
    )


def _writes_through(retention: Retention) -> Callable[[float], bool]:
    """Ask the policy about the share that is free of the host tier and of the machine's memory, whichever is less."""
    headroom = Headroom()
    return lambda host_free: retention.writes_through(min(host_free, headroom.share()))


def _disk(loaded: LoadedModel, settings: HostSettings, page_bytes: int) -> DiskTier | None:
    if settings.swap_folder is None:
        return None
    return DiskTier(settings.swap_folder, fingerprint=fingerprint(loaded, settings), page_bytes=page_bytes)


def fingerprint(loaded: LoadedModel, settings: HostSettings) -> dict[str, str]:
    """Name everything that KV bytes depend on: weights, tokenizer, numbers, page size, device code."""
    return {
        "model": loaded.sha256,
        "tokenizer": hashlib.sha256(b"\0".join(loaded.tokenizer.token_bytes)).hexdigest(),
        "kv": str(loaded.kv_dtype),
        "compute": loaded.dtype,
        "numerics": loaded.numerics.name,
        "page_tokens": str(settings.page_tokens),
        "torch": str(torch.__version__),
        "device": gpu.name() if gpu.runs(loaded) else torch.backends.cpu.get_cpu_capability(),
    }


def describe(loaded: LoadedModel, memory: Memory, settings: HostSettings, *, load_s: float) -> Ready:
    """Say what this host is."""
    return Ready(
        model=Path(settings.model).stem,
        model_sha256=loaded.sha256,
        architecture=loaded.architecture,
        dtype=loaded.dtype,
        device=memory.pool.device.type,
        max_context=loaded.config.max_context,
        vocab_size=loaded.config.vocab,
        page_tokens=memory.page_tokens,
        page_bytes=memory.page_bytes,
        pages=memory.device.num_frames,
        pid=os.getpid(),
        load_s=load_s,
        call_format=format_of(loaded.tokenizer.template.source, settings.call_format).name,
        rates=memory.gauges.rates,
    )


def physical_cores() -> int:
    """Return how many cores compute threads should use."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
