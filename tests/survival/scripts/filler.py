"""Stores notes until the disk is full, says so, waits for space, goes on."""

import json
import sys
import time
from pathlib import Path

import anyio.to_thread

import aios
from aios.errors import SyscallError


def wait_for_end(ballast: Path) -> None:
    """Wait until somebody takes the ballast away."""
    while ballast.exists():
        time.sleep(0.05)  # the kernel's own sleep would have to be written down


async def main() -> None:
    ballast, stored = Path(sys.argv[1]), 0
    while True:
        try:
            await aios.remember(f"note{stored}", "x" * 10_000)
        except SyscallError as error:
            print(json.dumps({"stored": stored, "code": error.reply_code, "reason": str(error)}), flush=True)
            break
        stored += 1
    await anyio.to_thread.run_sync(wait_for_end, ballast)
    await aios.remember("last", "there is space again")
    print(json.dumps({"stored": stored + 1, "code": "done"}), flush=True)


if __name__ == "__main__":
    aios.run_sync(main)
