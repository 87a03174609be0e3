"""Every module, public class and public function says what it is; every variable of ours is listed in one place."""

import ast
import re
from collections.abc import Iterator

from aios import config, env
from tests.architecture.sources import Source, package_sources

MOST_LINES = 700
"""A file that is longer holds more than one idea."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_every_module_has_a_docstring() -> None:
    silent = [source.path for source in package_sources() if source.text.strip() and not ast.get_docstring(source.tree)]
    assert silent == []


def test_everything_public_has_a_docstring() -> None:
    promised = _promised()
    silent = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in package_sources()
        for node in _public(source.tree)
        if not ast.get_docstring(node) and not _is_excused(node, promised)
    ]
    assert silent == []


def test_no_file_is_a_driver_of_everything() -> None:
    long = {
        source.path: source.text.count("\n") for source in package_sources() if source.text.count("\n") > MOST_LINES
    }
    assert long == {}


def test_every_variable_of_ours_is_in_the_typed_files() -> None:
    known = {value for name, value in vars(env).items() if name.isupper() and isinstance(value, str)}
    known |= {f"AIOS_{name.upper()}" for name in config.Settings.model_fields}
    strangers = {
        f"{source.path}:{node.lineno} {node.value}"
        for source in package_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"AIOS_[A-Z_]+[A-Z]", node.value)
        and node.value not in known
    }
    assert strangers == set()


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Public definitions of a module and the public methods of its public classes; not what is inside functions."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _is_excused(node: Definition, promised: set[str]) -> bool:
    """Plain data whose fields speak; an overload; a question; a member of a Protocol; one that keeps its promise."""
    if isinstance(node, ast.ClassDef):
        return all(isinstance(part, ast.AnnAssign | ast.Assign | ast.Expr | ast.Pass) for part in node.body)
    names = {ast.unparse(decorator) for decorator in node.decorator_list}
    return (
        "overload" in names
        or node.name.startswith(("is_", "has_", "can_"))
        or node.name in promised
        or ast.unparse(node.body[-1]) == "..."
    )


def _promised() -> set[str]:
    """Names of the documented methods of Protocols and base classes: who implements one need not say it again."""
    classes = [node for source in package_sources() for node in source.tree.body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    return {
        method.name
        for node in classes
        if node.name in bases or any("Protocol" in ast.unparse(base) for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(method)
    }


def test_the_scan_sees_methods_of_public_classes() -> None:
    tree = ast.parse("class A:\n def f(self): ...\n def _g(self): ...\nclass _B:\n def h(self): ...\n")
    source = Source("x.py", "", tree)
    assert [node.name for node in _public(source.tree)] == ["A", "f"]
