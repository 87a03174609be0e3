"""From a typed function to what a model is told."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from llguidance import LLMatcher
from pydantic import BaseModel, Field

from aios.abi.tools import Effect
from aios.errors import UsageError
from aios.tools.context import Ctx
from aios.tools.decorator import tool


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    name: str
    price: Decimal


class Tree(BaseModel):
    label: str
    children: list["Tree"] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


@dataclass
class Deps:
    bank: str


def properties(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = tool(function).spec.parameters["properties"]
    return found


def test_hints_become_the_schema_and_the_docstring_the_descriptions() -> None:
    @tool(effect="read", timeout_s=2.0, concurrency=3, approve=True)
    def find(order: str, limit: int = 10) -> list[str]:
        """Look up an order.

        Newest first.

        Args:
            order: Its number,
                as printed.
            limit: How many.

        Returns:
            Lines.
        """
        return [order] * limit

    spec = find.spec
    assert (spec.name, spec.effect, spec.timeout_s, spec.concurrency) == ("find", Effect.READ, 2.0, 3)
    assert spec.description == "Look up an order.\n\nNewest first."
    assert spec.needs_approval
    assert spec.returns == {"type": "array", "items": {"type": "string"}}
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "order": {"type": "string", "description": "Its number, as printed."},
            "limit": {"type": "integer", "description": "How many.", "default": 10},
        },
        "required": ["order"],
        "additionalProperties": False,
    }


def numpy_style(x: int) -> None:
    """Do.

    Parameters
    ----------
    x : int
        The place.
    """


def sphinx_style(x: int) -> None:
    """Do.

    :param x: The place.
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style])
def test_other_docstring_styles_are_read_too(function: Any) -> None:
    made = tool(function)
    assert made.spec.description == "Do."
    assert made.spec.parameters["properties"]["x"]["description"] == "The place."


def test_the_context_parameter_is_hidden_from_the_model() -> None:
    def bare(ctx: Ctx, x: int) -> None: ...
    def typed(x: int, where: Ctx[Deps]) -> None: ...

    assert list(properties(bare)) == list(properties(typed)) == ["x"]


def test_a_tool_is_still_the_function_that_it_was() -> None:
    @tool
    def double(x: int) -> int:
        """Double it."""
        return 2 * x

    assert double(21) == 42


def test_the_default_effect_is_once() -> None:
    @tool
    def pay(amount: float) -> None: ...

    assert pay.spec.effect is Effect.ONCE


def test_bound_methods_and_partials_and_callable_objects_are_functions_too() -> None:
    class Bank:
        def pay(self, amount: float) -> None: ...
        async def __call__(self, amount: float) -> None: ...

    assert list(properties(Bank().pay)) == ["amount"]
    assert tool(name="bank")(Bank()).spec.name == "bank"


def takes_str(x: str) -> None: ...
def takes_nested(items: list[Item], by: Item | None = None) -> None: ...
def takes_tree(tree: Tree) -> None: ...
def takes_union(pet: Annotated[Cat | Dog, Field(discriminator="kind")]) -> None: ...
def takes_enum(colour: Colour = Colour.RED, size: Literal["s", "m"] = "m") -> None: ...
def takes_sets(tags: set[str], pair: tuple[int, str], table: dict[str, int]) -> None: ...
def takes_rich(when: datetime, cost: Decimal, path: Annotated[str, Field(pattern="^a+$")]) -> None: ...
def takes_bounds(x: Annotated[float, Field(ge=0, lt=5)], s: Annotated[str, Field(max_length=3)]) -> None: ...
def takes_anything(value: Any, rest: dict[str, Any], names: list[Any]) -> None: ...
def takes_dataclass(deps: Deps) -> None: ...
def takes_reserved(copy: int, json: str, model_config: bool, title: str) -> None: ...
def takes_nothing() -> None: ...


ALL = [
    takes_str, takes_nested, takes_tree, takes_union, takes_enum, takes_sets, takes_rich, takes_bounds,
    takes_anything, takes_dataclass, takes_reserved, takes_nothing,
]  # fmt: skip


@pytest.mark.parametrize("function", ALL)
def test_every_schema_is_one_that_the_decoder_can_enforce(function: Any) -> None:
    grammar = LLMatcher.grammar_from_json_schema(tool(function).spec.parameters)
    assert LLMatcher.validate_grammar(grammar) == ""


def test_references_are_inlined_and_nested_objects_closed() -> None:
    schema = tool(takes_nested).spec.parameters
    assert "$defs" not in schema
    assert schema["properties"]["items"]["items"]["additionalProperties"] is False


def test_a_recursive_type_keeps_its_definition() -> None:
    assert list(tool(takes_tree).spec.parameters["$defs"]) == ["Tree"]


def test_arguments_may_have_names_that_schemas_use() -> None:
    assert list(properties(takes_reserved)) == ["copy", "json", "model_config", "title"]


class Opaque:
    pass


def no_hint(x): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # the mistake under test
def var_args(*xs: int) -> None: ...
def positional(x: int, /) -> None: ...
def opaque(x: Opaque) -> None: ...
def bad_default(x: Any = Opaque) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [(no_hint, "'x' has no type"), (var_args, r"\*xs"), (positional, "'?x"), (opaque, "Opaque"), (bad_default, "'x'")],
)
def test_what_cannot_be_offered_to_a_model_is_refused_at_once(function: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tool(function)


def test_a_bad_name_or_effect_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="effect"):
        tool(effect="perhaps")(takes_str)
    with pytest.raises(UsageError, match="name"):
        tool(name="two words")(takes_str)


def test_a_reversible_tool_names_its_inverse() -> None:
    @tool
    def close(x: str) -> None: ...

    def open_it(x: str) -> None: ...

    with pytest.raises(UsageError, match="inverse="):
        tool(effect="reversible")(open_it)
    assert tool(effect="reversible", inverse=close)(open_it).spec.inverse == "close"


def test_approval_may_depend_on_the_arguments_and_fails_closed() -> None:
    @tool(approve=lambda arguments: bool(arguments["amount"] > 100))
    def pay(amount: float) -> None: ...

    assert pay.spec.needs_approval
    assert not pay.needs_approval({"amount": 5})
    assert pay.needs_approval({"amount": 500})
    assert pay.needs_approval({})
