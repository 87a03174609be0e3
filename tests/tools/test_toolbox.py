"""The laws of the toolbox: strict arguments, calls that do not wait for each other, failures that stay local."""

import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from aios.errors import ToolError, ToolRetry, ToolTimeout, UsageError
from aios.tools.context import DEPS, Ctx, ToolCallContext
from aios.tools.decorator import tool
from aios.tools.tool import Outcome, Tool
from aios.tools.toolbox import Toolbox

CALL = ToolCallContext(pid=7, call_id="c1", key="7:c1")
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Order(BaseModel):
    number: int
    gift: bool = False


@tool(effect="read")
def find(number: int, deep: bool = False, label: str | None = None) -> str:
    """Find an order."""
    return f"{number} {deep} {label}"


@tool
def pay(order: Order, amount: float) -> float:
    """Pay."""
    assert isinstance(order, Order)
    return amount


def run(backend: str, function: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(function, backend=backend)


def run_call(box: Toolbox, name: str, arguments: Any) -> Any:
    return anyio.run(box.run, name, arguments, CALL)


def test_defaults_are_filled_in_and_absent_optionals_stay_absent() -> None:
    assert Toolbox([find]).validate("find", {"number": 1}) == {"number": 1, "deep": False}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"number": "1"}, r"""argument 'number' is "1" \(string\), must be integer"""),
        ({"number": True}, "'number' is true"),
        ({"number": 1.0}, "'number' is 1.0"),
        ({"number": None}, "'number' is null"),
        ({}, "'number' is missing"),
        ({"number": 1, "wide": 2}, "'wide' unknown"),
        ({"number": 1, "deep": 1}, "'deep' is 1"),
        ({"number": math.nan}, "not JSON"),
        ({"number": {1}}, "not JSON"),
        ([1], "must be an object"),
        (None, "must be an object"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_found_and_what_is_allowed(arguments: Any, says: str) -> None:
    with pytest.raises(ToolRetry, match=says) as caught:
        Toolbox([find]).validate("find", arguments)
    assert caught.value.effect_certain


def test_nested_arguments_are_checked_and_arrive_as_the_annotated_types() -> None:
    box = Toolbox([pay])
    assert run_call(box, "pay", {"order": {"number": 3}, "amount": 2}) == 2
    with pytest.raises(ToolRetry, match=r"order\.number"):
        box.validate("pay", {"order": {"number": "3"}, "amount": 2})
    with pytest.raises(ToolRetry, match=r"order\.why"):
        box.validate("pay", {"order": {"number": 3, "why": 1}, "amount": 2})


def test_the_same_tool_again_is_ignored_and_another_of_its_name_refused() -> None:
    box = Toolbox([find])
    box.add(find)

    @tool(name="find")
    def other(x: int) -> int:
        return x

    with pytest.raises(UsageError, match="'find' is there already"):
        box.add(other)
    assert [spec.name for spec in box.specs()] == ["find"]


def test_an_unknown_tool_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no tool 'pay'; there are: find"):
        Toolbox([find]).spec("pay")


@BACKENDS
def test_tools_called_together_run_together(backend: str) -> None:
    """Six tools can only meet at the barrier when none waits for another to end."""
    barrier = threading.Barrier(6)

    def make(number: int) -> Any:
        def wait() -> int:
            return barrier.wait(timeout=30)

        return tool(name=f"wait{number}")(wait)

    box = Toolbox([make(number) for number in range(6)])

    async def main() -> list[int]:
        arrived: list[int] = []

        async def one(number: int) -> None:
            arrived.append(await box.run(f"wait{number}", {}, CALL))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(one, number)
        return arrived

    assert sorted(run(backend, main)) == list(range(6))


@BACKENDS
def test_no_more_calls_of_a_tool_run_than_its_concurrency(backend: str) -> None:
    async def main() -> None:
        most = 0

        @tool(concurrency=2)
        async def slow() -> None:
            nonlocal most
            most = max(most, box.statistics()["slow"].running)
            await anyio.lowlevel.checkpoint()

        box = Toolbox([slow])
        async with anyio.create_task_group() as group:
            for _ in range(9):
                group.start_soon(box.run, "slow", {}, CALL)
        assert most == 2
        assert box.statistics()["slow"].ok == 9

    run(backend, main)


@BACKENDS
def test_a_hung_function_times_out_is_abandoned_and_stays_callable(backend: str) -> None:
    release = threading.Event()

    @tool(timeout_s=0.05)
    def hang(really: bool) -> str:
        if really:
            release.wait(30)
        return "back"

    box = Toolbox([hang])

    async def main() -> None:
        with pytest.raises(ToolTimeout, match=r"'hang' did not end within 0\.05 s") as caught:
            await box.run("hang", {"really": True}, CALL)
        assert not caught.value.effect_certain
        assert await box.run("hang", {"really": False}, CALL) == "back"

    run(backend, main)
    release.set()
    counted = box.statistics()["hang"]
    assert (counted.calls, counted.timeouts, counted.ok, counted.running) == (2, 1, 1, 0)


@BACKENDS
def test_a_coroutine_that_hangs_times_out_too(backend: str) -> None:
    @tool(timeout_s=0.05)
    async def hang() -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        with pytest.raises(ToolTimeout):
            await Toolbox([hang]).run("hang", {}, CALL)

    run(backend, main)


@BACKENDS
def test_a_cancelled_call_ends_at_once_and_frees_its_place(backend: str) -> None:
    async def main() -> None:
        started = anyio.Event()

        @tool(concurrency=1)
        async def wait(long: bool) -> str:
            started.set()
            if long:
                await anyio.sleep_forever()
            return "done"

        box = Toolbox([wait])
        async with anyio.create_task_group() as group:
            group.start_soon(box.run, "wait", {"long": True}, CALL)
            await started.wait()
            group.cancel_scope.cancel()
        assert await box.run("wait", {"long": False}, CALL) == "done"
        counted = box.statistics()["wait"]
        assert (counted.cancelled, counted.ok, counted.running, counted.waiting) == (1, 1, 0, 0)

    run(backend, main)


def failing(effect: str, error: BaseException) -> Toolbox:
    def fail() -> None:
        raise error

    async def fail_in_loop() -> None:
        raise error

    return Toolbox([tool(effect=effect)(fail), tool(effect=effect)(fail_in_loop)])


@pytest.mark.parametrize("name", ["fail", "fail_in_loop"])
@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), TimeoutError(), RecursionError("deep")])
def test_an_exception_of_a_reading_tool_certainly_changed_nothing(name: str, error: BaseException) -> None:
    with pytest.raises(ToolError, match=type(error).__name__) as caught:
        run_call(failing("read", error), name, {})
    assert caught.value.effect_certain


@pytest.mark.parametrize("effect", ["idempotent", "compensable", "once"])
def test_an_exception_of_any_other_tool_leaves_its_effect_unknown(effect: str) -> None:
    with pytest.raises(ToolError) as caught:
        run_call(failing(effect, ValueError("no")), "fail", {})
    assert not caught.value.effect_certain


@pytest.mark.parametrize("error", [ToolError("card refused"), ToolRetry("say which card")])
def test_a_tool_may_vouch_that_nothing_happened(error: ToolError) -> None:
    with pytest.raises(ToolError) as caught:
        run_call(failing("once", error), "fail", {})
    assert caught.value is error
    assert caught.value.effect_certain


def test_a_failing_tool_stays_callable() -> None:
    @tool
    def divide(by: int) -> float:
        return 1 / by

    box = Toolbox([divide])
    with pytest.raises(ToolError, match="ZeroDivisionError"):
        run_call(box, "divide", {"by": 0})
    assert run_call(box, "divide", {"by": 2}) == 0.5


@dataclass
class Receipt:
    on: date
    lines: set[str]


def test_results_are_written_as_json() -> None:
    @tool
    def receipt() -> list[Any]:
        return [Receipt(date(2026, 1, 2), {"a"}), Order(number=1), None]

    written = run_call(Toolbox([receipt]), "receipt", {})
    assert written == [{"on": "2026-01-02", "lines": ["a"]}, {"number": 1, "gift": False}, None]


@pytest.mark.parametrize(
    "garbage", [object(), math.inf, b"\xff", "\ud800", {"deep": [threading.Lock()]}, {1: math.nan}]
)
def test_a_result_that_json_cannot_hold_is_an_error_that_names_it(garbage: Any) -> None:
    @tool
    def give() -> Any:
        return garbage

    with pytest.raises(ToolError, match="ran and returned") as caught:
        run_call(Toolbox([give]), "give", {})
    assert not caught.value.effect_certain


@BACKENDS
@pytest.mark.parametrize("name", ["blocking", "waiting"])
def test_a_tool_sees_who_called_and_the_dependencies_of_the_run(backend: str, name: str) -> None:
    @tool
    def blocking(ctx: Ctx[dict[str, int]], x: int) -> list[Any]:
        return [ctx.deps["a"], ctx.pid, ctx.call_id, ctx.key, x]

    @tool
    async def waiting(x: int, ctx: Ctx[dict[str, int]]) -> list[Any]:
        return [ctx.deps["a"], ctx.pid, ctx.call_id, ctx.key, x]

    async def main() -> Any:
        DEPS.set({"a": 1})
        return await Toolbox([blocking, waiting]).run(name, {"x": 5}, CALL)

    assert run(backend, main) == [1, 7, "c1", "7:c1", 5]


def test_status_is_asked_by_key_and_unknown_without_a_status_function() -> None:
    async def told(key: str) -> Outcome:
        return Outcome("done", {"key": key})

    def blocking(key: str) -> Outcome:
        return Outcome("absent")

    def broken(key: str) -> Outcome:
        raise OSError("down")

    def body() -> None: ...

    box = Toolbox(
        [
            tool(name="told", status=told)(body),
            tool(name="blocking", status=blocking)(body),
            tool(name="broken", status=broken)(body),
            tool(name="silent")(body),
            tool(name="wrong", status=lambda key: "done")(body),  # type: ignore[arg-type, return-value]  # the mistake
        ]
    )
    assert anyio.run(box.status, "told", "k") == Outcome("done", {"key": "k"})
    assert anyio.run(box.status, "blocking", "k") == Outcome("absent")
    assert anyio.run(box.status, "silent", "k").state == "unknown"
    assert anyio.run(box.status, "broken", "k") == Outcome("unknown", "its status function failed: OSError: down")
    assert anyio.run(box.status, "wrong", "k").state == "unknown"


@BACKENDS
def test_a_tool_that_raises_a_cancellation_of_its_own_fails_and_ends_nobody_else(backend: str) -> None:
    @tool
    async def confused() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error
        raise cancelled

    async def main() -> str:
        with pytest.raises(ToolError, match="cancelled from inside") as caught:
            await Toolbox([confused]).run("confused", {}, CALL)
        assert not caught.value.effect_certain
        return "goes on"

    assert run(backend, main) == "goes on"


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_schema_is_never_fetched_from_elsewhere(scheme: str, tmp_path: Path) -> None:
    asked: list[str] = []

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "order.json").write_text("{}")
        where = tmp_path.as_uri() if scheme == "file" else f"http://127.0.0.1:{server.server_port}"
        foreign = Tool(find.spec.model_copy(update={"parameters": {"$ref": f"{where}/order.json"}}), find.invoke)
        with pytest.raises(UsageError, match=r"order\.json.*\$defs"):
            Toolbox([foreign])
        server.shutdown()
    assert asked == []
