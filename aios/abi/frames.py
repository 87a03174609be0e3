"""Frames on a byte stream between kernel and engine host: 4 bytes big-endian length, then the payload.

Owns the framing alone; knows neither sockets nor what a payload means.
Invariant: a frame is never longer than `MAX_FRAME_BYTES`, so a broken peer cannot make us allocate without end.
"""

import struct

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""More than the longest order: a full context of tokens and its messages."""

_HEADER = struct.Struct(">I")


class FrameError(ValueError):
    """The peer does not speak frames, or one is too long."""


def frame(payload: bytes) -> bytes:
    """Return `payload` with its header. Raises FrameError for one that is too long."""
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(payload)} bytes was to be sent; at most {MAX_FRAME_BYTES} go")
    return _HEADER.pack(len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into payloads, whatever pieces it arrives in."""

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._pending

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the payloads that are now complete. Raises FrameError."""
        self._pending += data
        payloads = []
        while (payload := self._next()) is not None:
            payloads.append(payload)
        return payloads

    def _next(self) -> bytes | None:
        if len(self._pending) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._pending)
        if length > MAX_FRAME_BYTES:
            raise FrameError(f"the peer announced a frame of {length} bytes; at most {MAX_FRAME_BYTES} go")
        end = _HEADER.size + length
        if len(self._pending) < end:
            return None
        payload = bytes(self._pending[_HEADER.size : end])
        del self._pending[:end]
        return payload
