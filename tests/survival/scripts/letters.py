"""Several agents write at once; each says what was streamed to it and what the reply held."""

import json
import sys
from functools import partial

import aios
from aios.abi.replies import Delta
from aios.abi.syscalls import LlmGenerate

TOKENS = int(sys.argv[1]) if len(sys.argv) > 1 else 120


async def write(number: int) -> None:
    sampling = aios.Sampling(max_tokens=TOKENS, temperature=0.8, seed=number, ignore_eos=True)
    prompt = aios.Message(role="user", content=f"Write a long letter about the number {number}.")
    streamed = ""
    async for piece in aios.stream_syscall(LlmGenerate(messages=(prompt,), tools=(), sampling=sampling)):
        if isinstance(piece, Delta):
            streamed += piece.text
        else:
            final = aios.Generation.model_validate(piece)
            facts = {"agent": number, "streamed": streamed, "final": final.text, "tokens": len(final.tokens)}
            print(json.dumps(facts), flush=True)


async def main() -> None:
    writers = [await aios.start(partial(write, number), name=f"writer{number}") for number in range(3)]
    for writer in writers:
        await writer.wait()
    print(json.dumps({"done": len(writers)}), flush=True)


if __name__ == "__main__":
    aios.run_sync(main)
