"""A remote core keeps to the protocol of cores, and survives whatever an endpoint does."""

import gzip
import json
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import SocketAttribute, SocketStream

from aios.abi import core as c
from aios.abi.chat import Message, ToolCall
from aios.abi.process import ProcessClass
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.config import CoreSettings
from aios.errors import ConfigError
from aios.guard.language.sorts import sort_json
from aios.guard.language.syntax import Sort
from aios.guard.masking.offers import Offers
from aios.ids import ContextId
from aios.remote.core import RemoteCore
from aios.testing.endpoint import (
    Act,
    Exchange,
    ScriptedEndpoint,
    call,
    cut,
    endless_line,
    events,
    held,
    raw,
    refuse,
    say,
)
from tests.remote.desk import ADD, MAIN, OTHER, desk, submit

pytestmark = pytest.mark.anyio


def choice(finish: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def part(index: Any, name: str | None = None, arguments: Any = "", id: str = "c") -> dict[str, Any]:
    return choice(tool_calls=[{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}])


async def test_a_text_streams_in_rows_and_its_usage_is_the_endpoints() -> None:
    async with desk(say("Hel", "lo")) as d:
        await d.core.send(submit())
        found = await d.finished()
        assert (found.text, found.finish, found.recovery) == ("Hello", "stop", None)
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 3)
        assert [(row.position, row.token, row.text) for row in d.rows] == [(0, -1, "Hel"), (1, -1, "lo")]
        assert [type(m) for m in d.said if isinstance(m, c.Admitted | c.Finished)] == [c.Admitted, c.Finished]
        asked = d.endpoint.requests[0]
        assert (asked.path, asked.body["model"], asked.body["max_tokens"]) == ("/v1/chat/completions", "m", 50)
        assert "authorization" not in asked.headers


async def test_a_tool_call_comes_back_under_our_name() -> None:
    async with desk(call("math_add", '{"a": 41}')) as d:
        await d.core.send(submit(tools=(ADD,)))
        found = await d.finished()
        assert found.tool_calls == (ToolCall(id="c1", name="math.add", arguments={"a": 41}),)
        assert found.finish == "tool_calls"
        assert [tool["function"]["name"] for tool in d.endpoint.requests[0].body["tools"]] == ["math_add"]


@pytest.mark.parametrize("fault", [refuse(429, retry_after="0"), refuse(500), cut(), raw(b""), raw(b"no http at all")])
async def test_an_endpoint_that_fails_twice_is_asked_a_third_time(fault: Act) -> None:
    async with desk(fault, fault, say("ok")) as d:
        await d.core.send(submit())
        found = await d.finished()
        assert (found.text, found.recovery, len(d.endpoint.requests)) == ("ok", None, 3)


async def test_attempts_are_bounded_and_the_refusal_has_a_name() -> None:
    async with desk(*[refuse(503, "overloaded")] * 3, attempts=3) as d:
        await d.core.send(submit())
        refused = await d.until(c.Refused)
        assert (refused.code, len(d.endpoint.requests)) == ("E-REMOTE-BUSY", 3)
        assert "overloaded" in refused.reason


async def test_an_endpoint_that_wants_a_long_rest_is_not_waited_for() -> None:
    async with desk(refuse(429, retry_after="3600")) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-BUSY"
        assert len(d.endpoint.requests) == 1


async def test_nobody_listening_is_unreachable() -> None:
    async with desk(url="http://127.0.0.1:9/v1", attempts=2) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-UNREACHABLE"


async def test_a_silent_endpoint_times_out() -> None:
    async with desk(held([], anyio.Event()), attempts=1, silence_s=0.05) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-TIMEOUT"


HOSTILE = {
    "endless line": endless_line(),
    "invalid JSON": raw(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\ndata: {nope\n\n"),
    "deep JSON": raw(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\ndata: " + b"[" * 200_000 + b"\n\n"),
    "not an object": events([1, 2]),
    "other choice": events({"choices": [{"index": 3, "delta": {"content": "x"}}]}),
    "two choices": events({"choices": [{}, {}]}),
    "content not text": events(choice(content=7)),
    "wrong index order": events(part(1, "math_add", "{}")),
    "negative index": events(part(-1, "math_add", "{}")),
    "index not a number": events(part("0", "math_add", "{}")),
    "arguments not JSON": events(part(0, "math_add", '{"a": '), choice("tool_calls")),
    "arguments not an object": events(part(0, "math_add", "[1]"), choice("tool_calls")),
    "half a character": events(choice(content="\ud800")),
    "half a character in arguments": events(part(0, "math_add", '{"a": "\\ud800"}'), choice("tool_calls")),
    "arguments with NaN": events(part(0, "math_add", '{"a": NaN}'), choice("tool_calls")),
    "deep arguments": events(part(0, "math_add", '{"a": ' + "[" * 90 + "]" * 90 + "}"), choice("tool_calls")),
    "unknown tool": events(part(0, "rm", "{}"), choice("tool_calls")),
    "finish twice": events(choice("stop"), choice("stop")),
    "text behind the finish": events(choice("stop"), choice(content="more")),
    "unknown finish": events(choice("because")),
    "negative usage": events({"choices": [], "usage": {"prompt_tokens": -5}}),
    "usage not an object": events({"choices": [], "usage": [1]}),
    "a bomb of text": events(*[choice(content="x" * 4000)] * 4),
    "a bomb of arguments": events(*[part(0, "math_add", "x" * 4000)] * 4),
    "packed": raw(
        b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(bytes(1 << 20))
    ),
    "a page": raw(b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-type: text/html; charset=x\r\n\r\n<html>"),
    "no stream": raw(b'HTTP/1.1 200 x\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n{"choices": []}'),
    "same id twice": events(part(0, "math_add", '{"a": 1}'), part(1, "math_add", '{"a": 2}'), choice("tool_calls")),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_stream_is_refused_once_and_ends_nobody_else(name: str) -> None:
    until = anyio.Event()

    async def rest(exchange: Exchange) -> None:
        await exchange.delta(content=" and on")
        await exchange.end("stop")

    async with desk(held(["fine"], until, rest), HOSTILE[name]) as d:
        await d.core.send(submit(context=OTHER))
        await d.until(c.Stepped)
        await d.core.send(submit(tools=(ADD,)))
        refused = await d.until(c.Refused)
        assert (refused.context, refused.code) == (MAIN, "E-REMOTE-PROTOCOL")
        until.set()
        assert (await d.finished(OTHER)).text == "fine and on"
        assert len(d.endpoint.requests) == 2


async def dribble(exchange: Exchange) -> None:
    """A stream that never falls silent and never says anything."""
    await exchange.begin()
    while True:
        await exchange.stream.send(b":")
        await anyio.sleep(0.005)


async def dribbled_head(exchange: Exchange) -> None:
    """A head that never ends, a byte at a time."""
    await exchange.stream.send(b"HTTP/1.1 200 x\r\nx: ")
    while True:
        await exchange.stream.send(b"x")
        await anyio.sleep(0.005)


async def dribbled_refusal(exchange: Exchange) -> None:
    """A refusal whose reason never ends."""
    await exchange.begin(400)
    while True:
        await exchange.stream.send(b" ")
        await anyio.sleep(0.005)


@pytest.mark.parametrize("act", [dribble, dribbled_head, dribbled_refusal])
async def test_an_answer_by_the_drop_ends_at_its_limit(act: Act) -> None:
    async with desk(act, attempts=1, timeout_s=0.2, silence_s=5) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-TIMEOUT"


async def test_a_head_without_end_is_cut() -> None:
    async def act(exchange: Exchange) -> None:
        while True:
            await exchange.stream.send(b"HTTP/1.1 200 x\r\n" + b"x: y\r\n" * 10_000)

    async with desk(act, attempts=1) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-LOST"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_stays(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "sk-very-secret")
    elsewhere = ScriptedEndpoint(otherwise=say("mine"))
    async with elsewhere.served():
        away = refuse(status, location=f"{elsewhere.url}/chat/completions")
        async with desk(away, key="FAR_KEY") as d:
            await d.core.send(submit())
            refused = await d.until(c.Refused)
            assert (refused.code, len(d.endpoint.requests)) == ("E-REMOTE-REJECTED", 1)
            assert "it redirects" in refused.reason
    assert elsewhere.requests == []


async def test_a_name_that_leads_nowhere_is_unreachable() -> None:
    async with desk(url="http://no-such-host.invalid/v1", attempts=2) as d:
        await d.core.send(submit())
        assert (await d.until(c.Refused)).code == "E-REMOTE-UNREACHABLE"


async def test_a_connection_that_cannot_be_made_secure_is_not_tried_again() -> None:
    calls = 0

    async def plain(stream: SocketStream) -> None:
        nonlocal calls
        calls += 1
        async with stream:
            await stream.send(b"HTTP/1.1 400 this is no TLS\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, plain)
        async with desk(url=f"https://127.0.0.1:{port}/v1") as d:
            await d.core.send(submit())
            assert (await d.until(c.Refused)).code == "E-REMOTE-TLS"
        tasks.cancel_scope.cancel()
    assert calls == 1


async def test_a_cut_answer_is_continued_where_the_endpoint_can() -> None:
    async with desk(cut("Once ", "upon "), say("a time"), continuation="flag") as d:
        await d.core.send(submit())
        found = await d.finished()
        assert (found.text, found.recovery) == ("Once upon a time", "continued from the partial text")
        asked = d.endpoint.requests[1].body
        assert asked["messages"][-1] == {"role": "assistant", "content": "Once upon "}
        assert asked["continue_final_message"] is True
        assert [row.position for row in d.rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("Once ", "a time"), "Once a time"),  # the beginning, whole, in one piece
        (("On", "ce a", " time"), "Once a time"),
        (("Once",), "Once Once"),  # less than the beginning is no repetition
        (("Only",), "Once Only"),
    ],
)
async def test_a_beginning_that_is_said_again_is_not_doubled(pieces: tuple[str, ...], text: str) -> None:
    async with desk(cut("Once "), say(*pieces), continuation="prefill") as d:
        await d.core.send(submit())
        found = await d.finished()
        assert (found.text, found.recovery) == (text, "continued from the partial text")
        assert "".join(row.text for row in d.rows) == text


async def test_a_demanded_call_that_does_not_come_is_asked_for_again() -> None:
    async with desk(say("No."), call("math_add", '{"a": 1}')) as d:
        await d.core.send(submit(tools=(ADD,), tool_choice="required"))
        found = await d.finished()
        assert (found.finish, found.text, len(found.tool_calls)) == ("tool_calls", "", 1)
        assert "a call is demanded" in d.endpoint.requests[1].body["messages"][-1]["content"]
    async with desk(*[say("No.")] * 3) as d:
        await d.core.send(submit(tools=(ADD,), tool_choice="math.add"))
        assert (await d.finished()).finish == "no_compliant_call"


async def test_an_answer_that_the_caller_began_is_gone_on_with_or_rejected() -> None:
    begun = (Message(role="user", content="Tell."), Message(role="assistant", content="Once "))
    order = msgspec.structs.replace(submit(), request=LlmGenerate(messages=begun, continue_final=True))
    async with desk(cut("upon "), say("a time"), continuation="flag") as d:
        await d.core.send(order)
        assert (await d.finished()).text == "upon a time"
        first, second = (asked.body["messages"] for asked in d.endpoint.requests)
        assert first[1:] == [{"role": "assistant", "content": "Once "}]
        assert second[1:] == [{"role": "assistant", "content": "Once upon "}]
    async with desk() as d:
        await d.core.send(order)
        assert (await d.until(c.Refused)).code == "E-REMOTE-REJECTED"


async def test_a_cut_answer_begins_anew_where_the_endpoint_cannot_and_says_so() -> None:
    async with desk(cut("Once "), say("Twice")) as d:
        await d.core.send(submit())
        found = await d.finished()
        assert (found.text, found.recovery) == ("Twice", "restarted")
        assert [row.position for row in d.rows] == [0, 1]


@pytest.mark.parametrize("continuation", ["prefill", "none"])
async def test_suspension_closes_the_stream_and_keeps_the_text(continuation: str) -> None:
    async with desk(held(["one "], anyio.Event()), say("two"), continuation=continuation) as d:
        await d.core.send(submit())
        await d.until(c.Stepped)
        await d.core.send(c.Suspend(context=MAIN, epoch=1, ticket=1))
        out = await d.until(c.Switched)
        assert (out.direction, out.tier, out.generated) == ("out", "dropped", 1)
        assert (await d.until(c.Described)).ticket == 1
        await d.core.send(c.Resume(context=MAIN, epoch=1, ticket=2))
        back = await d.until(c.Switched)
        found = await d.finished()
        if continuation == "prefill":
            assert (back.reason, found.text) == ("order; continued from the partial text", "one two")
        else:
            assert (back.reason, found.text) == ("order; restarted", "two")
        assert found.usage.switches == 1


async def test_what_a_dead_kernel_had_is_gone_on_with_by_its_text() -> None:
    async with desk(say("world"), continuation="prefill") as d:
        await d.core.send(submit(generated=(-1, -1), generated_text="Hello "))
        found = await d.finished()
        assert (found.text, found.recovery) == ("Hello world", "continued from the partial text")
        assert d.rows[0].position == 2


async def test_cancel_ends_with_what_was_said() -> None:
    async with desk(held(["some"], anyio.Event())) as d:
        await d.core.send(submit())
        await d.until(c.Stepped)
        await d.core.send(c.Cancel(context=MAIN, epoch=1))
        found = await d.finished()
        assert (found.text, found.finish) == ("some", "cancelled")


async def test_an_endpoint_that_ignores_max_tokens_is_cut_at_the_line() -> None:
    async with desk(say(*"abcdefgh")) as d:
        await d.core.send(submit(max_tokens=3))
        found = await d.finished()
        assert (found.text, found.finish) == ("abc", "length")


async def test_no_more_calls_than_the_limit_run_at_once_and_classes_go_first() -> None:
    until = anyio.Event()
    async with desk(held(["x"], until, say_rest), concurrency=1) as d:
        d.endpoint.otherwise = say("y")
        await d.core.send(submit("first"))
        await d.until(c.Stepped)
        for pid, klass in ((2, ProcessClass.BACKGROUND), (3, ProcessClass.INTERACTIVE)):
            facts = c.ProcessFacts(pid=pid, klass=klass)
            await d.core.send(submit(str(pid), ContextId(f"{pid}:main"), facts=facts))
        await anyio.wait_all_tasks_blocked()
        until.set()
        for _ in range(3):
            await d.until(c.Finished)
        assert d.endpoint.most_running == 1
        assert [asked.body["messages"][0]["content"] for asked in d.endpoint.requests] == ["first", "3", "2"]


async def say_rest(exchange: Exchange) -> None:
    await exchange.end("stop")


class OnlyEven:
    """A rule for tests: `math.add` with an even `a` alone."""

    def offer(self, state: c.MaskState, tools: Any) -> tuple[ToolSpec, ...]:
        return tuple(tool for tool in tools if tool.name not in state.residuals)

    def objection(self, state: c.MaskState, tools: Any, call: ToolCall) -> str | None:
        return None if call.arguments["a"] % 2 == 0 else "a must be even"


MASK = c.MaskState(rules="r", version=5, residuals={})


async def test_a_forbidden_call_is_asked_again_with_the_reason() -> None:
    acts = call("math_add", '{"a": 1}'), call("math_add", '{"a": 2}')
    async with desk(*acts, restriction=OnlyEven()) as d:
        await d.core.send(submit(tools=(ADD,), mask=MASK))
        found = await d.finished()
        assert (found.tool_calls[0].arguments, found.mask_version) == ({"a": 2}, 5)
        said, answer = d.endpoint.requests[1].body["messages"][-2:]
        assert said["tool_calls"][0]["function"] == {"name": "math_add", "arguments": '{"a": 1}'}
        assert (answer["role"], answer["tool_call_id"]) == ("tool", "c1")
        assert "a must be even" in answer["content"]


async def test_after_two_more_questions_it_ends_without_a_call() -> None:
    async with desk(*[call("math_add", '{"a": 1}')] * 3, restriction=OnlyEven()) as d:
        await d.core.send(submit(tools=(ADD,), mask=MASK))
        found = await d.finished()
        assert (found.finish, found.tool_calls, len(d.endpoint.requests)) == ("no_compliant_call", (), 3)
        assert found.usage.prompt_tokens == 21


async def test_a_tool_that_no_rule_lets_pass_is_not_offered() -> None:
    shut = c.MaskState(rules="r", version=1, residuals={"math.add": []})
    async with desk(say("no tools"), restriction=OnlyEven()) as d:
        await d.core.send(submit(tools=(ADD,), mask=shut))
        await d.finished()
        assert "tools" not in d.endpoint.requests[0].body
        await d.core.send(submit(tools=(ADD,), mask=shut, tool_choice="required", epoch=2))
        assert (await d.finished()).finish == "no_compliant_call"
        assert len(d.endpoint.requests) == 1


async def test_a_text_that_misses_its_schema_is_asked_again() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with desk(say('{"n": "one"}'), say('{"n": 1}')) as d:
        await d.core.send(submit(output_schema=schema))
        assert (await d.finished()).parsed == {"n": 1}
        assert d.endpoint.requests[0].body["response_format"]["json_schema"]["schema"]["required"] == ["n"]


async def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "sk-very-secret")
    async with desk(refuse(401, "bad key sk-very-secret"), key="FAR_KEY") as d:
        await d.core.send(submit())
        refused = await d.until(c.Refused)
        assert d.endpoint.requests[0].headers["authorization"] == "Bearer sk-very-secret"
        assert refused.code == "E-REMOTE-KEY"
        assert "FAR_KEY" in refused.reason
        assert "secret" not in json.dumps([str(message) for message in d.said])


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAR_KEY", raising=False)
    with pytest.raises(ConfigError, match="FAR_KEY"):
        RemoteCore("far", CoreSettings(url="http://x/v1", model="m", key="FAR_KEY"))


async def test_a_forbidden_call_hears_from_the_kernel_why_and_what_would_come_first() -> None:
    hint = "tool 'math.add' cannot be called so now by rule 'first': no ok find; first: find({})"
    residuals = {"math.add": {"params": {"a": [sort_json(Sort("Int")), False, False]}, "rules": [["first", False]]}}
    mask = c.MaskState(rules="r", version=1, residuals=residuals)
    async with desk(call("math_add", '{"a": 1}'), say("Then not."), restriction=Offers()) as d:
        await d.core.send(submit(tools=(ADD,), mask=mask))
        told = await d.until(c.Called)
        assert [one.name for one in told.calls] == ["math.add"]
        explained = msgspec.structs.replace(mask, hints={"math.add": hint})
        await d.core.send(c.Steer(context=told.context, epoch=told.epoch, mask=explained))
        assert (await d.finished()).text == "Then not."
        assert hint in d.endpoint.requests[1].body["messages"][-1]["content"]
        assert (await d.until(c.Statistics)).steering == "schemas"
