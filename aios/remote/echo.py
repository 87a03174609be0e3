"""Takes the beginning off an answer that repeats the text it was asked to go on with.

Some servers that continue a last message of the assistant say that message first (llama-server, unless it is told by
`continue_final_message`). Text is held back only as long as it may be such a repetition.
"""


class Echo:
    """Expects `begun` once, at the very beginning of what is pushed."""

    def __init__(self, begun: str = "") -> None:
        self._expected, self._held = begun, ""

    def push(self, text: str) -> str:
        """Take in a piece; return what is new in it."""
        if not self._expected:
            return text
        held = self._held + text
        if self._expected.startswith(held) and held != self._expected:
            self._held = held
            return ""
        new = held.removeprefix(self._expected)
        self._expected = self._held = ""
        return new

    def close(self) -> str:
        """The answer ended: what was held back was no repetition."""
        held, self._expected, self._held = self._held, "", ""
        return held
