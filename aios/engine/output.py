"""A generation's output as text: bytes to characters, stop strings, tool calls.

Owns what of the output may be shown already. Text is held back while it may yet become a stop string, a character or
a tool call; tool calls are never part of the text.
"""

import codecs
from collections.abc import Sequence

from aios.abi.chat import ToolCall
from aios.formats.calls import CallParser
from aios.formats.spelling import HERMES, CallFormat


class Output:
    """Takes tokens' bytes, gives printable pieces. With `reads_calls` tool calls are cut out and parsed."""

    def __init__(self, stop: Sequence[str] = (), *, reads_calls: bool = False, format: CallFormat = HERMES) -> None:
        self._stop = tuple(text for text in stop if text)
        self._parser = CallParser(format) if reads_calls else None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded = ""
        self._shown = 0
        self._cut: int | None = None
        self._starts: list[int] = []
        self._start: int | None = None

    @property
    def text(self) -> str:
        """All text shown so far."""
        return self._plain()[: self._shown]

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string occurred; it and what follows are not shown."""
        return self._cut is not None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The complete calls so far."""
        return self._parser.calls if self._parser else ()

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each call begins, one that is not complete too: its first token, of which nothing stands before it."""
        return (*self._starts, *(() if self._start is None else (self._start,)))

    @property
    def calls_since(self) -> int | None:
        """Where the first call begins, or what may yet become one; None outside of calls."""
        return self._starts[0] if self._starts else self._start

    def push(self, data: bytes, at: int = 0) -> str:
        """Take the bytes of token number `at`; return what became printable."""
        if not self._parser:
            self._decoded += self._decoder.decode(data)
            return self._show(is_end=False)
        self._parser.feed(data)
        piece = self._show(is_end=False)
        self._note_start(self._parser, at, has_shown=bool(piece))
        return piece

    def _note_start(self, parser: CallParser, at: int, *, has_shown: bool) -> None:
        """Follow where calls begin. A token that has shown text and begun a tag belongs to the text if it can."""
        while len(self._starts) < len(parser.calls):
            self._starts.append(at if self._start is None else self._start)
            self._start = None
        if not parser.in_call and not parser.held:
            self._start = None
        elif self._start is None or has_shown:
            self._start = at + (has_shown and not parser.in_call)

    def close(self) -> str:
        """The output ended: return what was held back."""
        if self._parser:
            self._parser.close()
        else:
            self._decoded += self._decoder.decode(b"", final=True)
        return self._show(is_end=True)

    def _plain(self) -> str:
        return self._parser.text if self._parser else self._decoded

    def _show(self, *, is_end: bool) -> str:
        text = self._plain()
        if not self._parser and not self._stop:  # nothing is ever held back
            piece, self._shown = text[self._shown :], len(text)
            return piece
        if self._cut is None:
            self._cut = self._find_stop(text)
        end = len(text) if self._cut is None else self._cut
        if self._cut is None and not is_end:
            end -= self._num_uncertain(text)
        piece = text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece

    def _find_stop(self, text: str) -> int | None:
        """Where the stop string begins that is complete first, however the text was cut; of several the longest."""
        starts = [(text.find(stop, max(0, self._shown - len(stop) + 1)), stop) for stop in self._stop]
        ends = [(start + len(stop), start) for start, stop in starts if start >= 0]
        return min(ends)[1] if ends else None

    def _num_uncertain(self, text: str) -> int:
        """Length of the end of `text` that may yet change: half a character, or the beginning of a stop string."""
        half = 1 if self._parser and text.endswith("\ufffd") else 0
        return max([half, *(_overlap(text, stop) for stop in self._stop)])


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
