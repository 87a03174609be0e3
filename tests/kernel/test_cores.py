"""Several cores behave as one: placed by policy, moved when one cannot, no row lost or told twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from aios.abi import core as c
from aios.abi.chat import Generation, Message
from aios.abi.syscalls import LlmGenerate
from aios.errors import EngineLost
from aios.ids import ContextId
from aios.kernel.cores import MOST_AHEAD, CorePolicy, Cores
from tests.kernel.world import READY, ScriptCore

pytestmark = pytest.mark.anyio
BUSY = frozenset({"E-BUSY"})
MAIN = ContextId("1:main")


class Pair:
    """Two cores as one, and what they said."""

    def __init__(self, policy: CorePolicy) -> None:
        self.first, self.second = ScriptCore(), ScriptCore()
        models = {"first": ("small", "any"), "second": ("large", "any")}
        self.cores = Cores({"first": self.first, "second": self.second}, policy, BUSY, models)
        self.rows: list[c.TokenRow] = []
        self.said: list[c.AnyMessage] = []
        self.members: tuple[c.CoreState, ...] = ()
        self._messages = self.cores.messages()

    async def until(self, kind: type) -> c.AnyMessage:
        while True:
            message = await anext(self._messages)
            self.said.append(message)
            if isinstance(message, c.Stepped):
                self.rows.extend(message.rows)
            if isinstance(message, c.Members):
                self.members = message.cores
            if isinstance(message, kind):
                return message

    async def finished(self) -> Generation:
        message = await self.until(c.Finished)
        assert isinstance(message, c.Finished)
        return message.generation

    async def submit(self, context: ContextId = MAIN, *texts: str, model: str = "") -> None:
        messages = tuple(Message(role="user", content=text) for text in texts or ("hi",))
        order = c.Submit(
            context=context,
            epoch=1,
            request=LlmGenerate(messages=messages, model=model),
            facts=c.ProcessFacts(pid=int(context.split(":")[0])),
            lease_tokens=100,
        )
        await self.cores.send(order)


@asynccontextmanager
async def pair(policy: CorePolicy = "first") -> AsyncIterator[Pair]:
    with anyio.fail_after(10):
        two = Pair(policy)
        await two.cores.start()
        try:
            yield two
        finally:
            await two.cores.aclose()


def _places(two: Pair) -> list[int]:
    return [len(two.first.sent(c.Submit)), len(two.second.sent(c.Submit))]


async def test_first_uses_the_first_and_least_loaded_spreads() -> None:
    async with pair("first") as two:
        for pid in (1, 2):
            await two.submit(ContextId(f"{pid}:main"))
        assert _places(two) == [2, 0]
    async with pair("least-loaded") as two:
        for pid in (1, 2, 3, 4):
            await two.submit(ContextId(f"{pid}:main"))
        assert _places(two) == [2, 2]


async def test_affinity_follows_the_longest_common_beginning_of_the_prompt() -> None:
    async with pair("prefix-affinity") as two:
        await two.submit(ContextId("1:a"), "You are a cook.", "Soup?")
        await two.submit(ContextId("2:a"), "You are a smith.", "A nail?")
        await two.submit(ContextId("3:a"), "You are a smith.", "A hinge?")
        await two.submit(ContextId("4:a"), "You are a cook.", "Bread?")
        await two.submit(ContextId("5:a"), "You are a cook.", "Soup?", "And then?")
        assert [order.context for order in two.second.sent(c.Submit)] == ["2:a", "3:a"]


async def test_affinity_does_not_load_one_core_alone() -> None:
    async with pair("prefix-affinity") as two:
        for pid in range(1, 2 * MOST_AHEAD):
            await two.submit(ContextId(f"{pid}:main"), "You are a cook.")
        assert _places(two) == [MOST_AHEAD + 1, MOST_AHEAD - 2]


async def test_a_call_that_names_a_model_runs_where_it_is_served() -> None:
    async with pair() as two:
        for pid, model in enumerate(("large", "small", "any", ""), start=1):
            await two.submit(ContextId(f"{pid}:main"), model=model)
        assert [order.context for order in two.second.sent(c.Submit)] == ["1:main"]


async def test_a_model_is_not_replaced_by_another_one() -> None:
    async with pair() as two:
        two.second.hold()
        await two.submit(model="large")
        two.second.say(c.Refused(context=MAIN, epoch=1, code="E-BUSY", reason="too many"))
        refused = await two.until(c.Refused)
        assert isinstance(refused, c.Refused)
        assert refused.code == "E-BUSY"
        assert _places(two) == [0, 1]


async def test_a_call_waits_for_the_core_that_is_being_started_again() -> None:
    async with pair() as two:
        two.second.hold()
        await two.submit(model="large")
        two.second.let(2)
        while len(two.rows) < 2:
            await two.until(c.Stepped)
        two.second.lose(restarting=True)
        while not (two.members and not two.members[1].is_up):
            await two.until(c.Members)
        two.second.let(None)
        two.second.come_back()
        assert (await two.finished()).text == "hello"
        assert two.second.sent(c.Submit)[1].generated == (104, 101)
        assert [row.position for row in two.rows] == list(range(5))


async def test_a_call_whose_core_is_gone_for_good_is_refused_with_the_reason() -> None:
    async with pair() as two:
        two.second.hold()
        await two.submit(model="large")
        two.second.lose(restarting=False)
        refused = await two.until(c.Refused)
        assert isinstance(refused, c.Refused)
        assert (refused.code, refused.reason) == (
            "E-NO-CORE",
            "no core can go on with model 'large' (second: test)",
        )
        await two.submit(ContextId("2:main"), model="small")
        assert (await two.finished()).text == "hello"


async def test_a_call_that_waits_for_a_core_can_be_cancelled() -> None:
    async with pair() as two:
        two.second.hold()
        await two.submit(model="large")
        two.second.lose(restarting=True)
        while not (two.members and not two.members[1].is_up):
            await two.until(c.Members)
        await two.cores.send(c.Cancel(context=MAIN, epoch=1))
        assert (await two.finished()).finish == "cancelled"


async def test_who_is_up_how_busy_and_why_not_is_told() -> None:
    async with pair() as two:
        two.first.hold()
        await two.submit()
        two.second.lose(restarting=True)
        while not (two.members and not two.members[1].is_up):
            await two.until(c.Members)
        told = [(one.name, one.models, one.is_up, one.calls, one.reason) for one in two.members]
        assert told == [("first", ("small", "any"), True, 1, ""), ("second", ("large", "any"), False, 0, "test")]


async def test_a_busy_core_hands_on_and_the_reason_is_told() -> None:
    async with pair() as two:
        two.first.hold()
        await two.submit()
        two.first.say(c.Refused(context=MAIN, epoch=1, code="E-BUSY", reason="too many"))
        found = await two.finished()
        assert (found.text, found.recovery) == ("hello", None)
        [moved] = [message for message in two.said if isinstance(message, c.Switched)]
        assert (moved.direction, moved.reason) == ("moved", "fail-over from first to second: E-BUSY: too many")
        assert not [message for message in two.said if isinstance(message, c.Refused)]


async def test_a_refusal_that_no_core_can_better_is_passed_on() -> None:
    async with pair() as two:
        two.first.hold()
        await two.submit()
        two.first.say(c.Refused(context=MAIN, epoch=1, code="E-WRONG", reason="never"))
        await two.until(c.Refused)
        assert _places(two) == [1, 0]


async def test_when_all_are_busy_the_last_refusal_is_told_once() -> None:
    async with pair() as two:
        two.first.hold()
        two.second.hold()
        await two.submit()
        two.first.say(c.Refused(context=MAIN, epoch=1, code="E-BUSY", reason="one"))
        await two.until(c.Switched)
        two.second.say(c.Refused(context=MAIN, epoch=1, code="E-BUSY", reason="two"))
        refused = await two.until(c.Refused)
        assert isinstance(refused, c.Refused)
        assert refused.reason == "two"


async def test_a_lost_core_loses_no_row_and_is_not_told_while_another_is_up() -> None:
    async with pair() as two:
        two.first.hold()
        await two.submit()
        two.first.let(2)
        while len(two.rows) < 2:
            await two.until(c.Stepped)
        two.first.lose(restarting=True)
        found = await two.finished()
        assert (found.text, found.recovery) == ("hello", None)
        assert two.second.sent(c.Submit)[0].generated == (104, 101)
        assert [row.position for row in two.rows] == list(range(5))
        assert not [message for message in two.said if isinstance(message, c.Lost)]


async def test_another_model_begins_anew_and_what_was_said_is_void() -> None:
    async with pair() as two:
        two.first.hold()
        two.first.say(msgspec.structs.replace(READY, model_sha256="1" * 64))
        await anyio.wait_all_tasks_blocked()
        await two.submit()
        two.first.let(2)
        while len(two.rows) < 2:
            await two.until(c.Stepped)
        two.first.lose(restarting=True)
        found = await two.finished()
        assert (found.text, found.recovery) == ("hello", "restarted")
        assert [row.position for row in two.rows] == list(range(7))
        assert [row.since for row in two.rows] == [0] * 2 + [2] * 5


async def test_questions_to_a_lost_core_are_answered() -> None:
    async with pair() as two:
        two.first.hold()
        await two.submit()
        two.first.lose(restarting=True)
        await two.until(c.Switched)
        await two.finished()
        two.second.lose(restarting=True)
        await two.until(c.Lost)
        await two.cores.send(c.Describe(context=MAIN, epoch=1, ticket=9))
        described = await two.until(c.Described)
        assert isinstance(described, c.Described)
        assert (described.ticket, described.tier) == (9, "dropped")
        two.second.come_back()
        assert await two.until(c.Ready)


async def test_late_words_of_the_core_that_was_left_are_not_heard() -> None:
    async with pair() as two:
        two.first.hold()
        two.second.hold()
        await two.submit()
        two.first.say(c.Refused(context=MAIN, epoch=1, code="E-BUSY", reason="one"))
        await two.until(c.Switched)
        row = c.TokenRow(context=MAIN, epoch=1, position=0, token=65, text="A")
        two.first.say(c.Stepped(step=1, rows=(row,)))
        await anyio.wait_all_tasks_blocked()
        two.second.let(None)
        assert (await two.finished()).text == "hello"
        assert "".join(row.text for row in two.rows) == "hello"


class Broken(ScriptCore):
    async def start(self) -> c.Ready:
        raise EngineLost("no model")


async def test_one_core_that_starts_is_enough_and_none_is_an_error() -> None:
    cores = Cores({"a": Broken(), "b": ScriptCore()}, "first", BUSY)
    assert (await cores.start()).device == "a: down (no model), b: none"
    await cores.aclose()
    none = Cores({"a": Broken()}, "first", BUSY)
    with pytest.raises(EngineLost, match="no model"):
        await none.start()
    await none.aclose()
