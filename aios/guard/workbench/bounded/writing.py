"""The script of a question in SMT-LIB2, all in bits, and the values that a solver gives in answer.

Owns the text on the way there and back. Knows no solver. Invariant: the value of an expression in a `Model` is that
of the expression, whatever its width was.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from aios.guard.workbench.bounded.expressions import Constant, Ex, Graph, reached
from aios.guard.workbench.bounded.layout import NUMERIC, Layout


class Question(NamedTuple):
    """A script, and the variables in it."""

    script: str
    variables: tuple[Ex, ...]
    layout: Layout

    def read(self, values: Sequence[str]) -> dict[str, Constant]:
        """Read the variables' values. Raises ValueError."""
        return {one.name: self._value(one, text) for one, text in zip(self.variables, values, strict=True)}

    def _value(self, variable: Ex, text: str) -> Constant:
        if variable.sort == "Bool":
            return text == "true"
        bits = int(text[2:], {"#b": 2, "#x": 16}[text[:2]])
        if variable.sort == "Text":
            return bits
        family = self.layout.of(variable)
        signed = bits - (1 << family.width) if bits >> (family.width - 1) else bits
        return int(signed * family.unit)


class Writer:
    """Writes the expressions of one question."""

    def __init__(self, width: int) -> None:
        """`width`: bits of a text."""
        self._width, self._layout = width, Layout()

    def question(
        self,
        graph: Graph,
        roots: Sequence[Ex],
        named: Mapping[str, Ex] | None = None,
        fixed: dict[int, Ex] | None = None,
    ) -> Question:
        """Return the script that asserts all roots, those in `named` by their names; `fixed`: variables with values."""
        named = named or {}
        every = graph.closed([*named.values(), *roots], fixed)
        inside = sorted(reached(every, set()), key=lambda part: part.number)
        self._layout.add(inside)
        variables = tuple(part for part in inside if part.op == "var")
        lines = ["(set-logic QF_BV)"]
        lines += [f"(declare-const {part.name} {self._sort(part)})" for part in variables]
        lines += [
            f"(define-fun e{part.number} () {self._sort(part)} {self._text(part)})"
            for part in inside
            if part.op not in ("var", "const")
        ]
        lines += [f"(assert (! {self._short(part)} :named {name}))" for name, part in named.items()]
        lines += [f"(assert {self._short(part)})" for part in every[len(named) :]]
        return Question("\n".join(lines), variables, self._layout)

    def _sort(self, part: Ex) -> str:
        if part.sort == "Bool":
            return "Bool"
        return f"(_ BitVec {self._bits(part)})"

    def _bits(self, part: Ex) -> int:
        return self._width if part.sort == "Text" else self._layout.of(part).width

    def _short(self, part: Ex, beside: Ex | None = None) -> str:
        """An expression by its name; a constant as the numbers are that it stands beside."""
        if part.op == "var":
            return part.name
        if part.op != "const":
            return f"e{part.number}"
        if part.sort == "Bool":
            return "true" if part.value else "false"
        if part.sort == "Text":
            return _constant(int(part.value), self._width)
        assert beside is not None
        return _constant(_whole(Fraction(part.value), self._layout.of(beside).unit), self._bits(beside))

    def _text(self, part: Ex) -> str:
        if part.op == "to_real":
            return self._short(part.parts[0])
        if part.op == "*":
            return self._product(part)
        if part.op == "is_int":
            return self._is_whole(part.parts[0])
        op, beside = part.op, part
        if op in ("=", "<="):
            beside = next(one for one in part.parts if one.op != "const")
        if op == "<=":
            op = "bvule" if beside.sort == "Text" else "bvsle"
        op = "bvadd" if op == "+" else op
        return f"({op} {' '.join(self._short(one, beside) for one in part.parts)})"

    def _product(self, part: Ex) -> str:
        """A multiple, from the bits and unit of one family to those of another."""
        inner, width = part.parts[1], self._bits(part)
        factor = Fraction(part.parts[0].value) * self._layout.of(inner).unit / (self._layout.of(part).unit or 1)
        given, text = self._bits(inner), self._short(inner)
        wide = max(given, width) + abs(factor.numerator).bit_length()
        text = f"(bvmul {_constant(factor.numerator, wide)} ((_ sign_extend {wide - given}) {text}))"
        if factor.denominator != 1:  # exact: the number is a multiple of more than its family's unit
            text = f"(bvsdiv {text} {_constant(factor.denominator, wide)})"
        return f"((_ extract {width - 1} 0) {text})"

    def _is_whole(self, part: Ex) -> str:
        family = self._layout.of(part)
        if part.sort not in NUMERIC or family.unit.denominator == 1:
            return "true"
        width = self._bits(part)
        rest = f"(bvsrem {self._short(part)} {_constant(family.unit.denominator, width)})"
        return f"(= {rest} {_constant(0, width)})"


def _constant(value: int, width: int) -> str:
    return f"(_ bv{value % (1 << width)} {width})"


def _whole(value: Fraction, unit: Fraction) -> int:
    """How many units a value has."""
    return int(value / unit) if unit else 0


class Model:
    """Values of variables; those that do not matter, and were not asked for, are false and zero."""

    def __init__(self, values: Mapping[str, Constant], text: int = 0) -> None:
        """`text` is the number of the text that stands for all that do not matter."""
        self._values, self._text = values, text
        self._known: dict[int, Constant] = {}

    def of(self, root: Ex) -> Constant:
        """The value of an expression."""
        if root.number not in self._known:
            for part in sorted(reached([root], set(self._known)), key=lambda one: one.number):
                self._known[part.number] = self._value(part)
        return self._known[root.number]

    def holds(self, root: Ex) -> bool:
        """Whether a condition holds."""
        return bool(self.of(root))

    def matters(self, variable: str) -> bool:
        """Whether the solver gave a value to a variable."""
        return variable in self._values

    def _value(self, part: Ex) -> Constant:
        if part.op == "const":
            return part.value
        if part.op == "var":
            return self._values.get(part.name, {"Bool": False, "Text": self._text}.get(part.sort, 0))
        return _calculated(part.op, [self._known[one.number] for one in part.parts])


def _calculated(op: str, values: list[Constant]) -> Constant:
    if op == "ite":
        return values[1] if values[0] else values[2]
    if op in ("and", "or"):
        return all(values) if op == "and" else any(values)
    if op == "not":
        return not values[0]
    if op == "is_int":
        return Fraction(values[0]).denominator == 1
    if op == "to_real":
        return Fraction(values[0])
    left, right = values
    if op in ("=", "<="):
        return left == right if op == "=" else left <= right
    return Fraction(left) + Fraction(right) if op == "+" else Fraction(left) * Fraction(right)
