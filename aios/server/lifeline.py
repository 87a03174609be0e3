"""What ends the open requests when the server closes.

Invariant: after `close` every `hold` is cancelled at its next await, those entered later included. A client that
goes away, on the contrary, ends nothing here: its syscall goes on and its id can be asked again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope


class Lifeline:
    """The requests under way in one server."""

    def __init__(self) -> None:
        self._scopes: set[CancelScope] = set()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the server is going away."""
        return self._closed

    @contextmanager
    def hold(self) -> Iterator[CancelScope]:
        """Run the body until it ends or the server closes; the body's caller sees a plain exit in both cases."""
        with CancelScope() as scope:
            if self._closed:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def close(self) -> None:
        """Cancel all that runs, and all that comes."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
