"""An agent whose tools raise, hang and return garbage, beside one that does its work."""

import json
import threading
from typing import Any

import anyio

import aios


class Garbage:
    """What no JSON can hold."""


@aios.tool(effect="read")
def raises(text: str) -> str:
    """Fail."""
    raise ValueError(f"no luck with {text}")


@aios.tool(effect="idempotent", timeout_s=0.3)
def hangs() -> str:
    """Never return."""
    threading.Event().wait()
    return ""


@aios.tool(effect="read", timeout_s=0.3)
async def waits() -> str:
    """Never return, without a thread."""
    await anyio.sleep_forever()
    return ""


@aios.tool(effect="read")
def garbage() -> object:
    """Return what is no JSON."""
    return Garbage()


@aios.tool(effect="read")
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


TOOLS: list[aios.Tool] = [raises, hangs, waits, garbage, double]


def calls(turn: int) -> list[aios.ToolCall]:
    made: list[tuple[str, dict[str, Any]]] = [
        ("raises", {"text": "it"}),
        ("hangs", {}),
        ("waits", {}),
        ("garbage", {}),
        ("double", {"number": turn}),
        ("double", {"number": "many"}),
        ("nobody", {}),
    ]
    return [aios.ToolCall(id=f"{turn}-{index}", name=name, arguments=args) for index, (name, args) in enumerate(made)]


async def unlucky() -> None:
    for turn in range(2):
        reports = await aios.call_tools(calls(turn))
        print(json.dumps({"turn": turn, "reports": [report.model_dump(mode="json") for report in reports]}), flush=True)


async def steady() -> str:
    results = [await aios.call_tool("double", number=number) for number in range(20)]
    generation = await aios.generate("Say hello.", sampling=aios.Sampling(max_tokens=8))
    print(json.dumps({"results": results, "text": generation.text}), flush=True)
    return generation.text


async def main() -> None:
    first = await aios.start(unlucky, tools=TOOLS)
    second = await aios.start(steady, tools=[double])
    await first.wait()
    await second.wait()


if __name__ == "__main__":
    aios.run_sync(main)
