"""The error tree: codes, exit codes, and texts that a person can act on."""

import inspect

import pytest

from aios import errors
from aios.errors import AiosError, RuleError, SyscallError, ToolError, ToolTimeout

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [vars(kind).get("code") for kind in CLASSES if kind is not SyscallError]
    assert None not in codes
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_in_the_tree_at_the_top_of_its_module(kind: type[AiosError]) -> None:
    assert issubclass(kind, AiosError)
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_codes_are_those_of_the_command_line(kind: type[AiosError]) -> None:
    assert kind.exit_code in (1, 2, 75, 77, 78, 124, 125, 137)


def test_a_rule_error_points_at_the_place() -> None:
    error = RuleError("expected 'then'", file="a.rules", line=3, column=5, text="tool pay when x")
    assert str(error) == "a.rules:3:5: expected 'then'\n    tool pay when x\n        ^"


def test_a_refused_syscall_ends_a_command_with_77_and_a_failed_one_with_1() -> None:
    denied = SyscallError("no", reply_code="E-ACCESS", denied=True)
    failed = SyscallError("no", reply_code="E-TOOL")
    assert (denied.exit_code, denied.code) == (77, "E-ACCESS")
    assert (failed.exit_code, failed.code) == (1, "E-TOOL")


def test_only_a_timeout_leaves_the_effect_of_a_tool_open() -> None:
    assert ToolError("x").effect_certain
    assert not ToolTimeout("x").effect_certain
