"""What an endpoint can do to us, and which of it is worth another try.

EndpointError
├── Unavailable     busy, down, cut off, silent: another try, here or elsewhere, may work
├── Rejected        it understood and said no: the same request will fare the same
└── Malformed       what it sent is not the protocol
"""

from aios.errors import EngineError

UNREACHABLE, BUSY, SLOW, LOST = "E-REMOTE-UNREACHABLE", "E-REMOTE-BUSY", "E-REMOTE-TIMEOUT", "E-REMOTE-LOST"
TLS = "E-REMOTE-TLS"
TRANSIENT = frozenset({UNREACHABLE, BUSY, SLOW, LOST})
"""Codes of a refused Submit after which another core may be tried."""


class EndpointError(EngineError):
    """A call that an endpoint did not carry out. `code` is stable; the message names what would work."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(EndpointError):
    """Not now. `retry_after_s` is what the endpoint asked for, None if it said nothing."""

    def __init__(self, message: str, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, code)
        self.retry_after_s = retry_after_s


class Rejected(EndpointError):
    """It will not do this request."""

    def __init__(self, message: str, code: str = "E-REMOTE-REJECTED") -> None:
        super().__init__(message, code)


class Malformed(EndpointError):
    """Its answer breaks the protocol; nothing of it is used."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; is this an OpenAI-compatible endpoint?", "E-REMOTE-PROTOCOL")
