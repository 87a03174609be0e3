"""Recognises a repeated syscall: same process, same id, same request.

Pure. A reply that was recorded is given again, byte for byte; a different request under a known id is a divergence,
and the program that made it is no longer the one that was journalled.
"""

import hashlib
import json
from typing import Any

import msgspec

from aios.abi.replies import REPLY, Denied, Failed, Ok
from aios.abi.syscalls import AnyCall
from aios.kernel.entities import Process, Recorded

_SORTED = msgspec.json.Encoder(order="sorted")
SHOWN = 4000
"""Characters of each request that a divergence shows."""


def request_of(call: AnyCall) -> bytes:
    """Write a request as JSON, keys sorted: equal requests give equal bytes."""
    plain = call.model_dump(mode="json")
    try:
        return _SORTED.encode(plain)
    except (OverflowError, UnicodeEncodeError):  # very large integers, half characters: still one text for one value
        return json.dumps(plain, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def digest_of(request: bytes) -> str:
    """Return the digest by which a repeated request is recognised."""
    return hashlib.sha256(request).hexdigest()


def reply_of(recorded: Recorded) -> Ok | Denied | Failed:
    """Return the recorded reply."""
    return REPLY.validate_json(recorded.reply)


def known_digest(process: Process, id: str) -> str | None:
    """Return the digest of the request that the process made under this id before, as far as it is known."""
    if id in process.replies:
        return process.replies[id].digest
    if id in process.partials:
        return process.partials[id].digest
    if id in process.sleeps:
        return process.sleeps[id].digest
    return next((effect.intent.digest for (owner, _), effect in process.effects.items() if owner == id), None)


def divergence(process: Process, id: str, asked: bytes, recorded: bytes | None) -> Failed:
    """Return the reply to a request that differs from the recorded one."""
    details: dict[str, Any] = {"id": id, "asked": _shown(asked), "recorded": _shown(recorded)}
    return Failed(
        code="E-REPLAY-DIVERGED",
        reason=f"pid {process.pid} ({process.name}): syscall {id!r} was another request before; "
        "the process is stopped: run the same program, or give it up and start afresh (`aios run --fresh`)",
        details=details,
    )


def _shown(request: bytes | None) -> str:
    if request is None:
        return "(its request is not known any more)"
    text = request.decode("utf-8", "replace")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
