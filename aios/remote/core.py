"""A `Core` whose model runs at an endpoint that speaks the OpenAI chat protocol.

Owns the contexts' generations and their queue for the endpoint. There is no KV here: a context is what the kernel
sends with each Submit, so taking one off keeps its text and nothing else. Rows carry one piece of the stream each and
the token id -1, for ids are not known. Where the guard cannot mask it restricts what is offered, checks what comes,
and asks again, at most twice; the kernel's gate judges all the same.

Invariant: every Submit ends with exactly one Finished or Refused; nothing that an endpoint sends ends another one's.
`start` and `aclose` belong to one task (between them a task group is open).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import jsonschema_rs
import msgspec
import stamina
from anyio.abc import TaskGroup

from aios.abi import core as c
from aios.abi.chat import Finish, Generation, ToolCall
from aios.abi.outbox import Outbox
from aios.abi.tools import ToolSpec
from aios.config import CoreSettings
from aios.formats.schemas import clean
from aios.ids import ContextId
from aios.remote.answer import Answer, Piece
from aios.remote.echo import Echo
from aios.remote.endpoint import Endpoint
from aios.remote.failures import SLOW, EndpointError, Rejected, Unavailable
from aios.remote.guarding import Restriction, Unrestricted
from aios.remote.request import body, wire_names
from aios.remote.run import Run
from aios.remote.slots import Slots, rank

MAX_ASKED_AGAIN = 2
WHY_S = 0.25
"""How long the kernel may take to say why a call is refused."""
Schema = dict[str, Any]


class RemoteCore:
    """See the module. Raises ConfigError when the endpoint's key is not in the environment."""

    def __init__(self, name: str, settings: CoreSettings, restriction: Restriction | None = None) -> None:
        self._name, self._settings = name, settings
        self._restriction = restriction or Unrestricted()
        self._endpoint = Endpoint(name, settings)
        self._slots = Slots(settings.concurrency)
        self._runs: dict[ContextId, Run] = {}
        self._facts: dict[int, c.ProcessFacts] = {}
        self._suspended: set[ContextId] = set()
        self._outbox = Outbox()
        self._steps = self._switches = 0
        self._tasks: TaskGroup | None = None
        self._stack = AsyncExitStack()
        self._is_closed = False

    # --- Core ------------------------------------------------------------------------------------------------

    async def start(self) -> c.Ready:
        """Be ready at once: whether the endpoint lives shows at the first call, and it may come and go."""
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return ready(self._name, self._settings)

    async def send(self, order: c.AnyOrder) -> None:
        """Take an order. Dropped when closed."""
        await anyio.lowlevel.checkpoint()
        if self._is_closed:
            return
        match order:
            case c.Submit():
                self._submit(order)
            case c.Steer():
                self._steer(order)
            case c.Cancel():
                self._cancel(order.context)
            case c.Reclassify():
                self._facts[order.facts.pid] = order.facts
            case c.Shutdown():
                self._close()
            case c.Suspend() | c.Resume() | c.Fork() | c.Drop() | c.Describe():
                self._about(order)

    def messages(self) -> AsyncIterator[c.AnyMessage]:
        """Everything that the core says; ends when it is closed. One reader."""
        return self._outbox

    async def aclose(self) -> None:
        """End all calls and close the connections; idempotent."""
        self._close()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            self._tasks = None
            await self._stack.aclose()
        with anyio.CancelScope(shield=True):
            await self._endpoint.aclose()

    # --- orders ----------------------------------------------------------------------------------------------

    def _submit(self, order: c.Submit) -> None:
        before = self._runs.get(order.context)
        if before is not None:
            if before.order.epoch >= order.epoch:
                return  # given twice
            before.has_ended = True  # of an older epoch: nobody listens
            before.scope.cancel()
        run = Run(order, anyio.current_time(), self._settings.continuation)
        self._runs[order.context] = run
        if order.context not in self._suspended:
            self._start(run)

    def _start(self, run: Run) -> None:
        assert self._tasks is not None, "orders come after start"
        if not run.is_active:
            run.is_active = True
            self._tasks.start_soon(self._serve, run)

    def _steer(self, order: c.Steer) -> None:
        run = self._runs.get(order.context)
        if run is not None:
            run.mask = order.mask
            run.steered.set()

    def _cancel(self, context: ContextId) -> None:
        run = self._runs.get(context)
        if run is None:
            return
        run.is_cancelled = True
        run.scope.cancel()
        if not run.is_active:
            self._finish(run, run.generation("cancelled", now=anyio.current_time()))

    def _about(self, order: c.Suspend | c.Resume | c.Fork | c.Drop | c.Describe) -> None:
        name = order.into if isinstance(order, c.Fork) else order.context
        match order:
            case c.Suspend():
                self._suspend(order)
            case c.Resume():
                self._resume(order)
            case c.Drop():
                self._cancel(name)
                self._suspended.discard(name)
            case _:
                pass
        self._say(
            c.Described(context=name, epoch=order.epoch, ticket=order.ticket, tier="none", tokens=0, pages=0)
        )  # nothing is kept of any context, so nothing is there to be copied

    def _suspend(self, order: c.Suspend) -> None:
        self._suspended.add(order.context)
        run = self._runs.get(order.context)
        if run is not None:
            run.suspensions += 1
            run.scope.cancel()
            self._switch(order, run, "out", "order; the text is kept")

    def _resume(self, order: c.Resume) -> None:
        self._suspended.discard(order.context)
        run = self._runs.get(order.context)
        if run is not None:
            how = "continued from the partial text" if run.can_continue else "restarted"
            self._switch(order, run, "in", f"order; {how}")
            self._start(run)

    def _switch(self, order: c.ContextOrder, run: Run, direction: str, reason: str) -> None:
        self._switches += 1
        self._say(
            c.Switched(
                context=order.context,
                epoch=order.epoch,
                ticket=order.ticket,
                direction=direction,
                tier="dropped",
                reason=reason,
                pages=0,
                bytes=0,
                mid_generation=True,
                generated=run.count,
            )
        )

    # --- one generation --------------------------------------------------------------------------------------

    async def _serve(self, run: Run) -> None:
        """Carry a run to its end, or until it is suspended."""
        while not run.has_ended and run.order.context not in self._suspended:
            with run.scope:
                await self._try(run)
            if run.is_cancelled and not run.has_ended:
                self._finish(run, run.generation("cancelled", now=anyio.current_time()))
            run.scope = anyio.CancelScope()  # a spent scope would end the next try
        run.is_active = False
        if not run.has_ended:
            self._tell()  # it waits, and its place is free

    async def _try(self, run: Run) -> None:
        order = run.order
        try:
            facts = self._facts.get(order.facts.pid, order.facts)
            async with self._slots.held(rank(facts)):
                self._tell()
                run.started_s = run.started_s or anyio.current_time()
                self._finish(run, await self._generate(run))
        except EndpointError as error:
            self._end(run, c.Refused(context=order.context, epoch=order.epoch, code=error.code, reason=str(error)))

    async def _generate(self, run: Run) -> Generation:
        """Ask, and ask again while what comes is forbidden. Raises EndpointError."""
        schema = _cleaned(run.order.request.output_schema)
        while True:
            offered = self._offered(run)
            if offered is None:
                return self._generation(run, "no_compliant_call")
            if run.room <= 0:
                return self._generation(run, "length")
            answer = await self._answered(run, offered, schema)
            run.charge(answer)
            if not answer.is_finished:
                return self._generation(run, "length")  # cut at its lease
            finish, calls = answer.finish(), answer.calls()
            objections = self._objections(run, finish, calls, schema)
            if objections and run.mask is not None and calls and run.num_asked_again < MAX_ASKED_AGAIN:
                await self._ask_why(run, calls)
                objections = self._objections(run, finish, calls, schema)
            if not objections:
                return self._generation(run, finish, calls)
            if run.num_asked_again == MAX_ASKED_AGAIN:
                return self._generation(run, "no_compliant_call") if schema is None or calls else _unfit(objections)
            run.ask_again(calls, objections)

    async def _ask_why(self, run: Run, calls: tuple[ToolCall, ...]) -> None:
        """Let the kernel say why calls are refused and what would come first; without an answer rule names must do."""
        run.steered = anyio.Event()
        self._say(c.Called(context=run.order.context, epoch=run.order.epoch, calls=calls))
        with anyio.move_on_after(WHY_S):
            await run.steered.wait()

    def _generation(self, run: Run, finish: Finish, calls: tuple[ToolCall, ...] = ()) -> Generation:
        found = run.generation(finish, calls, anyio.current_time())
        if run.order.request.output_schema is None or finish != "stop":
            return found
        return found.model_copy(update={"parsed": msgspec.json.decode(found.text)})

    def _offered(self, run: Run) -> tuple[ToolSpec, ...] | None:
        """Return the tools to offer; None where a call is demanded that no rule lets pass."""
        choice, tools = run.order.request.tool_choice, run.order.tools
        if run.mask is not None:
            tools = self._restriction.offer(run.mask, tools)
        is_demanded = choice == "required" or choice not in ("auto", "none")
        if is_demanded and not any(choice in ("required", tool.name) for tool in tools):
            return None
        return tools

    def _objections(self, run: Run, finish: Finish, calls: Sequence[ToolCall], schema: Schema | None) -> list[str]:
        """Say what is wrong with an answer: forbidden calls, or a text that is not what the schema asks for."""
        found: list[str] = []
        if run.mask is not None:
            judged = (self._restriction.objection(run.mask, run.order.tools, call) for call in calls)
            found = [objection for objection in judged if objection]
        if finish == "stop" and (missing := _missing(run.order.request.tool_choice, calls)):
            found.append(missing)
        if schema is not None and finish == "stop" and (problem := _misfit(run.begun, schema)):
            found.append(problem)
        return found

    async def _answered(self, run: Run, offered: Sequence[ToolSpec], schema: Schema | None) -> Answer:
        """Send the request until it is answered, as often as is allowed. Raises EndpointError."""
        settings = self._settings
        attempts = stamina.retry_context(
            on=self._pause,
            attempts=settings.attempts,
            timeout=None,
            wait_initial=settings.retry_wait_s,
            wait_max=settings.longest_retry_wait_s,
            wait_jitter=settings.retry_wait_s,
        )
        async for attempt in attempts:
            with attempt:
                return await self._attempt(run, offered, schema)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, error: Exception) -> bool | float:
        """Say whether another attempt is worth it, and when the endpoint wants it."""
        if not isinstance(error, Unavailable) or error.retry_after_s is None:
            return isinstance(error, Unavailable)
        return error.retry_after_s if error.retry_after_s <= self._settings.longest_retry_wait_s else False

    async def _attempt(self, run: Run, offered: Sequence[ToolSpec], schema: Schema | None) -> Answer:
        """Send one request and take in its answer. Whatever cuts it off, the run keeps what can be continued."""
        settings, names = self._settings, wire_names(run.order.tools)
        begun, given = run.begin(), run.given
        echo = Echo(given + begun if settings.continuation == "prefill" and not run.more else "")
        answer = Answer(
            names, run.room
        )  # a tool left out today may be called from memory: that is judged, not malformed
        request = body(
            settings.model,
            run.order.request,
            offered,
            names=names,
            schema=schema,
            more=run.more,
            begun=begun,
            max_tokens=max(1, run.room),
            continuation=settings.continuation,
        )
        has_ended = False
        try:
            with anyio.fail_after(settings.timeout_s):
                async with self._endpoint.stream(request) as batches:
                    self._admit(run)
                    async for events in batches:
                        self._take(run, answer, events, echo)
                        if run.room <= 0 and not answer.is_finished and answer.counts is None:
                            await self._rest(run, answer, batches)
                            break
            if answer.is_finished and (held := echo.close()):
                self._tell_pieces(run, [Piece(held)])
            has_ended = answer.is_finished or run.room <= 0
        except TimeoutError as error:
            raise Unavailable(f"core {self._name!r}: no end after {settings.timeout_s:g} s", SLOW) from error
        finally:
            if not has_ended and run.pieces:
                run.interrupt()
        if not has_ended:
            raise Unavailable(f"core {self._name!r}: the stream broke off before its end", "E-REMOTE-LOST")
        return answer

    async def _rest(self, run: Run, answer: Answer, batches: AsyncIterator[list[dict[str, Any]]]) -> None:
        """The line is reached: hear the endpoint's own end and count, but no more text."""
        async for events in batches:
            for event in events:
                more = answer.take(event)
                run.logprobs.extend(answer.logprobs)
                answer.logprobs.clear()
                if more:
                    return
            if answer.is_finished and answer.counts is not None:
                return

    def _take(self, run: Run, answer: Answer, events: Sequence[dict[str, Any]], echo: Echo) -> None:
        found = [piece for event in events for piece in answer.take(event)]
        news = [(piece, echo.push(piece.text)) for piece in found]
        pieces = [Piece(new) for piece, new in news if new or not piece.text]  # parts of calls have no text
        run.logprobs.extend(answer.logprobs)
        answer.logprobs.clear()
        if pieces:
            self._tell_pieces(run, pieces)

    def _tell_pieces(self, run: Run, pieces: Sequence[Piece]) -> None:
        run.first_s = run.first_s or anyio.current_time()
        self._steps += 1
        rows = tuple(run.row(piece) for piece in pieces[: max(0, run.room)])
        self._say(c.Stepped(step=self._steps, rows=rows))

    def _admit(self, run: Run) -> None:
        if not run.is_admitted:
            run.is_admitted = True
            order, guess = run.order, run.prompt_estimate
            self._say(c.Admitted(context=order.context, epoch=order.epoch, prompt_tokens=guess, cached_tokens=0))

    # --- what is said ----------------------------------------------------------------------------------------

    def _finish(self, run: Run, generation: Generation) -> None:
        order = run.order
        self._end(run, c.Finished(context=order.context, epoch=order.epoch, generation=generation))

    def _end(self, run: Run, message: c.AnyMessage) -> None:
        if run.has_ended:
            return
        run.has_ended = True
        if self._runs.get(run.order.context) is run:
            del self._runs[run.order.context]
        self._say(message)
        self._tell()

    def _say(self, message: c.AnyMessage) -> None:
        self._outbox.say(message)

    def _tell(self) -> None:
        self._say(
            c.Statistics(
                forward_passes=self._steps,
                running=self._slots.running,
                waiting=self._slots.waiting,
                suspended=len(self._suspended & self._runs.keys()),
                tokens_per_s=0.0,
                pages_total=0,
                pages_free=0,
                pages_host=0,
                pages_disk=0,
                pages_swapped=0,
                switches=self._switches,
                masked_argmax=0,
                step_ms=0.0,
                steering="schemas",
            )
        )

    def _close(self) -> None:
        self._is_closed = True
        self._outbox.close()


def ready(name: str, settings: CoreSettings) -> c.Ready:
    """Describe what an endpoint can: no masks, no KV, priority only in our own queue before it."""
    return c.Ready(
        model=settings.model,
        model_sha256="",
        architecture="remote",
        dtype="unknown",
        device=f"{name} ({settings.url})",
        max_context=settings.max_context,
        vocab_size=0,
        page_tokens=1,
        page_bytes=0,
        pages=0,
        call_format="openai",
        token_mask=False,
        kv_snapshot=False,
    )


def _cleaned(schema: Schema | None) -> Schema | None:
    """Return what a grammar can express of a schema; references outside it are refused. Raises Rejected."""
    if schema is None:
        return None
    try:
        found: Schema = clean(schema, "output_schema")
        jsonschema_rs.validator_for(found)
    except ValueError as error:
        raise Rejected(str(error), "E-REMOTE-SCHEMA") from error
    return found


def _misfit(text: str, schema: Schema) -> str | None:
    try:
        jsonschema_rs.validate(schema, msgspec.json.decode(text))
    except (ValueError, RecursionError) as error:
        return f"the answer does not fit the schema: {str(error)[:300]}"
    return None


def _missing(choice: str, calls: Sequence[ToolCall]) -> str | None:
    """Say that no call came although one is demanded; some endpoints know no demand."""
    if calls or choice in ("auto", "none"):
        return None
    return f"call {'a tool' if choice == 'required' else choice}; a call is demanded, text is no answer"


def _unfit(objections: Sequence[str]) -> Generation:
    raise Rejected("; ".join(objections), "E-REMOTE-SCHEMA")
