"""The loop of an agent: tools until an answer, typed answers, refusals that the model hears."""

from typing import Any

import anyio
import pytest
from llguidance import LLMatcher
from pydantic import BaseModel, field_validator

from aios.abi.chat import Generation, Message, Sampling, ToolCall
from aios.abi.process import Signal
from aios.abi.syscalls import LlmGenerate, ToolCallBatch
from aios.abi.tools import ToolReport
from aios.agents.agent import Agent
from aios.agents.connection import set_connector
from aios.agents.program import run_sync
from aios.agents.steps import Finished, TextDelta, ToolFinished, ToolStarted
from aios.errors import AgentError, ToolRetry, UsageError
from aios.formats.refusals import NO_CALL
from aios.tools.decorator import tool
from tests.agents.small_kernel import Model, SmallKernel, call, say, script


@tool(effect="read")
def find(number: int) -> dict[str, int]:
    """Find."""
    return {"found": number + 1}


@tool
def pay(amount: float) -> str:
    """Pay."""
    if amount < 0:
        raise ToolRetry("amount must be positive")
    raise OSError("line broke")


class Triage(BaseModel):
    order: int
    why: str

    @field_validator("order")
    @classmethod
    def known(cls, order: int) -> int:
        if order == 0:
            raise ValueError("order 0 does not exist")
        return order


def make_kernel(model: Model) -> SmallKernel:
    kernel = SmallKernel(model)
    set_connector(kernel.connector)
    return kernel


def generations(kernel: SmallKernel, pid: int = 1) -> list[LlmGenerate]:
    return [
        request.call for owner, request in kernel.requests if owner == pid and isinstance(request.call, LlmGenerate)
    ]


def use(name: str, **arguments: Any) -> Generation:
    return call(ToolCall(id="c1", name=name, arguments=arguments))


def test_an_agent_without_tools_answers_in_one_turn() -> None:
    kernel = make_kernel(script(say("hello")))
    result = Agent("greeter", "Be kind.", sampling=Sampling(max_tokens=7)).run_sync("hi")
    assert result.output == "hello"
    assert [message.role for message in result.messages] == ["system", "user", "assistant"]
    [request] = generations(kernel)
    assert (request.sampling.max_tokens, request.tools, request.tool_choice) == (7, (), "none")
    assert (kernel.rows[1].name, kernel.rows[1].caps) == ("greeter", ())


def test_calls_run_and_their_results_go_back_to_the_model() -> None:
    kernel = make_kernel(script(use("find", number=1), say("it is 2")))
    result = Agent("finder", tools=[find]).run_sync("where?")
    assert result.output == "it is 2"
    tool_message = result.messages[2]
    assert (tool_message.role, tool_message.content, tool_message.tool_call_id) == ("tool", '{"found":2}', "c1")
    assert [cap.resource for cap in kernel.rows[1].caps] == ["tool:find"]


def test_every_call_of_a_turn_goes_in_one_batch() -> None:
    calls = [ToolCall(id=f"c{n}", name="find", arguments={"number": n}) for n in range(3)]
    kernel = make_kernel(script(call(*calls), say("done")))
    Agent("finder", tools=[find]).run_sync("where?")
    batches = [request.call for _, request in kernel.requests if isinstance(request.call, ToolCallBatch)]
    assert [len(batch.calls) for batch in batches] == [3]


def failing_call(name: str, **arguments: Any) -> str:
    make_kernel(script(use(name, **arguments), say("sorry")))
    result = Agent("payer", tools=[pay, "gone"]).run_sync("pay")
    return result.messages[2].content


def test_the_model_hears_why_a_call_did_not_work() -> None:
    assert failing_call("pay", amount=-1) == '{"error":"amount must be positive"}'
    assert failing_call("pay", amount=1) == '{"lost":"tool \'pay\' failed: OSError: line broke"}'
    assert "argument 'amount' is missing" in failing_call("pay")


def test_a_denial_goes_to_the_model_with_its_reason_and_plan() -> None:
    make_kernel(script(use("secret"), say("sorry")))
    result = Agent("spy", tools=[find]).run_sync("go")
    assert result.messages[2].content == '{"allowed_after":["find"],"denied":"no capability"}'


def test_a_typed_answer_is_asked_for_in_its_own_grammar() -> None:
    kernel = make_kernel(script(say('{"order": 3, "why": "late"}')))
    result = Agent("triage", output=Triage).run_sync("help")
    assert result.output == Triage(order=3, why="late")
    [request] = generations(kernel)
    assert request.output_schema is not None
    grammar = LLMatcher.grammar_from_json_schema(request.output_schema)
    assert LLMatcher.validate_grammar(grammar) == ""
    assert kernel.rows[1].exit is not None
    assert kernel.rows[1].exit.value == {"order": 3, "why": "late"}


def test_tools_come_first_and_the_typed_answer_after_the_last_call() -> None:
    kernel = make_kernel(script(use("find", number=1), say("ready"), say('{"order":2,"why":"x"}')))
    result = Agent("triage", tools=[find], output=Triage).run_sync("help")
    assert result.output.order == 2
    assert [request.output_schema is not None for request in generations(kernel)] == [False, False, True]
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


def test_an_answer_that_does_not_validate_goes_back_with_what_to_mend() -> None:
    make_kernel(script(say('{"order": 0, "why": "x"}'), say('{"order": 1, "why": "x"}')))
    result = Agent("triage", output=Triage).run_sync("help")
    assert result.output.order == 1
    assert "order 0 does not exist" in result.messages[2].content


def test_an_answer_cut_short_is_no_answer() -> None:
    make_kernel(script(Generation(text='{"order": 1', finish="length")))
    with pytest.raises(AgentError, match="no answer in 2 turns"):
        Agent("triage", output=Triage, max_turns=2).run_sync("help")


def test_simple_types_are_answers_too() -> None:
    make_kernel(script(say("[1, 2]")))
    assert Agent("lister", output=list[int]).run_sync("list").output == [1, 2]


def test_turns_are_bounded() -> None:
    kernel = make_kernel(script(use("find", number=1)))
    with pytest.raises(AgentError, match="'finder' \\(pid 1\\) found no answer in 3 turns"):
        Agent("finder", tools=[find], max_turns=3).run_sync("where?")
    assert len(generations(kernel)) == 3
    assert kernel.rows[1].exit is not None
    assert kernel.rows[1].exit.code == 1


def test_a_forced_choice_holds_for_the_first_call_only() -> None:
    kernel = make_kernel(script(use("find", number=1), say("done")))
    Agent("finder", tools=[find], tool_choice="required").run_sync("where?")
    assert [request.tool_choice for request in generations(kernel)] == ["required", "auto"]


def test_when_no_call_is_allowed_the_model_is_told_and_answers_without_one() -> None:
    kernel = make_kernel(script(Generation(text="", finish="no_compliant_call"), say("then not")))
    result = Agent("finder", tools=[find], tool_choice="required").run_sync("where?")
    assert result.output == "then not"
    assert result.messages[1].content == NO_CALL
    assert [request.tool_choice for request in generations(kernel)] == ["required", "none"]


def test_what_would_come_first_reaches_the_model_and_it_may_call_again() -> None:
    why = ToolReport(
        id="",
        name="pay",
        status="denied",
        reason="tool 'pay' cannot be called now; first: find({})",
        plan=({"tool": "find", "args": {}},),
    )
    closed = Generation(text="", finish="no_compliant_call", refused=(why,))
    kernel = make_kernel(script(closed, use("find", number=1), say("found")))
    result = Agent("finder", tools=[find], tool_choice="required").run_sync("where?")
    assert result.output == "found"
    assert "first: find" in result.messages[1].content
    assert [request.tool_choice for request in generations(kernel)] == ["required", "auto", "auto"]


def test_advice_that_never_helps_ends() -> None:
    why = ToolReport(id="", name="pay", status="denied", reason="closed", plan=({"tool": "find", "args": {}},))
    kernel = make_kernel(
        script(*[Generation(text="", finish="no_compliant_call", refused=(why,))] * 4, say("then not"))
    )
    assert Agent("finder", tools=[find], max_turns=9).run_sync("where?").output == "then not"
    assert generations(kernel)[-1].tool_choice == "none"


def test_an_agent_that_may_not_finish_yet_hears_why_and_goes_on() -> None:
    kernel = make_kernel(script(say("done"), say("now done")))
    kernel.deny_exit = ["the receipt is open"]
    result = Agent("payer").run_sync("pay")
    assert result.output == "now done"
    assert "the receipt is open" in result.messages[2].content


def test_an_agent_asked_to_end_ends_between_turns() -> None:
    kernel = make_kernel(script(say("unused")))

    def model(_request: LlmGenerate) -> Generation:
        kernel.rows[1].deliver(Signal.TERM)
        return use("find", number=1)

    kernel.model = model
    with pytest.raises(AgentError, match="asked to end"):
        Agent("finder", tools=[find]).run_sync("where?")
    assert len(generations(kernel)) == 1


def test_history_goes_on_where_a_result_ended() -> None:
    make_kernel(script(say("one"), say("two")))
    agent = Agent("talker", "Talk.")
    first = agent.run_sync("a")
    second = agent.run_sync("b", history=first.messages)
    assert [message.content for message in second.messages] == ["Talk.", "a", "one", "b", "two"]


STEPS = [
    ToolStarted(ToolCall(id="c1", name="find", arguments={"number": 1})),
    TextDelta("it"),
    TextDelta("is"),
]


def streaming_kernel() -> SmallKernel:
    return make_kernel(script(use("find", number=1), say("it is")))


def check_steps(steps: list[Any]) -> None:
    told = [step for step in steps if step != TextDelta("")]
    assert [type(step).__name__ for step in told] == [
        "ToolStarted",
        "ToolFinished",
        "TextDelta",
        "TextDelta",
        "Finished",
    ]
    assert [step for step in told if isinstance(step, ToolStarted | TextDelta)] == STEPS
    assert isinstance(told[1], ToolFinished)
    assert told[1].report.result == {"found": 2}
    assert isinstance(told[-1], Finished)
    assert told[-1].result.output == "it is"


def test_a_stream_tells_text_tools_and_at_last_the_result() -> None:
    streaming_kernel()
    steps: list[Any] = []

    async def main() -> None:
        steps.extend([step async for step in Agent("finder", tools=[find]).stream("where?")])

    run_sync(main)
    check_steps(steps)


def test_stream_sync_needs_neither_loop_nor_program() -> None:
    streaming_kernel()
    check_steps(list(Agent("finder", tools=[find]).stream_sync("where?")))


def test_a_sync_stream_left_early_interrupts_the_agent_without_an_exit() -> None:
    kernel = streaming_kernel()
    waiting = anyio.Event()

    @tool
    async def hang() -> None:
        waiting.set()
        await anyio.sleep_forever()

    kernel.model = script(use("hang"))
    for step in Agent("stuck", tools=[hang]).stream_sync("go"):
        if isinstance(step, ToolStarted):
            break
    assert kernel.rows[1].exit is None


def test_a_stream_raises_what_the_agent_raised() -> None:
    make_kernel(script(Generation(text="{", finish="length")))
    with pytest.raises(AgentError, match="no answer in 1 turns"):
        list(Agent("triage", output=Triage, max_turns=1).stream_sync("help"))


def test_a_stream_outside_a_program_says_what_to_use() -> None:
    async def main() -> None:
        async for _ in Agent("a").stream("hi"):
            pass

    with pytest.raises(UsageError, match="stream_sync"):
        anyio.run(main)


def test_wrong_declarations_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="two tools have one name"):
        Agent("a", tools=[find, "find"])
    with pytest.raises(UsageError, match="tool_choice is 'fnd'"):
        Agent("a", tools=[find], tool_choice="fnd")
    with pytest.raises(UsageError, match="max_turns"):
        Agent("a", max_turns=0)


def test_instructions_are_the_system_message() -> None:
    kernel = make_kernel(script(say("x")))
    Agent("a", "Be brief.").run_sync("hi")
    assert generations(kernel)[0].messages[0] == Message(role="system", content="Be brief.")
