"""What the names of a rule file stand for: tools, groups, constants, registers, relations.

Owns look-up and the arguments a call pattern may write. A tool that nobody has declared yet is *pending*: its
arguments are taken as JSON until a specification comes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from aios.guard.language.lexer import Source, Span
from aios.guard.language.syntax import Const, Decl, Group, Param, Register, Relation, Rule, RuleFile, Sort, Tool, User

TEXT = Sort("Str")
JSON = Sort("Json")
SPECIAL_ARGS = {
    "say": (Param("text", TEXT),),
    "any": (Param("digest", TEXT),),
    "confirm": (Param("digest", TEXT), Param("answer", TEXT), Param("by", TEXT)),
}


@dataclass(slots=True)
class Symbols:
    """All declared names of one rule file, and the tools declared from outside."""

    source: Source
    complete: bool = False
    """Whether every tool is known: an undeclared one is then an error, not pending."""
    tools: dict[str, Tool] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)
    registers: dict[str, Register] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    columns: dict[str, tuple[Sort, ...]] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    facts: tuple[Param, ...] = ()
    pending: set[str] = field(default_factory=set)

    def members(self, name: str, at: Span) -> tuple[str, ...] | None:
        """Return the tools that a call's name stands for; None for `any`."""
        if name == "any":
            return None
        if name in self.groups:
            return self.groups[name]
        if name not in self.tools and name != "say":
            self._pend(name, at)
        return (name,)

    def _pend(self, name: str, at: Span) -> None:
        if self.complete:
            known = ", ".join(sorted({*self.tools, *self.groups})) or "none"
            self.source.fail(at, f"no tool or group '{name}'; declared: {known}", "name")
        self.pending.add(name)

    def args(self, name: str, at: Span) -> dict[str, Param] | None:
        """Return the arguments that a pattern of `name` may write; None if anything may stand there (pending)."""
        if name in SPECIAL_ARGS:
            return {param.name: param for param in SPECIAL_ARGS[name]}
        if name == "user":
            return {"text": Param("text", TEXT), **{param.name: param for param in self.facts}}
        named = [self.tools[tool] for tool in self.members(name, at) or () if tool in self.tools]
        if len(named) != len(self.members(name, at) or ()):
            return None
        return _common(named)


def _common(named: Sequence[Tool]) -> dict[str, Param]:
    """Parameters that all tools have with the same sort; optional if optional in one."""
    common = {param.name: param for param in named[0].params}
    for tool in named[1:]:
        others = {param.name: param for param in tool.params}
        common = {
            name: replace(param, optional=param.optional or others[name].optional)
            for name, param in common.items()
            if name in others and others[name].sort == param.sort
        }
    return common


def collect(file: RuleFile, source: Source, outside: Sequence[Tool], complete: bool) -> Symbols:
    """Gather the names of a file. Raises RuleError for a name that is declared twice or a group that loops."""
    symbols = Symbols(source, complete)
    for decl in file.decls:
        _enter(symbols, decl)
    for tool in outside:
        symbols.tools.setdefault(tool.name, tool)
    _expand_groups(symbols, [decl for decl in file.decls if isinstance(decl, Group)])
    return symbols


def _enter(symbols: Symbols, decl: Decl) -> None:
    if isinstance(decl, Rule):
        _once(symbols, decl.name, decl.at, rule=True)
        symbols.rules[decl.name] = decl
    elif isinstance(decl, Tool | Const | Register | Relation | Group):
        _once(symbols, decl.name, decl.at, rule=False)
        _enter_name(symbols, decl)
    elif isinstance(decl, User):
        if symbols.facts:
            symbols.source.fail(decl.at, "the facts of user are declared already", "name")
        symbols.facts = decl.params


def _enter_name(symbols: Symbols, decl: Tool | Const | Register | Relation | Group) -> None:
    if isinstance(decl, Tool):
        symbols.tools[decl.name] = decl
    elif isinstance(decl, Const):
        symbols.consts[decl.name] = decl
    elif isinstance(decl, Register):
        symbols.registers[decl.name] = decl
    elif isinstance(decl, Relation):
        symbols.relations[decl.name] = decl
    else:
        symbols.groups[decl.name] = ()


def _once(symbols: Symbols, name: str, at: Span, *, rule: bool) -> None:
    others = (symbols.tools, symbols.groups, symbols.consts, symbols.registers, symbols.relations)
    tables = (symbols.rules,) if rule else others
    if any(name in table for table in tables):
        symbols.source.fail(at, f"'{name}' is declared already", "name")


def _expand_groups(symbols: Symbols, groups: list[Group]) -> None:
    """Find the tools of each group, each once, however groups hang together."""
    by_name, found = {group.name: group for group in groups}, dict[str, tuple[str, ...]]()
    for group in groups:
        path = [group]  # groups under way, each a member of the one before
        while path:
            needed = next((one for one in path[-1].members if one[0] in by_name and one[0] not in found), None)
            if needed is None:
                last = path.pop()
                found[last.name] = tuple(dict.fromkeys(_members(symbols, last, found)))
                continue
            if any(needed[0] == other.name for other in path):
                symbols.source.fail(needed[1], f"group '{path[-1].name}' contains itself", "name")
            path.append(by_name[needed[0]])
    symbols.groups.update({group.name: found[group.name] for group in groups})


def _members(symbols: Symbols, group: Group, known: dict[str, tuple[str, ...]]) -> Iterator[str]:
    for name, at in group.members:
        if name in known:
            yield from known[name]
        else:
            symbols.members(name, at)
            yield name
