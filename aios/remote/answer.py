"""One streamed answer, put together piece by piece and believed only as far as it keeps to the protocol.

Owns text, tool calls, finish and usage of one HTTP response. Does not know HTTP, retries or rules.
Invariant: `take` either takes in a whole event or raises; a call is handed out only with a known name and an object
as arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from aios.abi.chat import Finish, TokenLogprob, ToolCall
from aios.formats.arguments import MAX_DEPTH
from aios.remote.failures import Malformed, Rejected

MAX_CALLS = 64
MOST_TOKEN_CHARS = 128
"""More than the longest token of common vocabularies, runs of spaces aside."""
_SLACK_TOKENS = 64
NO_ID = -1
"""Stands for a token id: an endpoint gives text, not ids."""

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


class Piece(NamedTuple):
    """What one event brought: text, or a part of a call (then the text is empty)."""

    text: str


class Counts(NamedTuple):
    """Tokens as the endpoint counted them."""

    prompt: int
    cached: int
    completion: int


@dataclass(slots=True)
class PartialCall:
    """A call whose arguments are still coming."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """See the module. `names` maps tool names as the endpoint knows them to ours; `tokens` is what was asked for."""

    def __init__(self, names: Mapping[str, str], tokens: int) -> None:
        self._names = names
        self._room = MOST_TOKEN_CHARS * (tokens + _SLACK_TOKENS)
        self._calls: list[PartialCall] = []
        self._texts: list[str] = []
        self._said: str | None = None
        self.logprobs: list[TokenLogprob] = []
        """Of the tokens taken, as far as they were told; they may come behind the text."""
        self.counts: Counts | None = None

    @property
    def text(self) -> str:
        """Text so far."""
        return "".join(self._texts)

    @property
    def is_finished(self) -> bool:
        """Whether the endpoint said why it ended."""
        return self._said is not None

    def take(self, event: dict[str, Any]) -> list[Piece]:
        """Take in one event. Raises Malformed, Rejected."""
        if event.get("error"):
            raise Rejected(f"the endpoint broke the answer off: {_short(event['error'])}", "E-REMOTE-BROKEN-OFF")
        if event.get("usage") is not None:
            self.counts = _counts(event["usage"])
        choices = event.get("choices", [])
        if not isinstance(choices, list) or len(choices) > 1:
            raise Malformed("an event has not one choice")
        return self._choice(choices[0]) if choices else []

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the complete calls; of one that `length` cut off nothing is left. Raises Malformed."""
        found = self._calls[:-1] if self._said == "length" and self._is_last_cut() else self._calls
        calls = tuple(self._whole(call, number) for number, call in enumerate(found))
        if len({call.id for call in calls}) < len(calls):
            raise Malformed("two tool calls have the same id")
        return calls

    def finish(self) -> Finish:
        """Return why it ended. Raises Malformed, Rejected (a filter of the endpoint's)."""
        if self._said == "content_filter":
            raise Rejected("the endpoint's content filter ended the answer; ask in other words", "E-REMOTE-FILTERED")
        if self._said not in _FINISH:
            raise Malformed(f"unknown finish reason {_short(self._said)}")
        found = _FINISH[self._said]
        if found == "length":
            return found
        return "tool_calls" if self._calls else "stop"  # some servers say `stop` behind calls

    def _choice(self, choice: Any) -> list[Piece]:
        if not isinstance(choice, dict) or choice.get("index", 0) != 0:
            raise Malformed("an event is about a choice that was not asked for")
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise Malformed("the delta of an event is not an object")
        self.logprobs.extend(_logprobs(choice.get("logprobs")))
        pieces = [*self._text(delta), *self._parts(delta)]
        if pieces and self._said is not None:
            raise Malformed("the stream goes on behind its finish")
        self._end(choice.get("finish_reason"))
        return pieces

    def _end(self, said: Any) -> None:
        if said is None:
            return
        if not isinstance(said, str):
            raise Malformed(f"a finish reason is {type(said).__name__}")
        if self._said is not None:
            raise Malformed("the stream finishes twice")
        self._said = said

    def _text(self, delta: dict[str, Any]) -> list[Piece]:
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            raise Malformed("the content of an event is not text")
        if not content:
            return []
        self._spend(content)
        self._texts.append(content)
        return [Piece(content)]

    def _parts(self, delta: dict[str, Any]) -> list[Piece]:
        parts = delta.get("tool_calls")
        if parts is None:
            return []
        if not isinstance(parts, list):
            raise Malformed("the tool calls of an event are not a list")
        return [self._part(part) for part in parts]

    def _part(self, part: Any) -> Piece:
        if not isinstance(part, dict):
            raise Malformed("a tool call of an event is not an object")
        call = self._at(part.get("index", 0))
        function = part.get("function") or {}
        if not isinstance(function, dict):
            raise Malformed("the function of a tool call is not an object")
        identity, name, arguments = part.get("id"), function.get("name"), function.get("arguments")
        if not all(value is None or isinstance(value, str) for value in (identity, name, arguments)):
            raise Malformed("id, name or arguments of a tool call are not text")
        call.id = call.id or identity or ""
        call.name = call.name or name or ""
        self._spend(arguments or "")
        call.arguments.append(arguments or "")
        return Piece("")

    def _spend(self, text: str) -> None:
        """Raises Malformed where more comes than the tokens asked for can spell: an endpoint must not fill us up."""
        self._room -= len(text)
        if self._room < 0:
            raise Malformed("more text came than the tokens that were asked for can spell")

    def _at(self, index: Any) -> PartialCall:
        if type(index) is not int or not 0 <= index <= len(self._calls) or index >= MAX_CALLS:
            raise Malformed(f"tool call index {_short(index)} where at most {len(self._calls)} could follow")
        if index == len(self._calls):
            self._calls.append(PartialCall())
        return self._calls[index]

    def _is_last_cut(self) -> bool:
        return bool(self._calls) and not isinstance(_read("".join(self._calls[-1].arguments)), dict)

    def _whole(self, call: PartialCall, number: int) -> ToolCall:
        if call.name not in self._names:
            raise Malformed(f"it called {_short(call.name)}, which was not offered")
        arguments = _read("".join(call.arguments) or "{}")
        if not isinstance(arguments, dict):
            raise Malformed(f"the arguments of its call of {call.name} are not a JSON object, or nested too deep")
        return ToolCall(id=call.id or f"call_{number}", name=self._names[call.name], arguments=arguments)


def _read(text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if _is_shallow(value) else None


def _is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)


def _counts(usage: Any) -> Counts:
    details = (usage.get("prompt_tokens_details") or {}) if isinstance(usage, dict) else None
    if not isinstance(details, dict):
        raise Malformed("the usage of an event is not an object")
    found = (usage.get("prompt_tokens", 0), details.get("cached_tokens") or 0, usage.get("completion_tokens") or 0)
    if not all(type(count) is int and 0 <= count < 1 << 31 for count in found):
        raise Malformed("the usage of an event has a count that is none")
    return Counts(*found)


def _logprobs(found: Any) -> list[TokenLogprob]:
    """Read those of the taken tokens; alternatives have no ids here and are left out, as is what is no logprob."""
    content = found.get("content") if isinstance(found, dict) else None
    entries = content if isinstance(content, list) else []
    return [one for entry in entries if isinstance(entry, dict) and (one := _logprob(entry)) is not None]


def _logprob(entry: dict[str, Any]) -> TokenLogprob | None:
    text, value = entry.get("token"), entry.get("logprob")
    if not isinstance(text, str) or not isinstance(value, int | float):
        return None
    return TokenLogprob(token=NO_ID, text=text, logprob=float(value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
