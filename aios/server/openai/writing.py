"""A generation in OpenAI's words: a completion, the chunks of a stream, an error.

Pure. What a chunk says is never taken back, so calls and finish come only when the kernel's reply is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import JSONResponse, Response

from aios.abi.chat import Generation, TokenLogprob, ToolCall, Usage
from aios.abi.replies import Denied, Failed
from aios.server.refusals import Refusal

DONE = b"data: [DONE]\n\n"
WAITING = b": waiting\n\n"
"""A comment: it keeps those in between from hanging up."""

_FINISH = {"length": "length", "context_full": "length"}
_STATUS = {
    "E-CONTEXT-TOO-LONG": 400,
    "E-ENGINE-LOST": 503,
    "E-GRAMMAR": 400,
    "E-HISTORY": 409,
    "E-KERNEL-ENDED": 503,
    "E-LIMIT": 429,
    "E-NO-CORE": 503,
    "E-NO-MODEL": 404,
    "E-PROMPT": 400,
    "E-QUOTA": 429,
    "E-QUOTA-PAGES": 429,
    "E-REMOTE-BUSY": 503,
    "E-REMOTE-LOST": 503,
    "E-REMOTE-TIMEOUT": 503,
    "E-REMOTE-UNREACHABLE": 503,
    "E-RULE": 400,
    "E-STORE": 503,
    "E-STORE-FULL": 503,
    "E-TOOL-NAME": 400,
}
_CODES = {"E-NO-MODEL": "model_not_found", "E-CONTEXT-TOO-LONG": "context_length_exceeded"}
"""Codes that clients look for; all others are our own."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_RETRY_S = "1"


class Declined(Exception):
    """The kernel did not do what was asked."""

    def __init__(self, reply: Denied | Failed) -> None:
        super().__init__(reply.reason)
        self.refusal = Refusal(status_of(reply), reply.code, reply.reason)


def status_of(reply: Denied | Failed) -> int:
    """Return the HTTP status that says as much."""
    return _STATUS.get(reply.code, 403 if isinstance(reply, Denied) else 500)


def error_of(refusal: Refusal) -> dict[str, Any]:
    """Write a refusal as OpenAI's error object."""
    return {
        "error": {
            "message": refusal.message,
            "type": _TYPES.get(refusal.status, "server_error"),
            "param": None,
            "code": _CODES.get(refusal.code, refusal.code),
        }
    }


def error_response(refusal: Refusal) -> Response:
    """Answer with a refusal."""
    headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    if refusal.status in (429, 503):
        headers["retry-after"] = _RETRY_S
    return JSONResponse(error_of(refusal), refusal.status, headers)


@dataclass(frozen=True, slots=True)
class Writer:
    """What all parts of one answer repeat."""

    identity: str
    created: int
    model: str
    num_top: int

    def completion(self, found: Generation) -> dict[str, Any]:
        """Write the whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": found.text, "refusal": None}
        if found.tool_calls:
            message |= {"content": found.text or None, "tool_calls": calls_of(found.tool_calls)}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(found.logprobs),
            "finish_reason": finish_of(found),
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage_of(found.usage)}

    def opening(self) -> bytes:
        """Begin a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        """Go on with text."""
        return self._chunk({"content": text})

    def ending(self, found: Generation) -> bytes:
        """End a stream with its calls, logprobs and finish."""
        calls = b""
        if found.tool_calls:
            parts = [{"index": index, **call} for index, call in enumerate(calls_of(found.tool_calls))]
            calls = self._chunk({"tool_calls": parts})
        return calls + self._chunk({}, finish_of(found), self._logprobs(found.logprobs))

    def usage(self, usage: Usage) -> bytes:
        """Tell the usage behind the end."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(usage)})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, found: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not found:
            return None
        return {"content": [self._logprob(one) for one in found], "refusal": None}

    def _logprob(self, one: TokenLogprob) -> dict[str, Any]:
        # Alternatives are known by their ids alone, so they are named as vLLM names tokens that it does not spell.
        top = [{"token": f"token_id:{token}", "logprob": value, "bytes": None} for token, value in one.top]
        spelled = {"token": one.text, "logprob": one.logprob, "bytes": list(one.text.encode())}
        return {**spelled, "top_logprobs": top[: self.num_top]}


def event(value: dict[str, Any]) -> bytes:
    """Write one event of a stream."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def calls_of(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Write tool calls."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
        }
        for call in calls
    ]


def finish_of(found: Generation) -> str:
    """Say why it ended. What ended for a reason that OpenAI has no word for has stopped."""
    return "tool_calls" if found.tool_calls else _FINISH.get(found.finish, "stop")


def usage_of(usage: Usage) -> dict[str, Any]:
    """Write the usage."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min(usage.cached_tokens, usage.prompt_tokens)},
    }
