"""The five operators of Agent-C (arXiv 2512.23738) as bodies of rules, with our meaning of each (RULES.md section 2).

A success is what counts on the past's side, a start on the other. `Seq` stands for one rule a step.
"""

from itertools import pairwise

from aios.errors import UsageError
from aios.rules.declarations import Body, after, finish_requires, require
from aios.rules.events import Tool, ok, once
from aios.rules.terms import Formula, Term


def Before(first: Tool, then: Tool) -> Body:
    """`first` succeeds before any call of `then`."""
    return require(once(ok(first())), before=then())


def After(first: Tool, then: Tool) -> Body:
    """Once `first` has succeeded, `then` is owed."""
    return after(ok(first()), do=then())


def Forall(called: Tool, that: Formula | Term) -> Body:
    """At every call of `called` the formula holds."""
    return require(that, before=called())


def Exists(called: Tool) -> Body:
    """`called` succeeds at least once before the end."""
    return finish_requires(once(ok(called())))


def Seq(*steps: Tool) -> Body:
    """Each of `steps` is called only after those before it have succeeded in this order."""
    if len(steps) < 2:
        raise UsageError(f"Seq orders two tools or more, {len(steps)} given")
    done = once(ok(steps[0]()))
    bodies = [require(done, before=steps[1]())]
    for before, then in pairwise(steps[1:]):
        done = once(ok(before()) & done)
        bodies.append(require(done, before=then()))
    return Body(*(tree for body in bodies for tree in body.trees))
