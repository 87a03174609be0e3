"""The package's own files, parsed: what the architecture tests look at."""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Source(NamedTuple):
    """One file of the package."""

    path: str
    """Relative to the project, with slashes."""
    text: str
    tree: ast.Module


@functools.cache
def package_sources() -> tuple[Source, ...]:
    """Return every Python file of both packages."""
    paths = [*(ROOT / "aios").rglob("*.py"), *(ROOT / "kernels" / "aios_kernels").rglob("*.py")]
    return tuple(_parse(path) for path in sorted(paths))


def _parse(path: Path) -> Source:
    text = path.read_text()
    return Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text))
