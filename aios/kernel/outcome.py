"""How a syscall's handler ends: with an outcome, a refusal or a failure.

A refusal or failure is raised inside the kernel only; the syscall table turns it into a reply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aios.abi.base import Json
from aios.abi.replies import Denied, Failed
from aios.kernel.entities import Process
from aios.kernel.records import AnyFact


@dataclass(frozen=True, slots=True)
class Outcome:
    """The value of a syscall and the facts to commit together with its reply."""

    value: Json = None
    facts: tuple[AnyFact, ...] = ()
    then: Callable[[], None] | None = None
    """Run in the step in which the facts are applied."""


class Unanswered(Exception):
    """Base of the two ways not to be done."""

    def __init__(self, code: str, reason: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.details = code, reason, details or {}

    def reply(self) -> Denied | Failed:
        """Return the reply, without its times."""
        raise NotImplementedError


class Refusal(Unanswered):
    """Denied by access control, quota, limits or the guard. Nothing was changed."""

    def reply(self) -> Denied:
        """Return the reply, without its times."""
        return Denied(code=self.code, reason=self.reason, details=self.details)


class Failure(Unanswered):
    """Admitted but not done, or the request was wrong."""

    def reply(self) -> Failed:
        """Return the reply, without its times."""
        return Failed(code=self.code, reason=self.reason, details=self.details)


def who(process: Process) -> str:
    """Name a process at the start of a message."""
    return f"pid {process.pid} ({process.name})"
