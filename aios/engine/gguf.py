"""What a GGUF file holds: tensors as they are stored, and metadata by key, of the kind that the caller expects.

Owns the encodings' sizes and the checked access to metadata; `aios.engine.ggufreader` reads files. It does not know
what a key or a tensor means.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from aios.errors import ModelError

Value = str | int | float | bool | Sequence[Any]


class TensorType(IntEnum):
    """Encodings of tensor data, by their number in the file; those that we can dequantise."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q8_0 = 8
    Q4_K = 12
    Q6_K = 14
    BF16 = 30

    @property
    def block_elements(self) -> int:
        """Elements that share one block."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return _BLOCKS[self][1]


_BLOCKS = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q8_0: (32, 34),
    TensorType.Q4_K: (256, 144),
    TensorType.Q6_K: (256, 210),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as stored: `shape` is row-major (the file lists dimensions the other way round)."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A parsed file. The tensors' data stay mapped as long as one of them is referenced."""

    path: Path
    metadata: dict[str, Value]
    tensors: dict[str, GgufTensor]

    def text(self, key: str, default: str | None = None) -> str:
        """Return the string at `key`; ModelError when it is missing (and there is no default) or no string."""
        return str(self._typed(key, default, (str,), "a string"))

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the integer at `key`."""
        return int(self._typed(key, default, (int,), "an integer"))

    def number(self, key: str, default: float | None = None) -> float:
        """Return the number at `key`; it is finite."""
        value = float(self._typed(key, default, (int, float), "a number"))
        if not math.isfinite(value):
            raise ModelError(f"{self.path.name}: '{key}' is {value}; a finite number was expected")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the truth value at `key`."""
        return bool(self._typed(key, default, (bool,), "true or false"))

    def strings(self, key: str) -> list[str]:
        """Return the list of strings at `key`."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or (value and not isinstance(value[0], str)):
            raise ModelError(f"{self.path.name}: '{key}' should be a list of strings, found {describe(value)}")
        return value

    def integers(self, key: str, default: Sequence[int] | None = None) -> Sequence[int]:
        """Return the integers at `key`."""
        value: Any = self.metadata.get(key, default)
        if not isinstance(value, list | array) or (value and not isinstance(value[0], int)):
            raise ModelError(f"{self.path.name}: '{key}' should be a list of integers, found {describe(value)}")
        return value

    def numbers(self, key: str) -> Sequence[float]:
        """Return the numbers at `key`; all are finite."""
        value: Any = self.metadata.get(key)
        if not isinstance(value, array) or not math.isfinite(sum(value)):
            raise ModelError(f"{self.path.name}: '{key}' should be a list of numbers, found {describe(value)}")
        return value

    def _typed(self, key: str, default: Any, kinds: tuple[type, ...], wanted: str) -> Any:
        value = self.metadata.get(key, default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ModelError(f"{self.path.name}: '{key}' should be {wanted}, found {describe(value)}")
        return value


def describe(value: Any) -> str:
    """Return a value of the metadata as messages show it."""
    if value is None:
        return "nothing"
    if isinstance(value, str | int | float):
        return f"{str(value)[:60]!r}"
    return f"a list of {len(value)} elements"
