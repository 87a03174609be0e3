"""A generation as the body of a chat-completions request.

Pure: no network. Invariant: our tool names and the endpoint's (no dots there) are one to one inside a request.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aios.abi.chat import Message, Sampling
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.remote.failures import Rejected

Continuation = Literal["none", "prefill", "flag"]
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")


def wire_names(tools: Sequence[ToolSpec]) -> dict[str, str]:
    """Return the endpoint's name → ours."""
    names: dict[str, str] = {}
    for tool in tools:
        name = _STRANGE.sub("_", tool.name)
        while name in names:
            name = f"{name[:60]}_{len(names)}"
        names[name] = tool.name
    return names


def body(
    model: str,
    ask: LlmGenerate,
    tools: Sequence[ToolSpec],
    *,
    names: Mapping[str, str],
    schema: dict[str, Any] | None,
    more: Sequence[Message],
    begun: str,
    max_tokens: int,
    continuation: Continuation,
) -> dict[str, Any]:
    """Write the request. Raises Rejected.

    `tools` are those offered, `names` is what `wire_names` made, `more` follows the conversation. An answer that was
    `begun` is continued where the endpoint can; otherwise it starts anew. One whose beginning the caller gave is
    rejected there.
    """
    if ask.tokens:
        raise Rejected("an endpoint takes messages, not token ids; give `messages`", "E-REMOTE-TOKENS")
    theirs = {ours: name for name, ours in names.items()}
    past = ask.messages[:-1] if ask.continue_final and not more else ask.messages
    given = ask.messages[-1].content if ask.continue_final and not more else ""
    if given and continuation == "none":
        raise Rejected("this endpoint cannot go on with an answer that was begun (setting `continuation`)")
    messages = [_message(one, theirs) for one in (*past, *more)]
    found: dict[str, Any] = {"model": model, "messages": messages, **_sampling(ask.sampling, max_tokens)}
    if given or (begun and continuation != "none"):
        messages.append({"role": "assistant", "content": given + begun})
        if continuation == "flag":
            found |= {"continue_final_message": True, "add_generation_prompt": False}
    if tools and ask.tool_choice != "none":
        found["tools"] = [_tool(tool, theirs[tool.name]) for tool in tools]
        found["tool_choice"] = _choice(ask.tool_choice, theirs)
    if schema is not None:
        wanted = {"name": "answer", "schema": schema, "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return found


def _sampling(sampling: Sampling, max_tokens: int) -> dict[str, Any]:
    """What everyone knows always; what only some know when it was asked for (the others then refuse it)."""
    found: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.stop:
        found["stop"] = list(sampling.stop)
    if sampling.logprobs:
        found |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    if sampling.top_k:
        found["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        found["repetition_penalty"] = sampling.repetition_penalty
    if sampling.ignore_eos:
        found["ignore_eos"] = True
    return found


def _message(message: Message, theirs: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": _their(call.name, theirs), "arguments": json.dumps(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.name is not None and message.role != "tool":
        found["name"] = message.name
    return found


def _their(name: str, theirs: dict[str, str]) -> str:
    """A past call may be of a tool that is not offered any more."""
    return theirs.get(name) or _STRANGE.sub("_", name)


def _tool(tool: ToolSpec, name: str) -> dict[str, Any]:
    function = {"name": name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _choice(choice: str, theirs: dict[str, str]) -> Any:
    if choice in ("auto", "required"):
        return choice
    if choice not in theirs:
        raise Rejected(f"tool_choice {choice!r} is not offered; offered are {', '.join(theirs)}")
    return {"type": "function", "function": {"name": theirs[choice]}}
