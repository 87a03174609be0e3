"""What the package never does, whoever wrote the line: run data as code, or reach for a machine of its author."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Source, package_sources

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
"""Formats that run code when they are read."""
CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "numpy.load", "np.load"}
KEYWORDS = {"shell": True, "trust_remote_code": True, "allow_pickle": True}


def _imported(source: Source) -> Iterator[tuple[str, int]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node.lineno


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def _is_forbidden(call: ast.Call) -> bool:
    constants = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    return ast.unparse(call.func) in CALLS or any(constants.get(name) == value for name, value in KEYWORDS.items())


def test_nothing_is_unpickled() -> None:
    found = [
        f"{source.path}:{line}" for source in package_sources() for name, line in _imported(source) if name in MODULES
    ]
    assert found == []


def test_no_data_is_run_as_code() -> None:
    found = [
        f"{source.path}:{call.lineno}" for source in package_sources() for call in _calls(source) if _is_forbidden(call)
    ]
    assert found == []


def test_no_setting_trusts_foreign_code() -> None:
    assert [source.path for source in package_sources() if "trust_remote_code" in source.text] == []


@pytest.mark.parametrize(
    "line",
    ["eval(x)", "torch.load(path)", "run(x, shell=True)", "load(x, trust_remote_code=True)", "exec(x)", "os.system(x)"],
)
def test_the_scan_finds_what_it_looks_for(line: str) -> None:
    (call,) = _calls(Source("x.py", line, ast.parse(line)))
    assert _is_forbidden(call)
