"""A kernel in a process of its own that serves its model at a port: `python -m tests.server.served`.

Prints the token of the one process that may ask and the port, a line each, then serves until its input ends.
"""

import anyio
import anyio.to_thread

from aios import config
from aios.abi.process import CapSpec
from aios.boot.compose import embedded
from aios.server.tcp import serve_tcp


async def main() -> None:
    """Serve."""
    settings = config.load(name="served", durability="none", pool_pages=512, threads=1, native=False)
    async with embedded(settings) as kernel, serve_tcp(kernel, "127.0.0.1:0") as port:
        door = await kernel.root("client", caps=(CapSpec(resource="tool:*"),))
        print(kernel.parts.credentials.token_of(door.pid), port, sep="\n", flush=True)
        await anyio.to_thread.run_sync(input)


if __name__ == "__main__":
    anyio.run(main)
