"""What the latency core says: texts made from the request alone, cut into tokens of a few bytes.

Owns the invention of outputs; does not know time. Invariant: the same request gives the same tokens, in every process.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aios.abi.chat import Finish, Generation, Usage
from aios.abi.core import Submit
from aios.formats.calls import parse, render_call
from aios.formats.prompts import example_call, to_plain_messages

VOCAB = 65_536
_PIECE = 4
_WORDS = (
    *("north", "south", "east", "west", "river", "stone", "lamp", "paper"),
    *("cloud", "green", "seven", "quiet", "copper", "letter", "window", "garden"),
)

Script = Callable[[Submit], str | None]
"""The whole output for a submission; None: words without end, cut off at `max_tokens`."""


@dataclass(frozen=True, slots=True)
class Output:
    """All that one generation will say."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    """Text of each token."""
    finish: Finish

    @classmethod
    def of(cls, submit: Submit, script: Script) -> "Output":
        """Make the output of a submission: script, stop texts, token limit and lease applied."""
        sampling = submit.request.sampling
        text, finish = script(submit), "stop"
        pieces = tuple(_endless(submit, sampling.max_tokens)) if text is None else tuple(_cut(text))
        pieces, finish = _until_stop(pieces, sampling.stop, "length" if text is None else "stop")
        limit = min(sampling.max_tokens, submit.lease_tokens + len(submit.generated))
        if len(pieces) > limit:
            pieces, finish = pieces[:limit], "length"
        return cls(tuple(map(token_of, pieces)), pieces, finish)  # type: ignore[arg-type]  # one of the three literals

    def generation(self, count: int, usage: Usage, finish: Finish | None = None) -> Generation:
        """Return what was generated after `count` tokens; `finish` when it ended early."""
        parser = parse("".join(self.pieces[:count]))
        ended = finish or ("tool_calls" if parser.calls and self.finish == "stop" else self.finish)
        return Generation(
            text=parser.text,
            tool_calls=parser.calls,
            finish=ended,
            tokens=self.tokens[:count],
            usage=usage.model_copy(update={"completion_tokens": count}),
        )

    def parsed(self, schema: dict[str, Any] | None) -> Any:
        """Return the JSON value of an output that was asked to be one."""
        return json.loads("".join(self.pieces)) if schema is not None and self.finish == "stop" else None


def words_and_calls(submit: Submit) -> str | None:
    """The default script: a worked example call where a call is demanded, otherwise words up to the token limit."""
    choice = submit.request.tool_choice
    wanted = [tool for tool in submit.tools if choice in ("required", tool.name)]
    return render_call(example_call(wanted[0])) if wanted else None


def prompt_tokens(submit: Submit) -> tuple[int, ...]:
    """Return the prompt as tokens: given ones, or the messages' text in pieces."""
    request = submit.request
    if request.tokens:
        return request.tokens
    messages = to_plain_messages(request.messages, submit.tools, request.tool_choice)
    text = "".join(f"{message.role}: {message.content}\n" for message in messages)
    return tuple(token_of(piece) for piece in _cut(text))


@lru_cache(maxsize=65_536)
def token_of(piece: str) -> int:
    """Return the token id of a piece of text."""
    return int.from_bytes(hashlib.blake2s(piece.encode(), digest_size=2).digest(), "big")


def page_digests(tokens: Sequence[int], page_tokens: int) -> tuple[str, ...]:
    """Return one digest a page, over all tokens up to its end, as a real page's content depends on all before it."""
    running, digests = hashlib.sha256(), []
    for start in range(0, len(tokens), page_tokens):
        for token in tokens[start : start + page_tokens]:
            running.update(token.to_bytes(4, "big"))
        digests.append(running.hexdigest())
    return tuple(digests)


def _endless(submit: Submit, count: int) -> list[str]:
    seed = hashlib.sha256(submit.request.model_dump_json(exclude={"context"}).encode()).digest()
    return [_WORDS[seed[number % len(seed)] + number & 15] + " " for number in range(count)]


def _cut(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _until_stop(pieces: tuple[str, ...], stops: tuple[str, ...], finish: str) -> tuple[tuple[str, ...], str]:
    """Leave out everything from the first stop text on."""
    text = "".join(pieces)
    found = min((at for stop in stops if (at := text.find(stop)) >= 0), default=-1)
    return (tuple(_cut(text[:found])), "stop") if found >= 0 else (pieces, finish)
