"""Turn what a tool returned into JSON, or say which type has no JSON form."""

import math
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from aios.abi.base import Json


def to_json(value: Any) -> Json:
    """Return `value` as JSON values: models, dataclasses, dates, sets and the like are written as pydantic does.

    Raises TypeError naming the type that cannot be written, ValueError for NaN and infinities.
    """
    try:
        result = to_jsonable_python(value, inf_nan_mode="constants")
    except (PydanticSerializationError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise TypeError(f"a {type(value).__name__} that JSON cannot hold ({error})") from error
    _check(result)
    return result


def _check(value: Json) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the number {value}, which JSON lacks")
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                raise TypeError(f"an object with the key {key!r}, not a string")
            _check(child)
    elif isinstance(value, list):
        for child in value:
            _check(child)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("text with a lone surrogate, which JSON lacks") from error
