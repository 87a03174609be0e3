"""A kernel in a process of its own, for benchmarks to call over its Unix socket.

Owns the child process and its folder. `python -m benchmarks.served JSON` is the child: it prints one line about itself
and lives until its standard input closes.
"""

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from aios import config
from aios.abi.process import CapSpec, Spawned
from aios.abi.syscalls import ProcSpawn, Request
from aios.agents.client import HttpDoor
from aios.boot.compose import embedded
from aios.ids import SyscallId
from aios.rundir import socket_path
from aios.testing import LatencyCore, LatencyModel
from benchmarks.common import BenchmarkError

START_S = 60.0
STOP_S = 10.0


@dataclass(slots=True)
class Served:
    """A kernel that runs elsewhere, and the door of a root process in it."""

    socket: Path
    root: HttpDoor
    process: psutil.Process
    _agents: int = 0

    async def agent(self) -> HttpDoor:
        """Spawn a process and return its door."""
        self._agents += 1
        call = ProcSpawn(name=f"agent-{self._agents}")
        reply = await self.root.call(Request(id=SyscallId(f"spawn-{self._agents}"), call=call))
        if reply.status != "ok":
            raise BenchmarkError(f"spawn refused: {reply.code}: {reply.reason}")
        spawned = Spawned.model_validate(reply.value)
        return HttpDoor(self.socket, spawned.token, pid=spawned.pid)


@asynccontextmanager
async def served(latency: LatencyModel | None, **settings: Any) -> AsyncIterator[Served]:
    """Run a kernel with the latency core, or with the real engine where `latency` is None."""
    order = json.dumps({"latency": asdict(latency) if latency else None, "settings": settings})
    with tempfile.TemporaryDirectory(prefix="aios-bench-") as home:
        environment = {**os.environ, "AIOS_HOME": home}
        command = [sys.executable, "-m", "benchmarks.served", order]
        async with await anyio.open_process(command, env=environment, stderr=None) as child:
            try:
                told = await _first_line(child)
                async with HttpDoor(told["socket"], told["token"], pid=told["pid"]) as root:
                    yield Served(Path(told["socket"]), root, psutil.Process(child.pid))
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(child)


async def _first_line(child: Process) -> dict[str, Any]:
    """Wait for what the child says of itself."""
    assert child.stdout is not None
    try:
        with anyio.fail_after(START_S):
            line = await BufferedByteReceiveStream(child.stdout).receive_until(b"\n", 65_536)
    except anyio.IncompleteRead as error:
        raise BenchmarkError(f"the kernel ended with status {await child.wait()} before it was ready") from error
    told: dict[str, Any] = json.loads(line)
    return told


async def _end(child: Process) -> None:
    """Ask the child to end by closing its standard input; kill it if it does not."""
    assert child.stdin is not None
    await child.stdin.aclose()
    with anyio.move_on_after(STOP_S):
        await child.wait()
        return
    child.kill()
    await child.wait()


# --- the child -----------------------------------------------------------------------------------------------------


async def _serve(order: dict[str, Any]) -> None:
    """Run the kernel until standard input closes."""
    core = LatencyCore(LatencyModel(**order["latency"])) if order["latency"] is not None else None
    settings = config.load(**order["settings"])
    async with embedded(settings, core=core) as kernel:
        caps = tuple(CapSpec(resource=one) for one in ("tool:*", "spawn"))
        door = await kernel.root("bench", caps=caps)
        token = kernel.parts.credentials.token_of(door.pid)
        print(json.dumps({"socket": str(socket_path(settings.name)), "token": token, "pid": door.pid}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    anyio.run(_serve, json.loads(sys.argv[1]))
