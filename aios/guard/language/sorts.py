"""Which sorts may be compared, how sorts follow from a tool's JSON schema, and how they are written in residuals."""

from typing import Any

from aios.abi.tools import ToolSpec
from aios.guard.language.syntax import Param, Sort, Tool
from aios.guard.language.values import ANY_PLACES, NUMBERS, TEXTS

_SCALARS = {
    "string": Sort("Str"),
    "integer": Sort("Int"),
    "number": Sort("Decimal", ANY_PLACES),
    "boolean": Sort("Bool"),
}
JSON = Sort("Json")


def family(sort: Sort) -> str:
    """Return the class of sorts whose values may be equal."""
    if sort.kind in TEXTS:
        return "text"
    return "number" if sort.kind in NUMBERS else sort.kind


def comparable(left: Sort, right: Sort) -> bool:
    """Whether `=` between them makes sense; JSON and `unknown` go with everything."""
    if {"Json", "Null"} & {left.kind, right.kind}:
        return True
    if left.kind == right.kind == "List":
        return comparable(left.element or JSON, right.element or JSON)
    if {left.kind, right.kind} == {"Record", "Map"}:
        return True
    return family(left) == family(right) and left.kind not in ("Row", "Labels")


def fits_into(inner: Sort, outer: Sort) -> bool:
    """Whether every known value of the one scalar sort is a value of the other."""
    if inner == outer or (outer.kind in TEXTS and outer.kind != "Enum" and family(inner) == "text"):
        return True
    if inner.kind == outer.kind == "Enum":
        return set(inner.values) <= set(outer.values)
    if outer.kind == "Decimal" and inner.kind in ("Int", "Decimal"):
        return inner.places <= outer.places
    return outer.kind == "Json" and inner.kind in ("Id", "Str", "Bool", "Int", "Decimal", "Enum")


def orderable(sort: Sort) -> bool:
    """Whether `<` makes sense; an Id has no order."""
    return sort.kind in ("Int", "Decimal", "Time", "Duration", "Str", "Json", "Null")


def words(sort: Sort) -> str:
    """Write a sort as rules write it."""
    if sort.kind == "Enum":
        return " | ".join(f'"{value}"' for value in sort.values)
    if sort.kind == "List":
        return f"[{words(sort.element or JSON)}]"
    if sort.kind == "Decimal":
        return "Decimal" if sort.places >= ANY_PLACES else f"Decimal({sort.places})"
    return {"Null": "unknown", "Row": "a row"}.get(sort.kind, sort.kind)


def example(sort: Sort) -> Any:
    """Return some JSON value of a sort: in plans it stands for any that fits."""
    if sort.kind == "Enum":
        return sort.values[0]
    if sort.kind == "Record":
        return {name: example(field) for name, field in sort.fields}
    return {"Bool": False, "Int": 0, "Decimal": 0, "Time": 0, "List": [], "Map": {}, "Json": {}}.get(sort.kind, "")


def declared(spec: ToolSpec) -> Tool:
    """Declare a tool from its JSON schema: what `required` does not name is optional."""
    schema = spec.parameters
    required = set(schema.get("required", ()))
    properties: dict[str, Any] = schema.get("properties", {})
    params = tuple(_param(name, part, name not in required, schema) for name, part in properties.items())
    returns = None if spec.returns is None else schema_sort(spec.returns, spec.returns)[0]
    return Tool(spec.name, params, returns)


def defaults(spec: ToolSpec) -> dict[str, Any]:
    """Return the default values that a specification gives (null is none)."""
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    return {
        name: part["default"]
        for name, part in properties.items()
        if isinstance(part, dict) and part.get("default") is not None
    }


def _param(name: str, part: Any, optional: bool, root: dict[str, Any]) -> Param:
    sort, nullable = schema_sort(part, root)
    return Param(name, sort, optional, nullable)


def schema_sort(part: Any, root: dict[str, Any], depth: int = 0) -> tuple[Sort, bool]:
    """Return the sort of a schema, and whether it takes null. What has no sort of its own is Json."""
    if not isinstance(part, dict) or depth > 20:
        return JSON, False
    if "$ref" in part:
        return schema_sort(_referred(part["$ref"], root), root, depth + 1)
    for word in ("anyOf", "oneOf"):
        if word in part:
            return _either(part[word], root, depth)
    if isinstance(part.get("type"), list):
        return _either([{**part, "type": kind} for kind in part["type"]], root, depth)
    return _single(part, root, depth), False


def _referred(pointer: Any, root: dict[str, Any]) -> Any:
    found: Any = root
    for step in str(pointer).removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _either(parts: list[Any], root: dict[str, Any], depth: int) -> tuple[Sort, bool]:
    others = [part for part in parts if part != {"type": "null"} and not _is_null(part)]
    if len(others) == 1:
        return schema_sort(others[0], root, depth + 1)[0], len(others) != len(parts)
    return JSON, False


def _is_null(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "null"


def _single(part: dict[str, Any], root: dict[str, Any], depth: int) -> Sort:
    members = [part["const"]] if "const" in part else part.get("enum")
    if members and all(isinstance(member, str) for member in members):
        return Sort("Enum", values=tuple(members))
    kind = part.get("type")
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "array" and "items" in part:
        return Sort("List", element=schema_sort(part["items"], root, depth + 1)[0])
    return JSON


def sort_json(sort: Sort) -> list[Any]:
    """Write a sort as JSON."""
    element = None if sort.element is None else sort_json(sort.element)
    fields = [[name, sort_json(field)] for name, field in sort.fields]
    return [sort.kind, sort.places, sort.rounds, list(sort.values), element, fields]


def sort_from_json(found: list[Any]) -> Sort:
    """Read a sort written by `sort_json`."""
    kind, places, rounds, values, element, fields = found
    inner = None if element is None else sort_from_json(element)
    return Sort(
        kind, places, rounds, tuple(values), inner, tuple((name, sort_from_json(part)) for name, part in fields)
    )
