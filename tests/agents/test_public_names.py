"""The public surface: `import aios` is light, and the stub says what the table loads."""

import ast
import subprocess
import sys
from pathlib import Path

import aios

HEAVY = {"torch", "z3", "sqlalchemy", "textual", "fastapi", "mcp", "pydantic", "anyio", "griffe", "httpx2"}


def test_importing_aios_loads_nothing_heavy() -> None:
    program = "import sys, aios; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_every_public_name_loads_and_is_in_the_stub() -> None:
    stub = ast.parse(Path(aios.__file__).with_suffix(".pyi").read_text())
    stubbed = {
        (node.module, alias.name) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    loaded = {(module, name) for module, names in vars(aios)["_MODULES"].items() for name in names}
    assert stubbed == loaded
    assert sorted(name for _, name in loaded) == list(aios.__all__)
    assert all(getattr(aios, name) is not None for name in aios.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(aios, "agnet")
