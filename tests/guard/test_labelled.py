"""What RULES.md says of cases labelled by hand, the gate says, and so does the reference evaluator."""

import ast
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import compile_rules
from tests.guard.labelled import CASES, TOOLS
from tests.guard.reference import Reference

_RULES = ("rule", "register", "relation", "shared", "const")


class Block(NamedTuple):
    """One block: its title, its rules, and the lines of its trace."""

    title: str
    rules: str
    lines: tuple[str, ...]


def _block(text: str) -> Block:
    title, *rest = text.strip().splitlines()
    rules = [line for line in rest if line.startswith(_RULES)]
    return Block(title.removeprefix("# "), TOOLS + "\n".join(rules), tuple(x for x in rest if x not in rules))


BLOCKS = [_block(text) for text in CASES.strip().split("\n\n")]


class _Trace:
    """A trace told line by line."""

    def __init__(self) -> None:
        self.events: list[TraceEvent] = []
        self.now, self.waiting = 0.0, list[TraceEvent]()

    def event(self, kind: Any, pid: int, **fields: Any) -> TraceEvent:
        return TraceEvent(len(self.events) + 1, self.now, pid, kind, **fields)

    def proposal(self, text: str, pid: int) -> TraceEvent:
        """What a question asks about."""
        if text == "finish":
            return self.event("finish", pid)
        if text.startswith("say "):
            return self.event("assistant", pid, args={"text": ast.literal_eval(text[4:])})
        tool, args = _call(text)
        return self.event("start", pid, tool=tool, args=args)

    def step(self, text: str, pid: int, labels: tuple[str, ...]) -> None:
        """Let something happen."""
        word, _, rest = text.partition(" ")
        if word == "wait":
            self.now = round(self.now + float(rest), 6)
        elif word == "fork":
            parent, child = map(int, rest.split())
            self.events.append(self.event("fork", child, args={"parent": parent}))
        elif word == "user":
            self.events.append(self.event("user", pid, args={"text": ast.literal_eval(rest)}, labels=labels))
        elif word in ("confirm", "no", "withdraw"):
            told, _, by = rest.rpartition(" by ")
            tool, args = _call(told)
            answer = {"confirm": "yes"}.get(word, word)
            self.events.append(self.event("confirm", pid, tool=tool, args=args, by=by, answer=answer))
        elif word in ("tick", "finish", "say"):
            self.events.append(self.event("tick", pid) if word == "tick" else self.proposal(text, pid))
        elif word == "late":
            self._answer(self.waiting.pop(), rest, labels)
        else:
            end = text.rindex(") ") + 1
            start = self.proposal(text[:end], pid)
            self.events.append(start)
            self._answer(start, text[end + 1 :], labels)

    def _answer(self, start: TraceEvent, text: str, labels: tuple[str, ...]) -> None:
        kind, _, result = text.partition(" ")
        if kind in ("go", "lost"):
            self.waiting.append(start)
        if kind != "go":
            brought = ast.literal_eval(result) if result else None
            self.events.append(self.event(kind, start.pid, cause=start.seq, result=brought, labels=labels))


def _call(text: str) -> tuple[str, dict[str, Any]]:
    tree = ast.parse(text, mode="eval").body
    assert isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)
    return tree.func.id, {str(word.arg): ast.literal_eval(word.value) for word in tree.keywords}


def _pid(text: str) -> tuple[int, str]:
    word, _, rest = text.partition(" ")
    return (int(word[1:]), rest) if word in ("p1", "p2", "p3") else (1, text)


def _expected(text: str) -> list[tuple[str, str | None]]:
    if text == "allow":
        return []
    parts = [part.partition("=") for part in text.split()]
    return [(rule, value or None) for rule, _, value in parts]


def _same(expected: list[tuple[str, str | None]], found: Sequence[tuple[str, str]]) -> bool:
    """Whether the labels hold; a value that RULES.md leaves open is not compared."""
    return [rule for rule, _ in expected] == [rule for rule, _ in found] and all(
        value in (None, said) for (_, value), (_, said) in zip(expected, found, strict=True)
    )


@pytest.mark.parametrize("block", BLOCKS, ids=[block.title for block in BLOCKS])
def test_labelled(block: Block) -> None:
    gate, reference, trace, taken = compile_rules(block.rules, complete=True), Reference(block.rules), _Trace(), 0
    for line in block.lines:
        asks, text = line.startswith("? "), line.removeprefix("? ")
        pid, text = _pid(text)
        if not asks:
            text, _, labels = text.partition(" #")
            trace.step(text, pid, tuple(filter(None, labels.split(","))))
            continue
        for event in trace.events[taken:]:
            gate.record(event)
        taken = len(trace.events)
        call, _, told = text.rpartition(" : ")
        proposed, expected = trace.proposal(call, pid), _expected(told)
        answer = reference.judge(trace.events, proposed)
        assert _same(expected, list(answer["value"].items())), f"reference, {line}: {answer['value']}"
        found = [(denial.rule, denial.value) for denial in gate.judge(proposed).denials]
        assert _same(expected, found), f"gate, {line}: {found}"


def test_there_are_enough_of_them() -> None:
    questions = [
        (block.rules, block.lines[: i + 1]) for block in BLOCKS for i, line in enumerate(block.lines) if line[0] == "?"
    ]
    assert len(set(questions)) == len(questions) >= 150
    assert sum(line.endswith(": allow") for _, (*_, line) in questions) >= 50
    assert sum("=unknown" in line for _, (*_, line) in questions) >= 30
