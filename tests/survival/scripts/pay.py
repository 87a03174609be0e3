"""An agent that writes, then pays by a tool that takes its time: until the file named by the first argument exists."""

import json
import sys
import time
from pathlib import Path

import aios


@aios.tool(effect="once")
def pay(leave: str) -> str:
    """Pay as soon as one may."""
    while not Path(leave).exists():
        time.sleep(0.01)
    return "paid"


async def main() -> None:
    generation = await aios.generate("Write a letter.", sampling=aios.Sampling(max_tokens=150, ignore_eos=True))
    result = await aios.call_tool("pay", leave=sys.argv[1])
    print(json.dumps({"tokens": len(generation.tokens), "result": result}), flush=True)


if __name__ == "__main__":
    aios.run_sync(main, tools=[pay])
