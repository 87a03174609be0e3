"""Descriptions from docstrings in Google, NumPy or Sphinx style. The one door to griffe."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import griffe

_QUIET: griffe.PerStyleOptions = {
    "google": {"warnings": False},
    "numpy": {"warnings": False},
    "sphinx": {"warnings": False},
}


class Description(NamedTuple):
    """What a docstring says of a function and of each parameter."""

    text: str
    parameters: dict[str, str]


def describe(function: Callable[..., Any]) -> Description:
    """Read the docstring of `function`; whatever it does not say is empty."""
    text: list[str] = []
    parameters: dict[str, str] = {}
    docstring = griffe.Docstring(inspect.getdoc(function) or "")
    # Not by griffe's patterns: they miss a Sphinx field on the last line.
    for section in griffe.parse_auto(docstring, method="max_sections", per_style_options=_QUIET):
        if isinstance(section, griffe.DocstringSectionText):
            text.append(section.value.strip())
        elif isinstance(section, griffe.DocstringSectionParameters):
            parameters.update({item.name: _one_line(item.description) for item in section.value})
    return Description("\n\n".join(text), parameters)


def _one_line(text: str) -> str:
    return " ".join(text.split())
