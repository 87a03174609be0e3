"""Tool calls in a whole kernel: access, quotas, approvals, the gate, effects, batches."""

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from aios.abi import core as c
from aios.abi.chat import Message, ToolCall
from aios.abi.events import ApprovalDecided, GateJudged, TokenMasked, ToolFinished, ToolStarted
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, ProcessState, Quota, Signal
from aios.abi.syscalls import (
    CapDerive,
    CapGrant,
    CapRevoke,
    HumanApprove,
    HumanAsk,
    HumanPending,
    LlmGenerate,
    MemGet,
    ProcExit,
    ProcList,
    ProcSignal,
    ProcSpawn,
    ToolCallBatch,
    ToolList,
)
from aios.abi.tools import Effect
from aios.errors import RuleError, ToolError, ToolTimeout
from aios.formats.canonical import call_digest
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from tests.kernel.world import MAY_SPAWN, World, ask, done, failed, refused, until

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))
ALL_TOOLS = (CapSpec(resource="tool:*"),)
paid: list[float] = []


@tool
async def pay(amount: float, to: str = "bank") -> float:
    """Pay."""
    paid.append(amount)
    return amount


@tool(effect=Effect.READ)
async def quote() -> int:
    """Quote a price."""
    return 5


@tool
async def fail() -> None:
    """Fail for sure."""
    raise ToolError("no such account")


@tool
async def late() -> None:
    """Time out."""
    raise ToolTimeout("too late")


@tool(approve=True)
async def launch(code: int) -> str:
    """Launch."""
    return f"launched {code}"


TOOLS = (pay, quote, fail, late, launch)


@pytest.fixture(autouse=True)
def nothing_paid() -> None:
    paid.clear()


def rules(folder: Path, text: str) -> dict[str, Any]:
    (folder / "test.rules").write_text(text)
    return {"rules": (folder / "test.rules",)}


async def root_of(kernel: Kernel, name: str = "a", caps: tuple[CapSpec, ...] = ALL_TOOLS, **fields: Any) -> Door:
    for one in TOOLS:
        kernel.add_tool(one)
    return await kernel.root(name, caps=(*caps, *MAY_SPAWN), **fields)


async def call(door: Door, name: str, id: str = "", **arguments: Any) -> dict[str, Any]:
    [report] = await done(door, ToolCallBatch(calls=(ToolCall(id="c", name=name, arguments=arguments),)), id)
    assert isinstance(report, dict)
    return report


# --- access ----------------------------------------------------------------------------------------------------


async def test_without_a_capability_nothing_runs() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:quote"),))
        report = await call(root, "pay", amount=1)
        assert (report["status"], report["code"], paid) == ("denied", "E-ACCESS", [])
        assert (await call(root, "quote"))["status"] == "ok"
        assert [spec["name"] for spec in await done(root, ToolList())] == ["quote"]


async def test_a_capability_limits_arguments_count_and_spend() -> None:
    async with World().kernel() as kernel:
        spec = CapSpec(resource="tool:pay", where={"to": ["bank"]}, count=3, spend=10, spend_argument="amount")
        root = await root_of(kernel, caps=(spec,))
        assert (await call(root, "pay", amount=1, to="shop"))["code"] == "E-ACCESS"
        assert (await call(root, "pay", amount=6))["status"] == "ok"
        assert (await call(root, "pay", amount=6))["code"] == "E-ACCESS"
        assert (await call(root, "pay", amount=4))["status"] == "ok"
        assert (await call(root, "pay", amount=0))["status"] == "ok"
        assert (await call(root, "pay", amount=0))["code"] == "E-ACCESS"
        assert paid == [6, 4, 0]


async def test_calls_at_once_do_not_pass_a_count() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:pay", count=2),))
        calls = tuple(ToolCall(id=str(n), name="pay", arguments={"amount": n}) for n in range(5))
        reports = await done(root, ToolCallBatch(calls=calls))
        assert [report["status"] for report in reports] == ["ok", "ok", "denied", "denied", "denied"]


async def test_a_failed_call_gives_its_count_back_and_a_lost_one_does_not() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:*", count=1),))
        assert (await call(root, "fail"))["status"] == "error"
        assert (await call(root, "late"))["status"] == "lost"
        assert (await call(root, "quote"))["code"] == "E-ACCESS"


async def test_a_childs_use_counts_against_what_its_right_derives_from() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:*", count=2),))
        child = kernel.child((await done(root, ProcSpawn(name="child")))["pid"])
        assert (await call(child, "quote"))["status"] == "ok"
        assert (await call(root, "quote"))["status"] == "ok"
        assert (await call(child, "quote"))["code"] == "E-ACCESS"


async def test_children_get_no_more_than_their_parent_has() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:quote"),))
        wider = ProcSpawn(name="child", caps=ALL_TOOLS)
        assert (await refused(root, wider)).code == "E-ACCESS"
        assert (await refused(root, ProcSpawn(name="x", nice=-1))).code == "E-ACCESS"
        assert (await done(kernel.operator(), wider))["pid"] > 0


async def test_revoking_withdraws_a_subtree_in_one_step() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        child = kernel.child((await done(root, ProcSpawn(name="child")))["pid"])
        grandchild = kernel.child((await done(child, ProcSpawn(name="child")))["pid"])
        assert await done(kernel.operator(), CapRevoke(cap=1)) == 3
        for door in (root, child, grandchild):
            assert (await call(door, "quote"))["code"] == "E-ACCESS"


async def test_what_is_derived_while_its_source_is_revoked_is_worth_nothing() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        async with anyio.create_task_group() as group:
            group.start_soon(done, kernel.operator(), CapRevoke(cap=1))
            group.start_soon(root.call, ask(CapDerive(cap=1, spec=CapSpec(resource="tool:pay"))))
        assert (await call(root, "pay", amount=1))["code"] == "E-ACCESS"
        assert paid == []


async def test_a_right_withdrawn_while_a_person_decides_is_not_used() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await until(lambda: bool(kernel.parts.state.approvals))
            await done(kernel.operator(), CapRevoke(cap=1))
            await done(kernel.operator(), HumanApprove(approval=1, allow=True))
        assert (reports[0]["status"], reports[0]["code"]) == ("denied", "E-ACCESS")


async def test_an_approved_call_still_fits_a_right_to_one_call() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:launch", count=1),))
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await until(lambda: bool(kernel.parts.state.approvals))
            await done(kernel.operator(), HumanApprove(approval=1, allow=True))
        assert reports[0]["status"] == "ok"
        assert (await call(root, "launch", code=8))["code"] == "E-ACCESS"


async def test_granting_goes_down_the_tree_and_the_operator_grants_anything() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, caps=())
        other = await kernel.root("b", caps=MAY_SPAWN)
        grant = CapGrant(pid=root.pid, spec=CapSpec(resource="tool:quote"))
        assert (await refused(other, grant)).code == "E-ACCESS"
        assert (await refused(root, grant)).code == "E-ACCESS"
        await done(kernel.operator(), grant)
        assert (await call(root, "quote"))["status"] == "ok"


async def test_operator_verbs_are_refused_for_processes() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        assert (await refused(root, HumanApprove(approval=1, allow=True))).code == "E-ACCESS"


# --- validation and quotas -------------------------------------------------------------------------------------


async def test_wrong_arguments_and_unknown_tools_are_reported_and_charge_nothing() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, quota=Quota(tool_calls=1))
        assert (await call(root, "pay", amount="much"))["code"] == "E-TOOL-RETRY"
        unknown = await call(root, "rob")
        assert unknown["status"] == "error"
        assert "'quote'" in unknown["reason"]
        assert (await call(root, "quote"))["status"] == "ok"
        denied = await call(root, "quote")
        assert (denied["status"], denied["code"]) == ("denied", "E-QUOTA")
        assert "tool_calls" in denied["reason"]


async def test_a_childs_calls_count_against_its_parents_quota() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel, quota=Quota(tool_calls=1))
        child = kernel.child((await done(root, ProcSpawn(name="child")))["pid"])
        assert (await call(child, "quote"))["status"] == "ok"
        report = await call(root, "quote")
        assert report["code"] == "E-QUOTA"
        assert "pid 1 (a)" in report["reason"]


async def test_every_call_of_a_batch_reports_and_one_does_not_hold_up_another() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        calls = (
            ToolCall(id="1", name="fail"),
            ToolCall(id="2", name="late"),
            ToolCall(id="3", name="pay", arguments={"amount": 1}),
            ToolCall(id="4", name="nothing"),
        )
        reports = await done(root, ToolCallBatch(calls=calls))
        assert [(one["id"], one["status"]) for one in reports] == [
            ("1", "error"),
            ("2", "lost"),
            ("3", "ok"),
            ("4", "error"),
        ]
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, ToolStarted | ToolFinished))
        assert len(told) == 6


# --- the guard -------------------------------------------------------------------------------------------------


async def test_a_denied_call_does_not_run_and_says_why(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "quote before pay\n")).kernel() as kernel:
        root = await root_of(kernel)
        report = await call(root, "pay", amount=1)
        assert (report["status"], report["code"], report["rules"]) == ("denied", "E-GUARD-DENIED", ["quote before pay"])
        assert report["reason"] == "pid 1 (a): tool 'pay' denied by rule 'quote before pay': no ok quote"
        await call(root, "quote")
        assert (await call(root, "pay", amount=1))["status"] == "ok"
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, GateJudged))
        assert [event.verdict for event in told if isinstance(event, GateJudged)] == ["deny", "allow", "allow"]


async def test_no_interleaving_of_processes_passes_a_shared_limit(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "at most 3 pay\n")).kernel() as kernel:
        doors = [await root_of(kernel, f"p{number}") for number in range(8)]
        statuses: list[str] = []

        async def one(door: Door) -> None:
            statuses.append((await call(door, "pay", amount=1))["status"])

        async with anyio.create_task_group() as group:
            for door in doors:
                group.start_soon(one, door)
        assert sorted(statuses) == ["denied"] * 5 + ["ok"] * 3


async def test_a_call_that_failed_for_certain_releases_its_charge(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "at most 1 fail\n")).kernel() as kernel:
        root = await root_of(kernel)
        assert [(await call(root, "fail"))["status"] for _ in range(3)] == ["error"] * 3


async def test_a_start_that_could_not_be_journalled_is_taken_back(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "at most 1 pay\n"))
    async with world.kernel() as kernel:
        root = await root_of(kernel, caps=(CapSpec(resource="tool:pay", count=1),))
        world.journal.room = 0
        batch = ToolCallBatch(calls=(ToolCall(id="c", name="pay", arguments={"amount": 1}),))
        assert (await failed(root, batch, "one")).code == "E-STORE-FULL"
        assert paid == []
        world.journal.room = None
        assert (await call(root, "pay", "one", amount=1))["status"] == "ok"


async def test_a_result_that_met_a_full_store_is_kept_and_the_tool_does_not_run_again() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        world.journal.room = 1  # the intent fits, the result does not
        batch = ToolCallBatch(calls=(ToolCall(id="c", name="pay", arguments={"amount": 1}),))
        assert (await failed(root, batch, "one")).code == "E-STORE-FULL"
        world.journal.room = None
        assert (await call(root, "pay", "one", amount=1))["status"] == "ok"
        assert paid == [1]
        assert not kernel.parts.unwritten


async def test_rules_of_a_subtree_bind_it_and_nobody_else(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "never late\n")).kernel() as kernel:
        root = await root_of(kernel)
        child = kernel.child((await done(root, ProcSpawn(name="child", rules="never pay")))["pid"])
        grandchild = kernel.child((await done(child, ProcSpawn(name="child")))["pid"])
        for door in (child, grandchild):
            assert (await call(door, "pay", amount=1))["rules"] == ["never pay"]
            assert (await call(door, "late"))["rules"] == ["never late"]
        assert (await call(root, "pay", amount=1))["status"] == "ok"
        assert (await failed(root, ProcSpawn(name="x", rules="what?"))).code == "E-RULE"
        await done(kernel.operator(), ProcSignal(pid=child.pid, signal=Signal.KILL))
        assert len(kernel.parts.guardian.digests) == 1


async def test_a_rule_counts_what_happened_before_its_gate_was_made(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "at most 1 pay\n")).kernel() as kernel:
        root = await root_of(kernel)
        await call(root, "pay", amount=1)
        child = kernel.child((await done(root, ProcSpawn(name="child", rules="never late")))["pid"])
        assert (await call(child, "pay", amount=1))["status"] == "denied"


async def test_finish_is_judged_and_a_failing_program_ends_anyhow(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "quote before finish\n")).kernel() as kernel:
        root, other = await root_of(kernel), await kernel.root("b", caps=MAY_SPAWN)
        assert (await refused(root, ProcExit())).code == "E-GUARD-DENIED"
        await call(root, "quote")
        await done(root, ProcExit())
        await done(other, ProcExit(code=1))


async def test_an_exit_that_met_a_full_store_is_repeated_without_being_judged_twice(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "quote before finish\n"))
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        await call(root, "quote")
        world.journal.room = 0
        assert (await failed(root, ProcExit(), "exit")).code == "E-STORE-FULL"
        world.journal.room = None
        await done(root, ProcExit(), "exit")
        assert [event.kind for event in kernel.parts.state.trace] == ["start", "ok", "finish"]
        assert not kernel.parts.finished


async def test_what_the_model_says_is_judged(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "never hello\n"))
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        reply = await refused(root, HELLO)
        assert (reply.code, reply.timing.tokens_out) == ("E-GUARD-DENIED", 5)
        assert kernel.parts.state.processes[root.pid].usage.tokens_out == 5


async def test_user_messages_enter_the_trace_once(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "never x\n")).kernel() as kernel:
        root = await root_of(kernel)
        first = (Message(role="user", content="hi"),)
        more = (*first, Message(role="assistant", content="hello"), Message(role="user", content="hi"))
        for messages in (first, more):
            await done(root, LlmGenerate(messages=messages))
        kinds = [event.kind for event in kernel.parts.state.trace]
        assert kinds == ["user", "assistant", "user", "assistant"]


async def test_a_generation_is_steered_by_what_happens_while_it_runs(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "quote before pay\n"))
    world.core.hold()
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO)
            await until(lambda: bool(world.core.sent(c.Submit)))
            [submit] = world.core.sent(c.Submit)
            assert submit.mask is not None
            await call(root, "quote")
            await until(lambda: bool(world.core.sent(c.Steer)))
            world.core.let(None)
        steered = world.core.sent(c.Steer)[-1].mask
        assert steered.residuals == {"done": ["quote"]}
        assert steered.version > submit.mask.version


async def test_a_core_that_cannot_mask_is_told_in_words_why_its_calls_are_refused(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "quote before pay\n"))
    world.core.hold()
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        assert kernel.parts.book.ready is not None
        kernel.parts.book.ready = msgspec.structs.replace(kernel.parts.book.ready, token_mask=False)
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO)
            await until(lambda: bool(world.core.sent(c.Submit)))
            [submit] = world.core.sent(c.Submit)
            calls = (ToolCall(id="a", name="pay", arguments={"amount": 1}), ToolCall(id="b", name="quote"))
            world.core.say(c.Called(context=submit.context, epoch=submit.epoch, calls=calls))
            await until(lambda: bool(world.core.sent(c.Steer)))
            world.core.let(None)
        [steer] = world.core.sent(c.Steer)
        assert steer.mask.hints.keys() == {"pay"}
        assert "cannot be called so now by rule 'quote before pay': no ok quote" in steer.mask.hints["pay"]
        assert steer.mask.calls == 0


async def test_a_completed_call_is_answered_with_residuals_that_count_it_as_started(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "quote before pay\n"))
    world.core.hold()
    quote = ToolCall(id="call_0", name="quote")
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO)
            await until(lambda: bool(world.core.sent(c.Submit)))
            [submit] = world.core.sent(c.Submit)
            world.core.say(c.Called(context=submit.context, epoch=submit.epoch - 1, calls=(quote,)))
            world.core.say(c.Called(context=submit.context, epoch=submit.epoch, calls=(quote,)))
            await until(lambda: bool(world.core.sent(c.Steer)))
            await call(root, "quote")  # what happens beside it is told with its calls still counted
            await until(lambda: len(world.core.sent(c.Steer)) > 1)
            world.core.let(None)
        first, *_, last = [steer.mask for steer in world.core.sent(c.Steer)]
        assert (first.calls, first.residuals) == (1, {"done": [], "begun": ["quote"]})
        assert (last.calls, last.residuals) == (1, {"done": ["quote"], "begun": ["quote"]})


async def test_a_call_made_under_an_older_mask_is_judged_again_and_marked(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "quote before pay\n")).kernel() as kernel:
        root = await root_of(kernel)
        version = (await done(root, HELLO))["mask_version"]
        await call(root, "quote")
        pays = ToolCall(id="c", name="pay", arguments={"amount": 1})
        await done(root, ToolCallBatch(calls=(pays,), mask_version=version))
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, GateJudged))
        assert [event.stale_mask for event in told if isinstance(event, GateJudged)] == [False, True]


async def test_masked_tokens_are_told() -> None:
    world = World()
    world.core.masked[1] = c.Masked(token=7, token_text="x", rule="r", taken_text="e", version=3)
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        await done(root, HELLO)
        [told] = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, TokenMasked))
        assert isinstance(told, TokenMasked)
        assert (told.position, told.token, told.taken, told.rule) == (1, 7, ord("e"), "r")


async def test_a_wrong_rule_file_keeps_the_kernel_from_starting(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"test\.rules:1"):
        async with World(settings=rules(tmp_path, "nonsense\n")).kernel():
            pass


# --- approvals -------------------------------------------------------------------------------------------------


async def asked_for(kernel: Kernel) -> dict[str, Any]:
    await until(lambda: bool(kernel.parts.state.approvals))
    [asked] = await done(kernel.operator(), HumanPending())
    assert isinstance(asked, dict)
    return asked


async def test_a_tool_that_needs_approval_waits_for_a_decision_on_exactly_this_call(tmp_path: Path) -> None:
    async with World(settings=rules(tmp_path, "launch before pay\n")).kernel() as kernel:
        root = await root_of(kernel)
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            asked = await asked_for(kernel)
            assert (asked["tool"], asked["arguments"]) == ("launch", {"code": 7})
            assert asked["digest"] == call_digest("launch", {"code": 7})
            [row] = await done(kernel.operator(), ProcList())
            assert (row["state"], row["reason"]) == (ProcessState.BLOCKED, "approval 1")
            wrong = HumanApprove(approval=1, allow=True, digest=call_digest("launch", {"code": 8}))
            assert (await refused(kernel.operator(), wrong)).code == "E-DIGEST"
            await done(kernel.operator(), HumanApprove(approval=1, allow=True, digest=asked["digest"]))
        assert (reports[0]["status"], reports[0]["result"]) == ("ok", "launched 7")
        assert [event.kind for event in kernel.parts.state.trace] == ["confirm", "start", "ok"]


async def test_an_approval_does_not_start_what_is_stopped() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await asked_for(kernel)
            await done(kernel.operator(), ProcSignal(pid=1, signal=Signal.STOP))
            await done(kernel.operator(), HumanApprove(approval=1, allow=True))
            await anyio.wait_all_tasks_blocked()
            assert reports == []
            await done(kernel.operator(), ProcSignal(pid=1, signal=Signal.CONT))
        assert reports[0]["status"] == "ok"


async def test_a_denied_call_does_not_run() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await asked_for(kernel)
            await done(kernel.operator(), HumanApprove(approval=1, allow=False, answer="not today"))
        assert (reports[0]["status"], reports[0]["code"]) == ("denied", "E-NOT-APPROVED")
        assert "not today" in reports[0]["reason"]


async def test_an_approval_that_nobody_decides_expires() -> None:
    async with World(settings={"approval_timeout_s": 0.02}).kernel() as kernel:
        root = await root_of(kernel)
        assert (await call(root, "launch", code=7))["code"] == "E-NOT-APPROVED"
        assert (await failed(kernel.operator(), HumanApprove(approval=1, allow=True))).code == "E-NO-APPROVAL"


async def test_approval_of_one_call_does_not_hold_up_the_others_of_its_batch() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        calls = (
            ToolCall(id="1", name="launch", arguments={"code": 1}),
            ToolCall(id="2", name="pay", arguments={"amount": 1}),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, ToolCallBatch(calls=calls))
            await asked_for(kernel)
            await until(lambda: paid == [1])
            await done(kernel.operator(), HumanApprove(approval=1, allow=True))


async def test_a_question_is_answered_and_withdrawn_when_its_process_dies() -> None:
    async with World().kernel() as kernel:
        root = await root_of(kernel)
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HumanAsk(question="sure?"))
            asked = await asked_for(kernel)
            assert (asked["kind"], asked["question"]) == ("question", "sure?")
            await done(kernel.operator(), HumanApprove(approval=1, allow=True, answer="yes"))
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(HumanAsk(question="really?")))
            await asked_for(kernel)
            await done(kernel.operator(), ProcSignal(pid=root.pid, signal=Signal.KILL))
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, ApprovalDecided))
        assert [event.state for event in told if isinstance(event, ApprovalDecided)] == ["allowed", "withdrawn"]
        assert not kernel.parts.state.approvals


async def test_an_approval_that_could_not_be_journalled_does_not_count(tmp_path: Path) -> None:
    world = World(settings=rules(tmp_path, "launch before pay\n"))
    async with world.kernel() as kernel:
        root = await root_of(kernel)
        async with anyio.create_task_group() as group:
            group.start_soon(
                root.call, ask(ToolCallBatch(calls=(ToolCall(id="c", name="launch", arguments={"code": 1}),)))
            )
            await asked_for(kernel)
            world.journal.room = 0
            assert (await failed(kernel.operator(), HumanApprove(approval=1, allow=True))).code == "E-STORE-FULL"
            world.journal.room = None
            [asked] = await done(kernel.operator(), HumanPending())
            assert asked["state"] == "waiting"
            await done(kernel.operator(), ProcSignal(pid=root.pid, signal=Signal.KILL))


# --- tokens quota ----------------------------------------------------------------------------------------------


async def test_a_generation_is_leased_what_is_left_and_never_more() -> None:
    world = World()
    world.core.text_of = lambda order: "x" * 100
    async with world.kernel() as kernel:
        root = await root_of(kernel, quota=Quota(tokens=30))
        world.core.hold()
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO, "one")
            while "one" not in kernel.parts.state.processes[root.pid].replies:
                await anyio.wait_all_tasks_blocked()  # a step takes longer than a message
                world.core.let(1)
        first = await done(root, HELLO, "one")
        assert first["finish"] == "length"
        assert 28 <= len(first["tokens"]) <= 29  # the prompt's 2 are known after the lease: one step over
        assert kernel.parts.state.processes[root.pid].tree_tokens == len(first["tokens"]) + 2
        reply = await refused(root, HELLO)
        assert (reply.code, reply.details["line"], reply.details["owner"]) == ("E-QUOTA", "tokens", root.pid)
        await done(root, MemGet(key="k"))


async def test_a_prompt_that_is_over_the_quota_is_denied_and_generates_nothing() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await root_of(kernel, quota=Quota(tokens=10))
        long = LlmGenerate(messages=(Message(role="user", content="x" * 50),))
        world.core.hold()
        assert (await refused(root, long, "one")).code == "E-QUOTA"
        assert (await refused(root, long, "one")).code == "E-QUOTA"
        await until(lambda: bool(world.core.sent(c.Cancel)))
        world.core.let(None)
        assert (await done(root, HELLO))["text"] == "hello"
        assert kernel.parts.quotas.room(root.pid, "tokens").amount == 3


async def test_siblings_share_their_parents_line() -> None:
    world = World()
    world.core.text_of = lambda order: "x" * 100
    async with world.kernel() as kernel:
        root = await root_of(kernel, quota=Quota(tokens=60))
        children = [kernel.child((await done(root, ProcSpawn(name=name)))["pid"]) for name in "bcd"]
        async with anyio.create_task_group() as group:
            for child in children:
                group.start_soon(child.call, ask(HELLO))
        assert 60 - 3 <= kernel.parts.state.processes[root.pid].tree_tokens <= 60 + 3
