"""Random rule files over tools with arguments of every kind, traces before a call, and calls: for laws of the mask."""

from random import Random
from typing import Any

from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate
from tests.guard.scenes import Scene


def _schema(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_TEXT, _INT, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_TEXTS = {"type": "array", "items": _TEXT}
SPECS = (
    ToolSpec(name="look", parameters=_schema(("o",), o=_TEXT)),
    ToolSpec(name="act", parameters=_schema(("o", "i", "w"), o=_TEXT, i=_TEXT, w={**_TEXT, "enum": ["x", "y"]})),
    ToolSpec(name="pay", parameters=_schema(("m", "n"), m=_INT, n=_INT, u=_TEXT), returns=_INT),
    ToolSpec(name="swap", parameters=_schema(("o", "a", "b"), o=_TEXT, a=_TEXTS, b=_TEXTS)),
    ToolSpec(
        name="note",
        parameters=_schema(
            ("t",), t=_TEXT, f={"type": "boolean"}, z={"anyOf": [_TEXT, {"type": "null"}]}, d={**_INT, "default": 1}
        ),
    ),
)  # fmt: skip
DECLARATIONS = """
register owner[o]: Id on ok look(o = o) set result.owner
register bag[o]: [{i: Id, p: Int}] on ok look(o = o) set result.items
register price[i]: Int on ok look() each x in result.items at (x.i) set x.p
relation line(order, item, kind) latest by order on ok look(o = o) each x in result.items add (o, x.i, x.k)
relation variant(kind, item) on ok look() each x in result.items add (x.k, x.i)
"""
_TEXT_ATOMS = (
    '{} matches "[ab]+"', '{} matches "#W[0-9]{{1,2}}"', '{} matches "(?i)a.*|é?"', 'starts({}, "#W")', 'ends({}, "1")',
    'contains({}, "a")', "len({}) <= 2", "len({}) > 1", "seen({})", '{} < "b"', '{} >= "#W1"', '{} = "a"',
    '{} != "#W1"', '{} in {{"a", "b", "#W1", "#W2"}}',
)  # fmt: skip
_BY_ARGUMENT = {
    "act": (
        "(exists x in bag[o]: x.i = i)", "(forall x in bag[o]: x.p <= 3 or x.i != i)", "known(owner[o])",
        "owner[o] = i", "(exists l in line: l.order = o and l.item = i)", 'owner[o] = "ann"',
        "o = i", "o != i", "o < i", 'w = "x"', 'w = "y" or o = "#W1"', "(forall l in line: l.item != i or l.order = o)",
        "once ok look(o = o)", "once ok look(o = i)", 'w = "x" implies o != i', "w = i",
    ),
    "pay": (
        "m <= 5", "n > 2", "m + n <= 10", "2 * m <= n", "m = n", "m != n", "m < n", "m in {1, 2, 3}", "n != 4",
        "m - n >= 0 or n < 3", "once ok pay(u = u) where (result <= m)", "count of ok pay(m = m) < 1",
        'u = "ann"', "known(u)", "not known(u)", "seen(m)", "n + 1 <= 2 * n", "m <= 3 or n <= 3",
    ),
    "swap": (
        '(forall x in a: x != "i9")', "len(a) = len(b)", "len(a) <= 2", "len(b) >= 1", "len(a) > 0",
        "(forall x, y in zip(a, b): x != y)", "(forall x in a: (exists l in line: l.order = o and l.item = x))",
        "(forall x, y in zip(a, b): (exists l in line: l.item = x and "
        "(exists v in variant: v.item = y and v.kind = l.kind)))",
        '"i1" in a', 'not "i2" in b', "(exists x in a: x = o)", "(forall x in b: known(price[x]))", "known(owner[o])",
        "(forall x in a: seen(x))", '(forall x in b: x matches "i[0-9]")', "(forall x in a: price[x] <= 3)",
    ),
    "note": (
        "f", "not f", "known(z)", "z = t", 'z = "a"', "d = 1", "d <= 3 or f", 't = "a" implies f', "known(f)",
        "f or len(t) < 2", "d > 0",
    ),
}  # fmt: skip
_TEXTS_OF = {"act": ("o", "i"), "pay": ("u",), "swap": ("o",), "note": ("t", "z")}
_HEADS = {"act": "act(o, i, w)", "pay": "pay(m, n, u)", "swap": "swap(o, a, b)", "note": "note(t, f, z, d)"}


def atom(random: Random, tool: str) -> str:
    """A condition on the tool's arguments."""
    if random.random() < 0.5:
        return random.choice(_TEXT_ATOMS).format(random.choice(_TEXTS_OF[tool]))
    return random.choice(_BY_ARGUMENT[tool])


def formula(random: Random, tool: str, depth: int) -> str:
    """A formula of atoms."""
    if depth == 0 or random.random() < 0.3:
        return atom(random, tool)
    kind = random.choice(("and", "or", "not", "implies"))
    if kind == "not":
        return f"not ({formula(random, tool, depth - 1)})"
    return f"({formula(random, tool, depth - 1)}) {kind} ({formula(random, tool, depth - 1)})"


def rules(random: Random, most_depth: int = 2) -> str:
    """A rule file with some rules for every tool."""
    lines = [DECLARATIONS]
    for tool, head in _HEADS.items():
        for number in range(random.choice((0, 1, 1, 2, 3))):
            phi = formula(random, tool, random.randint(0, most_depth))
            way = "require {} before {}" if random.random() < 0.6 else "forbid {1} when {0}"
            lines.append(f"rule {tool}{number}: " + way.format(phi, head))
    if random.random() < 0.3:
        lines.append("rule paid: limit sum(m) of pay(m, u = u) per u to 6")
    if random.random() < 0.2:
        lines.append("rule ask: require confirmed before swap()")
    return "\n".join(lines)


def scene(random: Random, text: str) -> RuleGate:
    """The rules at work over a short trace."""
    made = Scene(text, tools=SPECS)
    made.user(random.choice(("I am ann, order #W1 and i2, please. 3 or 12?", "hello", "")))
    for number in range(random.randint(0, 3)):
        items = [
            {"i": f"i{random.randint(1, 4)}", "k": random.choice("kl"), "p": random.randint(1, 6)}
            for _ in range(random.randint(0, 3))
        ]
        made.ok("look", {"owner": random.choice(("ann", "bob", "#W1")), "items": items}, o=f"#W{number + 1}")
    if random.random() < 0.4:
        made.ok("pay", random.randint(0, 4), m=random.randint(0, 4), n=1, u="ann")
    if random.random() < 0.5:
        made.confirm("swap", o="#W1", a=["i1"], b=["i2"])
    if random.random() < 0.15:
        made.start("look", o="#W1")
    return made.gate


def _text(random: Random) -> str:
    return random.choice(("a", "b", "ab", "#W1", "#W2", "#W3", "i1", "i2", "ann", "é", "", "c", "order", "#W12"))


def _item(random: Random) -> str:
    return random.choice(("i1", "i2", "i3", "i4", "i9", "#W1", "a"))


def _arguments(random: Random, tool: str) -> dict[str, Any]:
    if tool == "act":
        other = random.choice((_text, _item))(random)
        return {"o": _text(random), "i": other, "w": random.choice(("x", "y"))}
    if tool == "pay":
        numbers = {"m": random.randint(-1, 8), "n": random.randint(-1, 12)}
        return {**numbers, "u": _text(random)} if random.random() < 0.5 else dict(numbers)
    if tool == "swap":
        size = random.randint(0, 3)
        other_size = size if random.random() < 0.7 else random.randint(0, 3)
        lists = ([_item(random) for _ in range(count)] for count in (size, other_size))
        return {"o": _text(random), **dict(zip("ab", lists, strict=True))}
    if tool == "look":
        return {"o": _text(random)}
    options = {"f": random.choice((True, False)), "z": random.choice((None, _text(random))), "d": random.randint(0, 4)}
    return {"t": _text(random), **{key: value for key, value in options.items() if random.random() < 0.6}}


def call(random: Random) -> tuple[str, dict[str, Any]]:
    """A call that fits the tools' schemas, its arguments in any order."""
    tool = random.choice(("act", "pay", "swap", "note", "look"))
    args = _arguments(random, tool)
    return tool, {name: args[name] for name in random.sample(list(args), len(args))}
