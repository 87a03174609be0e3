"""Which context of its process a request runs in: the one whose history its own goes on from.

Owns the names of contexts and what each was last asked. A client that names its conversation gets that context; for
the others there are as many contexts as a process has had requests at once, so their number is bounded.
Invariant: of two requests at the same time no two share a context, unless the client named it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aios.abi.chat import Message
from aios.server.refusals import Refusal

HEADER = "x-aios-conversation"
MOST_PROCESSES = 4096
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(slots=True)
class _Context:
    name: str
    asked: tuple[Message, ...] = ()
    is_busy: bool = False


@dataclass(slots=True)
class Conversations:
    """See the module."""

    _of: dict[int, list[_Context]] = field(default_factory=dict)

    @contextmanager
    def borrowed(self, pid: int, messages: tuple[Message, ...]) -> Iterator[str]:
        """Hold a context for one request: of the free ones that with the longest common history."""
        contexts = self._of.setdefault(pid, [])
        while len(self._of) > MOST_PROCESSES:
            del self._of[next(iter(self._of))]
        free = [context for context in contexts if not context.is_busy]
        if free:
            chosen = max(free, key=lambda context: _common(context.asked, messages))
        else:
            chosen = _Context(f"chat-{len(contexts)}")
            contexts.append(chosen)
        chosen.is_busy, chosen.asked = True, messages
        try:
            yield chosen.name
        finally:
            chosen.is_busy = False


def named(header: str | None) -> str | None:
    """Read the context that a client names. Refuses with 400."""
    if header is not None and not _NAME.fullmatch(header):
        raise Refusal(400, "E-BODY", f"{HEADER}: 1 to 64 letters, digits, '_', '.' or '-'")
    return header


def _common(one: Sequence[Message], other: Sequence[Message]) -> int:
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), len(one))
