"""T3 and T4 of the guard at length: monkeys at the keyboard, and calls written against the gate.

`monkey`: a case is a random rule file over a random trace; calls are drawn token by token from grammar and mask; where
all arguments are of exact classes none may be stuck, none refused by the gate; the others are counted apart. Every
third case keeps the arguments in the order of their schema, as the engine's grammar does.
`permissive`: of random calls, in random key orders and tokenisations, those pass that the gate admits. `residuals`:
what is left of the rules says of whole calls what the gate says.
"""

from collections import Counter
from random import Random

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.formats.calls import render_call
from aios.guard.masking.choices import FALSE, TEXTS, TRUE, UNSURE, Choices, worth
from aios.guard.workbench.classes import GATE, SOLVER, classes
from tests.guard.monkey import HEAD, Monkey, opened
from tests.guard.random_masks import SPECS, call, rules, scene
from tests.guard.test_monkey import IN_ORDER
from tests.guard.test_permissive import DEFAULTS, MASKS, judged, passes
from tests.prove.check import Check, Outcome

_FIRST = 1 << 20
"""Seeds beyond those of the tests."""
INEXACT = {SOLVER, GATE}
"""Classes of arguments for which the mask alone promises nothing."""


def monkey(seed: int) -> Outcome:
    """Write calls under one rule file."""
    random, seen = Random(_FIRST + seed), Counter[str]()
    gate = scene(random, rules(random))
    known = {tool: set(kinds.values()) for tool, kinds in classes(gate.program).items()}
    masks = IN_ORDER if seed % 3 == 0 else MASKS
    fresh, hand = opened(masks, gate.mask_state(1, 60.0), SPECS), Monkey(masks, SPECS)
    for _ in range(12):
        mask = fresh.fork()
        written, stuck = hand.write(mask, random)
        tool = written.name if written is not None else mask.parser.tool
        is_exact = tool is None or known[tool].isdisjoint(INEXACT)
        if not is_exact:
            seen["inexact_stuck"] += bool(stuck)
            seen["inexact"] += 1
            continue
        if stuck:
            return Outcome(f"seed {seed}: stuck behind {stuck}", seen)
        if written is None:
            seen["long"] += 1
            continue
        seen["calls"] += 1
        if not judged(gate, written.name, dict(written.arguments)):
            return Outcome(f"seed {seed}: refused {written.name} {written.arguments}", seen)
    return Outcome(counts=seen)


def permissive(seed: int) -> Outcome:
    """Write given calls under one rule file."""
    random, seen = Random(_FIRST + seed), Counter[str]()
    gate = scene(random, rules(random))
    fresh = opened(MASKS, gate.mask_state(1, 60.0), SPECS)
    for _ in range(12):
        tool, args = call(random)
        allowed = judged(gate, tool, args)
        spelled = render_call(ToolCall(id="c", name=tool, arguments=args)).encode().removeprefix(HEAD)
        if passes(fresh.fork(), spelled, random) is not allowed:
            return Outcome(f"seed {seed}: {tool} {args}: the gate says {allowed}", seen)
        seen["admitted" if allowed else "denied"] += 1
    return Outcome(counts=seen)


def residuals(seed: int) -> Outcome:
    """Ask one rule file's residuals about whole calls, rule by rule."""
    random, seen = Random(_FIRST + seed), Counter[str]()
    gate = scene(random, rules(random))
    left = gate.mask_state(1, 60.0).residuals
    for _ in range(25):
        tool, args = call(random)
        denied = set(gate.judge(TraceEvent(999, 60.0, 1, "start", tool, args)).rules)
        choices = Choices(left[tool], DEFAULTS[tool], left.get(TEXTS, {}))
        read = choices.complete({name: choices.read(name, value) for name, value in args.items()})
        for rule, node in choices.rules:
            bits = worth(node, read)
            if bits not in (TRUE, FALSE, UNSURE) or (bits == TRUE) is (rule in denied):
                return Outcome(f"seed {seed}: {rule} of {tool} {args}: {bits}", seen)
            seen["asked"] += 1
    return Outcome(counts=seen)


CHECKS = (
    Check("monkey", monkey, wanted={"calls": 100_000}),
    Check("permissive", permissive, wanted={"admitted": 40_000, "denied": 40_000}),
    Check("residuals", residuals, wanted={"asked": 400_000}),
)
