"""From the body of a chat-completions request to what it asks of the kernel.

Owns the wire types. What of a body has no meaning here is not refused but named (`Asked.ignored`), so that a client
can learn it. Invariant: every number and text is bounded before it reaches the kernel.
Source: the OpenAI API reference, Chat Completions; `top_k`, `repetition_penalty`, `ignore_eos`,
`continue_final_message` and `add_generation_prompt` as vLLM and SGLang have them.
"""

import json
import re
import secrets
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from aios.abi.base import Json
from aios.abi.chat import Message, Sampling, ToolCall
from aios.abi.syscalls import LlmGenerate, ReportedCall
from aios.abi.tools import ToolSpec
from aios.server.intake import misread
from aios.server.refusals import Refusal

_ANYTHING: dict[str, Any] = {"type": "object"}
"""JSON mode: an object, no more."""
MOST_TOKENS = 131_072
DEFAULT_TOKENS = 4096
"""Where a client sets no limit; its quota and the model's context are limits too."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHOWN_NAMES = 16


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Part(_Wire):
    type: Literal["text"]
    text: str


class _CalledFunction(_Wire):
    name: str = Field(min_length=1, max_length=64)
    arguments: str = "{}"


class _Call(_Wire):
    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Message(_Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _Function(_Wire):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(_Wire):
    type: Literal["function"]
    function: _Function


class _NamedFunction(_Wire):
    name: str


class _NamedTool(_Wire):
    type: Literal["function"]
    function: _NamedFunction


class _JsonSchema(_Wire):
    name: str = ""
    schema_: dict[str, Any] = Field(alias="schema")


class _Format(_Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(_Wire):
    include_usage: bool = False


_Stop = Annotated[str, StringConstraints(max_length=1024)]


class Body(_Wire):
    """A chat-completions request. Fields that are not here are ignored and named in the answer's headers."""

    model: str = Field(default="", max_length=256)
    messages: list[_Message] = Field(min_length=1, max_length=16_384)
    tools: list[_Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | _NamedTool | None = None
    response_format: _Format | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: _Stop | list[_Stop] | None = Field(default=None, max_length=1024)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10.0)
    ignore_eos: bool = False
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None


class Asked(NamedTuple):
    """A request as the kernel takes it; `generate` has no context yet."""

    generate: LlmGenerate
    reports: tuple[ReportedCall, ...]
    """Results that the client tells of calls that it ran, the history's order."""
    streams: bool
    tells_usage: bool
    num_top: int
    """Alternatives wanted beside each token's own logprob."""
    ignored: tuple[str, ...]


def read(data: bytes) -> Asked:
    """Read a body. Refuses with 400."""
    try:
        body = Body.model_validate_json(data)
        return _asked(body, data)
    except ValidationError as error:
        raise misread(error, 400, "E-BODY") from None


def _asked(body: Body, data: bytes) -> Asked:
    messages = tuple(_message(one) for one in body.messages)
    generate = LlmGenerate(
        model=body.model,
        messages=messages,
        tools=(),
        client_tools=tuple(_spec(tool.function) for tool in body.tools or ()),
        continue_final=body.continue_final_message,
        tool_choice=_choice(body),
        output_schema=_schema(body.response_format),
        sampling=_sampling(body),
    )
    return Asked(
        generate=generate,
        reports=_reports(messages),
        streams=bool(body.stream),
        tells_usage=body.stream_options is not None and body.stream_options.include_usage,
        num_top=body.top_logprobs or 0,
        ignored=_unknown(data),
    )


def _unknown(data: bytes) -> tuple[str, ...]:
    """Name the fields that mean nothing here, as far as they can stand in a header."""
    strange = sorted(json.loads(data).keys() - Body.model_fields.keys())
    return tuple(name for name in strange if _NAME.fullmatch(name))[:_SHOWN_NAMES]


def _message(message: _Message) -> Message:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content or ())
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=text,
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=_arguments(call))
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _arguments(call: _Call) -> dict[str, Json]:
    try:
        found = msgspec.json.decode(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "E-BODY", f"the arguments of tool call {call.id!r} are not a JSON object")
    return found


def _spec(function: _Function) -> ToolSpec:
    parameters = function.parameters or {"type": "object", "properties": {}, "additionalProperties": False}
    return ToolSpec(name=function.name, description=function.description or "", parameters=parameters)


def _choice(body: Body) -> str:
    if not body.tools:
        return "none"
    choice = body.tool_choice or "auto"
    if isinstance(choice, str):
        return choice
    names = [tool.function.name for tool in body.tools]
    if choice.function.name not in names:
        raise Refusal(400, "E-BODY", f"tool_choice: {choice.function.name!r} is not among the tools {', '.join(names)}")
    return choice.function.name


def _schema(wanted: _Format | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return _ANYTHING
    if wanted.json_schema is None:
        raise Refusal(400, "E-BODY", "response_format: type 'json_schema' needs `json_schema`")
    return wanted.json_schema.schema_


def _sampling(body: Body) -> Sampling:
    limit = body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed % 2**63
    given = {
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(0, body.top_k),
        "repetition_penalty": body.repetition_penalty,
    }
    return Sampling(
        max_tokens=limit,
        temperature=1.0 if body.temperature is None else body.temperature,
        seed=seed,
        stop=stop,
        logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
        ignore_eos=body.ignore_eos,
        **{name: value for name, value in given.items() if value is not None},
    )


def _reports(messages: tuple[Message, ...]) -> tuple[ReportedCall, ...]:
    """Pair each tool message with the call that it answers."""
    calls: dict[str, ToolCall] = {}
    found: list[ReportedCall] = []
    for number, message in enumerate(messages):
        calls.update({call.id: call for call in message.tool_calls})
        if message.role != "tool":
            continue
        if message.tool_call_id not in calls:
            told = f"messages[{number}] answers call {message.tool_call_id!r}, which no message before it makes"
            raise Refusal(400, "E-BODY", told)
        found.append(ReportedCall(call=calls[message.tool_call_id], result=_result(message.content)))
    return tuple(found)


def _result(text: str) -> Json:
    """Rules read a result's fields; what is no JSON is a text."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
