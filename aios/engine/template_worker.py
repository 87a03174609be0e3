"""Rendering a stranger's template where it can do no harm: in a child process with little memory.

Owns the rendering itself (`render_here`), the child's main loop and the parent's side of it (`Worker`). One JSON
object a line goes in, one comes out. A child that dies, answers too late or too much is ended and the rendering is a
ModelError; the next rendering starts another child. The child ends with its parent (end of input).
"""

import contextlib
import datetime
import json
import re
import resource
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import minijinja

from aios.errors import ModelError

Renderer = Callable[[str, Mapping[str, Any], str], str]
"""From a template, its variables and the day (ISO 8601) that it may write, to text; raises ModelError."""

FUEL = 200_000
"""Instructions per rendering; a conversation of 1,000 messages takes about a tenth of it."""
MEMORY_BYTES = 512 << 20
"""Address space of the child."""
TIMEOUT_S = 10.0
"""For one rendering, the start of a child included."""
MAX_TEXT = 1 << 24


def render_here(source: str, facts: Mapping[str, Any], day: str) -> str:
    """Render in this process, under fuel, with what the models' makers count on beside plain Jinja."""
    environment = minijinja.Environment(
        trim_blocks=True, lstrip_blocks=True, fuel=FUEL, pycompat=True, auto_escape_callback=lambda name: False
    )
    environment.add_global("raise_exception", _refuse)
    environment.add_global("strftime_now", datetime.date.fromisoformat(day).strftime)
    environment.add_filter("tojson", _to_json)
    # minijinja takes nothing for iterable, and no text for a sequence; Jinja, for which templates are written, differs.
    environment.add_test("iterable", lambda value: isinstance(value, _HELD))
    environment.add_test("sequence", lambda value: isinstance(value, _HELD))
    try:
        text: str = environment.render_str(plain(source), "chat", **facts)
    except (minijinja.TemplateError, _Refused, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"chat template: {_first_line(error)}") from error
    if len(text) > MAX_TEXT:
        raise ModelError(f"chat template: it gives {len(text)} characters; the limit is {MAX_TEXT}")
    return text


_HELD = (str, list, tuple, dict)


def plain(source: str) -> str:
    """Return the template without the marks around what an assistant says, which matter in training alone."""
    return _GENERATION.sub(lambda mark: f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}", source)


_GENERATION = re.compile(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})")


class Worker:
    """The parent's side; may be used by several threads, one rendering at a time."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s, self._lock = timeout_s, threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, source: str, facts: Mapping[str, Any], day: str) -> str:
        """Render in the child."""
        with self._lock:
            child = self._running()
            answer = self._ask(child, json.dumps({"source": source, "facts": facts, "day": day}).encode() + b"\n")
            if answer is None:
                end(child)
                raise ModelError(
                    f"chat template: it was stopped: more than {MEMORY_BYTES >> 20} MB, {MAX_TEXT} characters or "
                    f"{self._timeout_s:g} s; models pulled by their known names bring a template that works"
                )
        if "error" in answer:
            raise ModelError(answer["error"])
        return str(answer["text"])

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            command = [sys.executable, "-m", __name__]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            weakref.finalize(self, end, self._child)
        return self._child

    def _ask(self, child: "subprocess.Popen[bytes]", line: bytes) -> dict[str, Any] | None:
        """Return the child's answer, None when it gave none."""
        assert child.stdin and child.stdout
        try:
            child.stdin.write(line)
            child.stdin.flush()
        except OSError:
            return None
        return _read(child, time.monotonic() + self._timeout_s)


def end(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child and release its pipes; idempotent."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            _close(pipe)


def main() -> None:
    """Answer requests until the input ends."""
    _limit_memory()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            answer = {"text": render_here(request["source"], request["facts"], request["day"])}
        except ModelError as error:
            answer = {"error": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _read(child: "subprocess.Popen[bytes]", deadline: float) -> dict[str, Any] | None:
    assert child.stdout
    got = bytearray()
    while not got.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        part = child.stdout.read1(1 << 16) if ready else b""  # type: ignore[attr-defined]  # a BufferedReader
        got += part
        if not part or len(got) > 8 * MAX_TEXT:
            return None
    answer: dict[str, Any] = json.loads(got)
    return answer


def _limit_memory() -> None:
    # macOS has no such limit: what is left there is the parent's timeout and a process of its own.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _close(pipe: Any) -> None:
    # Closing may try to send what a dead child did not take.
    with contextlib.suppress(OSError):
        pipe.close()


class _Refused(Exception):
    """The template itself refuses the conversation."""


def _refuse(message: str) -> None:
    raise _Refused(f"it refuses this conversation: {message}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as `transformers` has templates write it: nothing escaped for HTML, a space behind `,` and `:`.

    `ensure_ascii` is taken and left aside: the tokenizer knows untrusted text by characters that must stay.
    """
    del ensure_ascii
    between = (separators[0], separators[1]) if separators else None
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=between, sort_keys=sort_keys)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    main()
