"""`tools ls` and `tools show`."""

import json

from aios.abi.tools import Effect, ToolSpec
from tests.cli.conftest import Aios
from tests.cli.living import living_kernel

SEARCH = ToolSpec(
    name="search",
    description="Search the docs.\nSlowly.",
    effect=Effect.READ,
    parameters={"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)


def test_tools_are_listed_with_effect_and_arguments(aios: Aios) -> None:
    with living_kernel(tools=[SEARCH]):
        code, out, _err = aios("tools", "ls")
        listed = json.loads(aios("tools", "ls", "--json").out)
    assert code == 0
    assert out.splitlines()[1].split(maxsplit=3) == ["search", "read", "query", "Search the docs."]
    assert listed["tools"] == [SEARCH.model_dump(mode="json")]


def test_one_tool_is_shown_whole(aios: Aios) -> None:
    with living_kernel(tools=[SEARCH]):
        text = aios("tools", "show", "search").out
        shown = json.loads(aios("tools", "show", "search", "--json").out)
    assert text.splitlines() == ["search: effect read", "  Search the docs.", "  Slowly.", '  query: {"type":"string"}']
    assert shown == SEARCH.model_dump(mode="json")


def test_an_unknown_tool_names_the_known(aios: Aios) -> None:
    with living_kernel(tools=[SEARCH]):
        code, _out, err = aios("tools", "show", "serch")
    assert code == 2
    assert "it knows: search" in err
