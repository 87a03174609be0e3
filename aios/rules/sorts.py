"""Sorts of arguments, results, registers."""

from aios.guard.language.syntax import Sort

Bool, Int, Time, Id, Str, Json = (Sort(kind) for kind in ("Bool", "Int", "Time", "Id", "Str", "Json"))


def Decimal(places: int, *, rounded: bool = False) -> Sort:
    """Numbers with at most so many decimals."""
    return Sort("Decimal", places, rounded)


def Enum(*values: str) -> Sort:
    """One of these texts."""
    return Sort("Enum", values=values)


def List(element: Sort) -> Sort:
    """Lists."""
    return Sort("List", element=element)


def Map(element: Sort) -> Sort:
    """Maps from texts."""
    return Sort("Map", element=element)


def Record(**fields: Sort) -> Sort:
    """Objects with these fields."""
    return Sort("Record", fields=tuple(fields.items()))
