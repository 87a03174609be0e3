"""Server-sent events, read from bytes however they were cut, with bounds on what a sender can make us keep."""

from typing import Any

import msgspec

from aios.remote.failures import Malformed

MAX_LINE_BYTES = 1 << 20
MAX_ANSWER_BYTES = 32 << 20


class EventReader:
    """Takes bytes, gives the JSON objects of `data:` lines. Holds at most one line."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._total = 0
        self.is_done = False
        """Whether `[DONE]` was read; what follows is ignored."""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the objects that are complete now. Raises Malformed."""
        self._total += len(data)
        if self._total > MAX_ANSWER_BYTES:
            raise Malformed(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        *lines, rest = data.split(b"\n")
        found: list[dict[str, Any]] = []
        for line in lines:
            self._line += line
            self._check_length()
            found.extend(self._object(bytes(self._line)))
            self._line.clear()
        self._line += rest
        self._check_length()
        return found

    def _check_length(self) -> None:
        if len(self._line) > MAX_LINE_BYTES:
            raise Malformed(f"a line of the stream is longer than {MAX_LINE_BYTES} bytes")

    def _object(self, line: bytes) -> list[dict[str, Any]]:
        if self.is_done or not line.startswith(b"data:"):
            return []  # comments, event names, blank lines
        text = line[5:].strip()
        if text == b"[DONE]":
            self.is_done = True
            return []
        try:
            value = msgspec.json.decode(text)  # strict: no half characters, no NaN
        except (ValueError, RecursionError) as error:
            raise Malformed("an event of the stream is not JSON") from error
        if not isinstance(value, dict):
            raise Malformed(f"an event of the stream is {type(value).__name__}, not an object")
        return [value]
