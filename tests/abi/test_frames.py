"""Frames: whatever pieces a stream arrives in, the same payloads come out; a broken peer is refused early."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi import frames
from aios.abi.frames import FrameError, FrameReader, frame


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 9), min_size=1, max_size=20))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_cutting_of_a_stream_gives_the_same_payloads(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    reader = FrameReader()
    found = []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == payloads
    assert reader.is_between_frames


def test_a_stream_that_ends_inside_a_frame_is_noticed() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"whole") + frame(b"cut")[:-1]) == [b"whole"]
    assert not reader.is_between_frames


def test_a_frame_that_is_too_long_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 10)
    with pytest.raises(FrameError, match="11 bytes"):
        FrameReader().feed(b"\0\0\0\x0b")
    with pytest.raises(FrameError, match="11 bytes"):
        frame(b"x" * 11)
    assert FrameReader().feed(frame(b"x" * 10)) == [b"x" * 10]
