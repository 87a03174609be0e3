"""Output as text: characters, stop strings and tool calls, whatever pieces the bytes come in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.chat import ToolCall
from aios.engine.output import Output
from aios.formats.calls import render_call

CALL = ToolCall(id="call_0", name="pay", arguments={"to": "ann"})


def pushed(output: Output, data: bytes, size: int) -> list[str]:
    return [output.push(data[at : at + size]) for at in range(0, len(data), size)]


def test_half_a_character_waits_for_its_other_half() -> None:
    output = Output()
    assert pushed(output, "é€".encode(), 1) == ["", "é", "", "", "€"]


def test_a_stop_string_is_found_across_pieces_and_never_shown() -> None:
    output = Output(("STOP",))
    assert pushed(output, b"go STOP on", 1)[:7] == ["g", "o", " ", "", "", "", ""]
    assert (output.is_stopped, output.text, output.close()) == (True, "go ", "")


def test_what_only_began_like_a_stop_string_is_shown_in_the_end() -> None:
    output = Output(("STOP",))
    assert "".join(pushed(output, b"a STO", 1)) == "a "
    assert (output.close(), output.is_stopped) == ("STO", False)


def test_the_earliest_of_several_stop_strings_counts() -> None:
    output = Output(("yz", "bc"))
    output.push(b"abcxyz")
    assert output.text == "a"


def test_a_tool_call_is_not_part_of_the_text() -> None:
    output = Output(reads_calls=True)
    shown = "".join(pushed(output, b"Paying. " + render_call(CALL).encode(), 3)) + output.close()
    assert shown == output.text == "Paying. "
    assert output.tool_calls == (CALL,)


def test_half_a_character_waits_beside_tool_calls_too() -> None:
    output = Output(reads_calls=True)
    assert pushed(output, "aé".encode(), 1) == ["a", "", "é"]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.text(alphabet="abc<é€😀", max_size=30), st.integers(1, 5), st.lists(st.text("abc", min_size=1, max_size=3)))
def test_pieces_add_up_to_the_text_before_the_stop_string_that_is_complete_first(
    text: str, size: int, stop: list[str]
) -> None:
    output = Output(stop)
    shown = "".join(pushed(output, text.encode(), size)) + output.close()
    found = [(text.index(one) + len(one), text.index(one)) for one in stop if one in text]
    assert shown == output.text == text[: min(found)[1] if found else None]
