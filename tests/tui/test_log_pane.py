"""Running text is broken at the pane's edge, wherever its pieces were cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.tui.log_pane import wrapped


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.text("ab\n", max_size=40), max_size=8), st.integers(1, 12))
def test_no_line_is_too_long_and_nothing_is_lost(pieces: list[str], width: int) -> None:
    written, column = "", 0
    for piece in pieces:
        broken, column = wrapped(piece, column, width)
        written += broken
    assert all(len(line) <= width for line in written.split("\n"))
    assert len(written.split("\n")[-1]) == column
    assert written.replace("\n", "") == "".join(pieces).replace("\n", "")


def test_a_line_is_broken_only_where_it_must_be() -> None:
    assert wrapped("abcdef\ngh", 0, 4) == ("abcd\nef\ngh", 2)
    assert wrapped("cd", 2, 4) == ("cd", 4)
    assert wrapped("e", 4, 4) == ("\ne", 1)
