"""The two kinds of types of the ABI: frozen pydantic models (validated at the door) and msgspec structs (wire)."""

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = Any
"""A JSON value: None, bool, int, float, str, list, dict with string keys."""


class Model(BaseModel):
    """A frozen, closed pydantic model: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
