"""Decisions of people: asked, waited for, decided, expired.

Owns the waiting. The approvals themselves are durable state; a call that is repeated after a restart finds the one
that it asked for. Invariant: a decision binds to the digest that was shown; whoever is not answered in time is denied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from aios.abi import events
from aios.abi.process import ApprovalInfo
from aios.kernel.commit import Committer
from aios.kernel.entities import Approval
from aios.kernel.events import Bus
from aios.kernel.records import ApprovalAsked, ApprovalDecided
from aios.kernel.state import KernelState
from aios.kernel.table import Running, Table


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask: kind and what is shown."""

    kind: str
    tool: str = ""
    arguments: dict[str, Any] | None = None
    digest: str = ""
    text: str = ""
    why: str = ""


class Approvals:
    """Asks and waits."""

    def __init__(
        self,
        state: KernelState,
        log: Committer,
        bus: Bus,
        table: Table,
        *,
        now: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._state, self._log, self._bus, self._table = state, log, bus, table
        self._now, self._timeout_s = now, timeout_s
        self._decided: dict[int, anyio.Event] = {}
        self._last = 0

    async def ask(
        self, running: Running, question: Question, *, index: int = 0, timeout_s: float | None = None
    ) -> ApprovalInfo:
        """Ask, unless this very call asked before, and wait for the decision. Raises StoreError."""
        known = self._state.approval_for(running.pid, running.id, index, question.kind)
        number = known.info.id if known is not None else await self._put(running, question, index, timeout_s)
        with self._table.waiting(running, f"approval {number}"):
            return await self._wait(running.pid, number)

    def decided(self, approval: int) -> None:
        """Wake the call that waits for the approval."""
        if approval in self._decided:
            self._decided[approval].set()

    async def _put(self, running: Running, question: Question, index: int, timeout_s: float | None) -> int:
        self._last = max(self._last, self._state.last_approval) + 1
        now = self._now()
        info = ApprovalInfo.model_validate(
            {
                "id": self._last,
                "pid": running.pid,
                "kind": question.kind,
                "tool": question.tool,
                "arguments": question.arguments or {},
                "digest": question.digest,
                "question": question.text,
                "why": question.why,
                "asked_s": now,
                "expires_s": now + (timeout_s or self._timeout_s),
            }
        )
        await self._log.commit(ApprovalAsked(pid=running.pid, id=running.id, index=index, info=info))
        return info.id

    async def _wait(self, pid: int, number: int) -> ApprovalInfo:
        decided = self._decided.setdefault(number, anyio.Event())
        try:
            while (info := self._state.approvals[number].info).state == "waiting":
                left = info.expires_s - self._now()
                if left <= 0:
                    await self._log.commit(ApprovalDecided(pid=pid, approval=number, state="expired", by="kernel"))
                    continue
                with anyio.move_on_after(left):
                    await decided.wait()
            return info
        except anyio.get_cancelled_exc_class():
            if self._state.alive(pid) is None:
                self._bus.emit(events.ApprovalDecided(pid=pid, approval=number, state="withdrawn", by="kernel"))
            raise
        finally:
            self._decided.pop(number, None)


def is_open(approval: Approval, now: float) -> bool:
    """Whether the approval can still be decided."""
    return approval.info.state == "waiting" and now < approval.info.expires_s
