"""An agent that writes, then pays by a tool that takes its time (seconds: the first argument)."""

import json
import sys
import threading

import aios


@aios.tool(effect="once")
def pay(seconds: float) -> str:
    """Pay slowly."""
    print(json.dumps({"paying": seconds}), flush=True)
    threading.Event().wait(seconds)
    return "paid"


async def main() -> None:
    generation = await aios.generate("Write a letter.", sampling=aios.Sampling(max_tokens=60, ignore_eos=True))
    result = await aios.call_tool("pay", seconds=float(sys.argv[1]))
    print(json.dumps({"tokens": len(generation.tokens), "result": result}), flush=True)


if __name__ == "__main__":
    aios.run_sync(main, tools=[pay])
