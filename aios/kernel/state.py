"""The kernel's durable state: a fold of facts.

Owns processes, capabilities, approvals, recorded replies and everything else that a restart must find again.
Pure: no clock, no I/O, no tasks. Invariant: `apply` never refuses and never looks at anything but the state and the
fact, so the live state equals the fold of the journal at every moment. What is wanted but not yet durable
(reservations, running calls) lives elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from aios.abi.guard import TraceEvent
from aios.abi.process import Exit, UsageTotals
from aios.ids import OPERATOR
from aios.kernel import records as r
from aios.kernel.entities import Approval, Cap, Effect, Emitted, Partial, Process, Recorded

KEPT_PAST = 1024
"""Exited and reaped processes that `ps --all` still shows."""
KEPT_OPERATOR_REPLIES = 1024
KEPT_EMITTED = 4096
"""Calls that a program runs itself whose results are awaited or compared."""


class KernelState:
    """All durable facts, folded."""

    def __init__(self) -> None:
        self.instance = ""
        operator = Process(pid=OPERATOR, ppid=OPERATOR, name="operator", principal="operator")
        self.processes: dict[int, Process] = {OPERATOR: operator}
        self.past: OrderedDict[int, Process] = OrderedDict()
        self.caps: dict[int, Cap] = {}
        self.approvals: dict[int, Approval] = {}
        self.trace: list[TraceEvent] = []
        """The guard's trace; only kept where a rule is in force."""
        self.last_pid = 0
        self.last_cap = 0
        self.last_approval = 0
        self.num_facts = 0
        self._appliers: dict[type, Callable[[Any, float], None]] = {
            r.KernelCreated: self._kernel_created,
            r.ProcessStarted: self._process_started,
            r.ProcessExited: self._process_exited,
            r.ProcessReaped: self._process_reaped,
            r.StopSet: self._stop_set,
            r.NiceSet: self._nice_set,
            r.SyscallDone: self._syscall_done,
            r.UsageAdded: self._usage_added,
            r.TokensAppended: self._tokens_appended,
            r.ContextForked: self._context_forked,
            r.SleepStarted: self._sleep_started,
            r.ToolIntent: self._tool_intent,
            r.ToolResult: self._tool_result,
            r.CallEmitted: self._call_emitted,
            r.CallReported: self._call_reported,
            r.ApprovalAsked: self._approval_asked,
            r.ApprovalDecided: self._approval_decided,
            r.CapGranted: self._cap_granted,
            r.CapRevoked: self._cap_revoked,
            r.RuleEvent: self._rule_event,
            r.MemSet: self._mem_set,
            r.MemDeleted: self._mem_deleted,
            r.Announced: self._told,
            r.EventKept: self._told,
        }

    def apply(self, fact: r.AnyFact, time: float) -> None:
        """Fold one durable fact into the state."""
        self.num_facts += 1
        self._appliers[type(fact)](fact, time)

    # --- questions -------------------------------------------------------------------------------------------

    def alive(self, pid: int) -> Process | None:
        """Return the process if it exists and has not exited."""
        process = self.processes.get(pid)
        return process if process is not None and process.exit is None else None

    def find(self, pid: int) -> Process | None:
        """Return the process, also an exited one that is still remembered."""
        return self.processes.get(pid) or self.past.get(pid)

    def ancestors(self, pid: int) -> Iterator[Process]:
        """Yield the process itself, its parent, and so on; the operator is left out (unless asked for)."""
        process = self.find(pid)
        while process is not None:
            yield process
            if OPERATOR in (process.pid, process.ppid):
                return
            process = self.find(process.ppid)

    def heir(self, pid: int) -> Process:
        """Return the process or, if it died meanwhile, its nearest living ancestor."""
        process = self.find(pid)
        while process is None or process.exit is not None:
            process = self.processes[OPERATOR] if process is None else self.find(process.ppid)
        return process

    def is_within(self, pid: int, root: int) -> bool:
        """Whether `pid` is `root` or a descendant of it; everything is within the operator."""
        return root == OPERATOR or any(process.pid == root for process in self.ancestors(pid))

    def subtree(self, pid: int) -> list[Process]:
        """Return the living processes of the tree under `pid`, children before parents."""
        process = self.alive(pid)
        if process is None:
            return []
        below = [one for child in sorted(process.children) for one in self.subtree(child)]
        return [*below, process]

    def cap_chain(self, cap: Cap) -> Iterator[Cap]:
        """Yield the capability and those that it derives from."""
        current: Cap | None = cap
        while current is not None:
            yield current
            current = self.caps.get(current.parent) if current.parent is not None else None

    def approval_for(self, pid: int, syscall: str, index: int, kind: str) -> Approval | None:
        """Find the approval that a call asked for earlier."""
        process = self.alive(pid)
        number = process.approvals.get((syscall, index, kind)) if process is not None else None
        return self.approvals[number] if number is not None else None

    # --- processes -------------------------------------------------------------------------------------------

    def _kernel_created(self, fact: r.KernelCreated, time: float) -> None:
        self.instance = fact.instance

    def _process_started(self, fact: r.ProcessStarted, time: float) -> None:
        parent = self.heir(fact.ppid)
        self.processes[fact.pid] = Process(
            pid=fact.pid,
            ppid=parent.pid,
            name=fact.name,
            principal=fact.principal,
            klass=fact.klass,
            nice=fact.nice,
            trust=fact.trust,
            quota=fact.quota,
            rules=fact.rules,
            token_hash=fact.token_hash,
            input=fact.input,
            started_s=time,
            depth=parent.depth + 1,
        )
        parent.children.add(fact.pid)
        self._count_living(parent, +1)
        if parent.pid != OPERATOR:
            parent.usage = parent.usage.model_copy(update={"children": parent.usage.children + 1})
        self.last_pid = max(self.last_pid, fact.pid)

    def _process_exited(self, fact: r.ProcessExited, time: float) -> None:
        process = self.alive(fact.pid)
        if process is None:
            return  # it was killed while it exited
        process.exit = Exit(pid=fact.pid, code=fact.code, value=fact.value, reason=fact.reason)
        process.ended_s = time
        self._count_living(self.processes[process.ppid], -1)
        self._give_away_children(process)
        self._forget_insides(process)
        if process.ppid == OPERATOR:
            self._reap(process)  # the operator waits for nobody: its children are remembered in `past`

    def _count_living(self, parent: Process, change: int) -> None:
        for one in self.ancestors(parent.pid):
            one.living_below += change

    def _give_away_children(self, process: Process) -> None:
        heir = self.heir(process.ppid)
        for pid in sorted(process.children):
            child = self.processes[pid]
            if child.exit is not None:
                self._reap(child)  # nobody can wait for it any more
            else:
                child.ppid = heir.pid
                heir.children.add(pid)
        process.children.clear()

    def _forget_insides(self, process: Process) -> None:
        for store in (process.memory, process.partials, process.sleeps, process.effects, process.contexts):
            store.clear()
        process.heard.clear()
        process.emitted.clear()
        process.replies.clear()
        for cap in process.caps:
            self._bury(cap)
        process.caps.clear()
        for number in process.approvals.values():
            del self.approvals[number]
        process.approvals.clear()

    def _process_reaped(self, fact: r.ProcessReaped, time: float) -> None:
        process = self.processes.get(fact.pid)
        if process is not None:
            self._reap(process)

    def _reap(self, process: Process) -> None:
        self.processes[process.ppid].children.discard(process.pid)
        del self.processes[process.pid]
        self.past[process.pid] = process
        while len(self.past) > KEPT_PAST:
            self.past.popitem(last=False)

    def _stop_set(self, fact: r.StopSet, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.stopped, process.stop_reason = fact.stopped, fact.reason

    def _nice_set(self, fact: r.NiceSet, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.nice = fact.nice

    # --- syscalls --------------------------------------------------------------------------------------------

    def _syscall_done(self, fact: r.SyscallDone, time: float) -> None:
        process = self.find(fact.pid)
        if process is None:
            return
        process.replies[fact.id] = Recorded(fact.call, fact.digest, bytes(fact.request), bytes(fact.reply))
        process.partials.pop(fact.id, None)
        process.sleeps.pop(fact.id, None)
        for key in [key for key in process.effects if key[0] == fact.id]:
            del process.effects[key]
        for question in [question for question in process.approvals if question[0] == fact.id]:
            del self.approvals[process.approvals.pop(question)]
        while process.pid == OPERATOR and len(process.replies) > KEPT_OPERATOR_REPLIES:
            process.replies.popitem(last=False)
        self._add_usage(process, syscalls=1, denied=int(fact.denied), queue_s=fact.queue_s, run_s=fact.run_s)

    def _usage_added(self, fact: r.UsageAdded, time: float) -> None:
        process = self.find(fact.pid)
        if process is None:
            return
        amounts = {name: getattr(fact, name) for name in fact.__struct_fields__ if name != "pid"}
        self._add_usage(process, **amounts)
        tokens = fact.tokens_in - fact.tokens_cached + fact.tokens_out
        for one in self.ancestors(fact.pid):
            one.tree_tokens += tokens
            one.tree_tool_calls += fact.tool_calls

    def _add_usage(self, process: Process, **amounts: float) -> None:
        totals = dict(process.usage)
        for name, amount in amounts.items():
            totals[name] += amount
        process.usage = UsageTotals(**totals)

    def _tokens_appended(self, fact: r.TokensAppended, time: float) -> None:
        process = self.alive(fact.pid)
        if process is None:
            return
        partial = process.partials.setdefault(fact.id, Partial(fact.digest, fact.context))
        assert len(partial.tokens) >= fact.position, "tokens are journalled in order"
        del partial.tokens[fact.position :]  # a refused call; calls have no text
        partial.calls_since = fact.calls_since
        if fact.since > partial.since:
            partial.since = fact.since
            partial.text.clear()
        partial.tokens.extend(fact.tokens)
        partial.text.append(fact.text)
        process.contexts.setdefault(fact.context)

    def _context_forked(self, fact: r.ContextForked, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.contexts.setdefault(fact.into)

    def _sleep_started(self, fact: r.SleepStarted, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.sleeps[fact.id] = fact

    # --- tools and approvals ---------------------------------------------------------------------------------

    def _tool_intent(self, fact: r.ToolIntent, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.effects[fact.id, fact.index] = Effect(fact)
        if fact.attempt == 0:
            self._charge(fact, 1)

    def _tool_result(self, fact: r.ToolResult, time: float) -> None:
        process = self.alive(fact.pid)
        effect = process.effects.get((fact.id, fact.index)) if process is not None else None
        if effect is None:
            return
        effect.report = fact.report
        if fact.report.status in ("error", "denied"):
            self._charge(effect.intent, -1)  # certainly no effect: the right was not used

    def _call_emitted(self, fact: r.CallEmitted, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.emitted[fact.call_id] = Emitted(fact)
            while len(process.emitted) > KEPT_EMITTED:
                process.emitted.popitem(last=False)
        self._charge(fact, 1)

    def _call_reported(self, fact: r.CallReported, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None and fact.call_id in process.emitted:
            process.emitted[fact.call_id].reported = fact

    def _charge(self, intent: r.ToolIntent | r.CallEmitted, sign: int) -> None:
        cap = self.caps.get(intent.cap) if intent.cap is not None else None
        for one in self.cap_chain(cap) if cap is not None else ():
            one.used += sign
            one.spent += sign * intent.spend

    def _approval_asked(self, fact: r.ApprovalAsked, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            self.approvals[fact.info.id] = Approval(fact.info, fact.id, fact.index)
            process.approvals[fact.id, fact.index, fact.info.kind] = fact.info.id
        self.last_approval = max(self.last_approval, fact.info.id)

    def _approval_decided(self, fact: r.ApprovalDecided, time: float) -> None:
        approval = self.approvals.get(fact.approval)
        if approval is None:
            return
        update = {"state": fact.state, "decided_by": fact.by, "answer": fact.answer}
        info = approval.info.model_copy(update=update)
        self.approvals[fact.approval] = Approval(info, approval.syscall, approval.index)

    # --- capabilities ----------------------------------------------------------------------------------------

    def _cap_granted(self, fact: r.CapGranted, time: float) -> None:
        self.last_cap = max(self.last_cap, fact.cap)
        process = self.alive(fact.pid)
        if process is None:
            return
        self.caps[fact.cap] = Cap(fact.cap, fact.pid, fact.parent, fact.spec)
        process.caps.append(fact.cap)
        if fact.parent is not None and fact.parent in self.caps:
            self.caps[fact.parent].derived.add(fact.cap)

    def _cap_revoked(self, fact: r.CapRevoked, time: float) -> None:
        for cap in self.derived_from(fact.cap):
            cap.revoked = True

    def derived_from(self, cap: int) -> list[Cap]:
        """Return the capability and all derived from it, derivations first."""
        found = self.caps.get(cap)
        if found is None:
            return []
        return [*(one for child in sorted(found.derived) for one in self.derived_from(child)), found]

    def _bury(self, cap: int) -> None:
        # A dead owner's capability stays while others derive from it: limits are counted along the chain.
        found: Cap | None = self.caps.get(cap)
        while found is not None and not found.derived and self.alive(found.pid) is None:
            del self.caps[found.id]
            parent = self.caps.get(found.parent) if found.parent is not None else None
            if parent is not None:
                parent.derived.discard(found.id)
            found = parent

    # --- the rest --------------------------------------------------------------------------------------------

    def _rule_event(self, fact: r.RuleEvent, time: float) -> None:
        self.trace.append(fact.event)
        process = self.alive(fact.pid)
        if process is not None and fact.event.kind == "user":
            process.heard[str(fact.event.args.get("text", ""))] += 1

    def _mem_set(self, fact: r.MemSet, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.memory[fact.key] = fact.value

    def _mem_deleted(self, fact: r.MemDeleted, time: float) -> None:
        process = self.alive(fact.pid)
        if process is not None:
            process.memory.pop(fact.key, None)

    def _told(self, fact: r.Announced | r.EventKept, time: float) -> None:
        """An event tells of changes and is none."""
