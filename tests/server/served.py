"""A kernel in a process of its own that serves its model at a port: `python -m tests.server.served PORT`.

Prints the token of the one process that may ask, then serves until its input ends.
"""

import sys

import anyio
import anyio.to_thread

from aios import config
from aios.abi.process import CapSpec
from aios.boot.compose import embedded


async def main() -> None:
    """Serve."""
    settings = config.load(
        name="served", listen=f"127.0.0.1:{sys.argv[1]}", durability="none", pool_pages=512, threads=1, native=False
    )
    async with embedded(settings) as kernel:
        door = await kernel.root("client", caps=(CapSpec(resource="tool:*"),))
        print(kernel.parts.credentials.token_of(door.pid), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main)
