"""Who may import whom: the contracts of pyproject.toml, what stays light, and what may be imported late."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import ROOT, Source, package_sources

HEAVY = ("torch", "z3", "sqlalchemy", "textual", "fastapi", "mcp", "alembic", "triton", "llguidance")

LATE: dict[str, str] = {
    "aios/boot/compose.py": "the engine host loads the model while the rest of the kernel is imported",
    "aios/boot/cores.py": "what only endpoints need costs each start 50 ms",
    "aios/cli/main.py": "a command loads its own part only: `aios ps` must not wait for the engine's libraries",
    "aios/kernel/store/migrate.py": "Alembic costs 0.2 s and is needed once in a store's life",
}
"""Files that may import inside functions, each with its reason."""


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_aios_loads_nothing_heavy() -> None:
    code = f"import aios, sys, json; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_finding_a_kernel_loads_nothing_heavy() -> None:
    heavy = (*HEAVY, "pydantic")
    code = f"import aios.rundir, sys, json; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_folder_of_the_operations_is_no_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_imports_stand_at_the_top() -> None:
    late = {f"{source.path}:{line}" for source in package_sources() for line in _late_imports(source)}
    assert {place for place in late if place.rsplit(":", 1)[0] not in LATE} == set()


def test_no_late_import_is_excused_that_is_not_there() -> None:
    late = {source.path for source in package_sources() if any(_late_imports(source))}
    assert set(LATE) - late == set()


def test_imports_are_absolute() -> None:
    relative = [
        f"{source.path}:{node.lineno}"
        for source in package_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def _late_imports(source: Source) -> Iterator[int]:
    """Lines of imports inside functions and methods, but for an operation's own device half: CPUs never load Triton."""
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom) and not _is_device_half(source, node):
                    yield node.lineno


def _is_device_half(source: Source, node: ast.Import | ast.ImportFrom) -> bool:
    is_operation = str(source.path).startswith("kernels/aios_kernels/")
    return is_operation and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aios_kernels.triton.")
