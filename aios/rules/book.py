"""`Rules`: a rule file as a Python value, and what can be done with it.

Its text is the same language as a file's; what is written here and what is read from the text are the same tree.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.layout import laid_out
from aios.guard.language.parser import parse
from aios.guard.language.printing import printed
from aios.guard.language.syntax import Decl, RuleFile
from aios.guard.workbench.rehearsal import rehearse
from aios.guard.workbench.replay import Replay
from aios.guard.workbench.review import Review, review
from aios.rules.declarations import Declared
from aios.rules.terms import Term, declared_by

_APART = "\n\f\n"
"""A form feed ends a declaration: neither text can continue the other."""


class Rules(str):
    """A rule file: its text, so that it can be given wherever rules are taken (`Agent(…, rules=rules)`)."""

    __slots__ = ("file",)
    file: str
    """Named in errors."""

    def __new__(cls, *declared: Declared | Term) -> "Rules":
        """Rules from declarations made in Python."""
        tree = RuleFile(tuple(tree for one in declared for tree in _trees(one)))
        return cls._named(laid_out(printed(tree)), "<rules>")

    @classmethod
    def of(cls, text: str, file: str = "<rules>") -> "Rules":
        """Rules from text. Raises RuleError."""
        parse(text, file)
        return cls._named(text, file)

    @classmethod
    def read(cls, path: Path | str) -> "Rules":
        """Rules from a file. Raises RuleError."""
        return cls.of(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def _named(cls, text: str, file: str) -> "Rules":
        found = str.__new__(cls, text)
        found.file = file
        return found

    def __add__(self, more: str) -> "Rules":
        """Both together: a call must obey each."""
        return Rules.of(f"{self}{_APART}{more}")

    def gate(self, tools: Sequence[ToolSpec] = (), *, viability: str | None = None) -> RuleGate:
        """A gate over an empty trace. Raises RuleError."""
        return compile_rules(self, file=self.file, tools=tools, complete=True, viability=viability)

    def check(self) -> Review:
        """What `aios rules check` says without a solver; never raises RuleError."""
        return review(self, self.file)

    def test(self) -> list[str]:
        """Run the scenarios; return what failed, one text each."""
        return [
            f"{scenario.title}, line {failure.at.line}: {failure.message}"
            for scenario, failure in rehearse(self.gate())
            if failure is not None
        ]

    def replay(self, trace: Iterable[bytes], *, audit: bool = False, viability: str | None = None) -> dict[str, Any]:
        """What `aios rules replay` answers for one trace (RULES.md section 6). Raises RuleError."""
        gate = self.gate(viability=viability)
        return Replay(gate, is_audit=audit).run(trace).report(self.file)


def _trees(one: Declared | Term) -> tuple[Decl, ...]:
    return declared_by(one) if isinstance(one, Term) else one.trees
