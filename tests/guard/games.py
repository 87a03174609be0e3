"""Small games of an agent against its environment, and a solver for them that shares no code with the guard.

A game is a rule file over tools without arguments. Its states, moves and legality are written here a second time, from
RULES.md S2, S5-S8 and S13; the solver walks the graph of states. V1: can some continuation end the process? V2: can
the agent end it against every answer?
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

Truth = bool | None


@dataclass(frozen=True)
class Once:
    """`once kind tool`."""

    kind: str
    tool: str

    def text(self) -> str:
        return f"once {self.kind} {self.tool}()"


@dataclass(frozen=True)
class Held:
    """`(not ok off) since ok on`."""

    on: str
    off: str

    def text(self) -> str:
        return f"(not ok {self.off}()) since ok {self.on}()"


@dataclass(frozen=True)
class Un:
    """`not phi`."""

    phi: "Formula"

    def text(self) -> str:
        return f"not ({self.phi.text()})"


@dataclass(frozen=True)
class Both:
    """`and` or `or` of two."""

    word: str
    left: "Formula"
    right: "Formula"

    def text(self) -> str:
        return f"({self.left.text()}) {self.word} ({self.right.text()})"


Formula = Once | Held | Un | Both


@dataclass(frozen=True)
class Demand:
    """`require phi before tool`, or `forbid tool when phi`."""

    tool: str
    phi: Formula
    wanted: bool


@dataclass(frozen=True)
class Cap:
    """`limit count of tool [within window calls] to most`."""

    tool: str
    most: int
    window: int | None


@dataclass(frozen=True)
class Duty:
    """`after kind tool [if once ok guard] do wanted [within window calls] [unless void] [else late]`."""

    kind: str
    tool: str
    wanted: str
    guard: str | None = None
    window: int | None = None
    void: tuple[str, str] | None = None
    """(kind, tool) of the event that voids; ("user", "stop") is a message."""
    late: str | None = None


@dataclass(frozen=True)
class Game:
    """The rules."""

    tools: tuple[str, ...]
    always_ok: frozenset[str]
    safe: frozenset[str]
    demands: tuple[Demand, ...]
    caps: tuple[Cap, ...]
    duties: tuple[Duty, ...]
    endings: tuple[Formula, ...]

    def text(self, level: str) -> str:
        """As a rule file."""
        lines = [f"viability {level}"]
        for tool in self.tools:
            words = " always ok" * (tool in self.always_ok) + " safe" * (tool in self.safe)
            lines.append(f"tool {tool}(){words}")
        for number, demand in enumerate(self.demands):
            phi = demand.phi.text()
            body = f"require {phi} before {demand.tool}()" if demand.wanted else f"forbid {demand.tool}() when {phi}"
            lines.append(f"rule r{number}: {body}")
        for number, cap in enumerate(self.caps):
            within = "" if cap.window is None else f" within {cap.window} calls"
            lines.append(f"rule l{number}: limit count of {cap.tool}(){within} to {cap.most}")
        for number, duty in enumerate(self.duties):
            event = 'user(text = "go")' if duty.kind == "user" else f"{duty.kind} {duty.tool}()"
            line = f"rule d{number}: after {event}" + (f" if once ok {duty.guard}()" if duty.guard else "")
            line += f" do {duty.wanted}()" + (f" within {duty.window} calls" if duty.window else "")
            if duty.void is not None:
                kind, tool = duty.void
                line += ' unless user(text = "stop")' if kind == "user" else f" unless {kind} {tool}()"
            lines.append(line + (f" else {duty.late}()" if duty.late else ""))
        for number, phi_ in enumerate(self.endings):
            lines.append(f"rule e{number}: finish requires {phi_.text()}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Open:
    """An open duty: `stamp` orders it among starts; `used` starts have come since."""

    rule: int
    stamp: int
    used: int
    late: bool = False


@dataclass(frozen=True)
class Begun:
    """A call without ok or err: `age` starts have come since it."""

    tool: str
    stamp: int
    age: int = 0
    lost: bool = False


@dataclass(frozen=True)
class State:
    """All that the rules of a game can tell apart."""

    happened: frozenset[tuple[str, str]] = frozenset()
    held: tuple[bool, ...] = ()
    charges: tuple[tuple[int, ...], ...] = ()
    """Ages of each limit's charges, in starts; without a window all are 0."""
    begun: tuple[Begun, ...] = ()
    duties: tuple[Open, ...] = ()


@dataclass
class Solver:
    """Answers questions about one game; remembers what it found."""

    game: Game
    found: dict[State, bool] = field(default_factory=dict)
    won: dict[State, bool] = field(default_factory=dict)
    most: int = 3000
    """States walked for one question; a game that needs more is left out."""
    width: int = 1
    """Calls that a continuation may have under way at once."""

    def __post_init__(self) -> None:
        game = self.game
        formulas = [demand.phi for demand in game.demands] + list(game.endings)
        self.helds = sorted({part for phi in formulas for part in _helds(phi)}, key=repr)

    def start(self) -> State:
        """The empty trace."""
        return State(held=(False,) * len(self.helds), charges=((),) * len(self.game.caps))

    # --- rules -----------------------------------------------------------------------------------------------------

    def value(self, state: State, phi: Formula) -> Truth:
        """The value of a formula, unanswered calls included."""
        waiting = {one.tool for one in state.begun}
        if isinstance(phi, Once):
            if (phi.kind, phi.tool) in state.happened:
                return True
            return None if phi.kind in ("ok", "err") and phi.tool in waiting else False
        if isinstance(phi, Held):
            now = state.held[self.helds.index(phi)]
            may = {now} | ({True} if phi.on in waiting else set()) | ({False} if phi.off in waiting else set())
            return now if len(may) == 1 else None
        if isinstance(phi, Un):
            inner = self.value(state, phi.phi)
            return None if inner is None else not inner
        parts = {self.value(state, phi.left), self.value(state, phi.right)}
        decisive = phi.word == "or"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive

    def is_legal(self, state: State, tool: str) -> bool:
        """Whether no rule denies the call, and it takes no last slot."""
        for demand in self.game.demands:
            if demand.tool == tool and self.value(state, demand.phi) is not demand.wanted:
                return False
        for cap, ages in zip(self.game.caps, state.charges, strict=True):
            inside = [age for age in ages if cap.window is None or age + 1 <= cap.window]
            if cap.tool == tool and len(inside) + 1 > cap.most:
                return False
        for one in state.duties:
            duty = self.game.duties[one.rule]
            if duty.window is None or one.late or one.used + 1 < duty.window or self._is_under_way(state, one):
                continue
            if duty.wanted != tool:
                return False
        return True

    def can_end(self, state: State) -> bool:
        """Whether `finish` is admitted."""
        if state.duties or any(not one.lost for one in state.begun):
            return False
        for one in state.begun:
            for duty in self.game.duties:
                if duty.kind in ("ok", "err") and duty.tool == one.tool and self._may_guard(state, duty):
                    return False
        return all(self.value(state, phi) is True for phi in self.game.endings)

    def _may_guard(self, state: State, duty: Duty) -> bool:
        return duty.guard is None or self.value(state, Once("ok", duty.guard)) is not False

    def _is_under_way(self, state: State, one: Open) -> bool:
        duty = self.game.duties[one.rule]
        assert duty.window is not None
        return any(
            call.tool == duty.wanted and call.stamp > one.stamp and one.used - call.age <= duty.window
            for call in state.begun
        )

    # --- moves -----------------------------------------------------------------------------------------------------

    def started(self, state: State, tool: str) -> State:
        """After the start of a call."""
        stamp = self._next(state)
        charges = tuple(
            tuple(age + 1 if cap.window is not None else 0 for age in ages) + ((0,) if cap.tool == tool else ())
            for cap, ages in zip(self.game.caps, state.charges, strict=True)
        )
        begun = (*(Begun(one.tool, one.stamp, one.age + 1, one.lost) for one in state.begun), Begun(tool, stamp))
        duties = tuple(Open(one.rule, one.stamp, one.used + 1, one.late) for one in state.duties)
        state = State(state.happened, state.held, charges, begun, duties)
        return self._event(state, "start", tool, stamp, None)

    def answered(self, state: State, index: int, kind: str) -> State:
        """After an answer to the call at `index`."""
        call = state.begun[index]
        stamp = self._next(state)
        rest = state.begun[:index] + state.begun[index + 1 :]
        charges = state.charges
        if kind == "lost":
            rest = (*state.begun[:index], replace(call, lost=True), *state.begun[index + 1 :])
        if kind == "err":
            charges = tuple(self._released(cap, ages, call) for cap, ages in zip(self.game.caps, charges, strict=True))
        return self._event(replace(state, begun=rest, charges=charges), kind, call.tool, stamp, call)

    def _released(self, cap: Cap, ages: tuple[int, ...], call: Begun) -> tuple[int, ...]:
        age = call.age if cap.window is not None else 0
        if cap.tool != call.tool or age not in ages:
            return ages
        at = ages.index(age)
        return ages[:at] + ages[at + 1 :]

    def told(self, state: State, text: str) -> State:
        """After a message of the user."""
        return self._event(state, "user", text, self._next(state), None)

    def _next(self, state: State) -> int:
        return 1 + max([*(one.stamp for one in state.begun), *(one.stamp for one in state.duties)], default=0)

    def _event(self, state: State, kind: str, tool: str, stamp: int, call: Begun | None) -> State:
        happened = state.happened if kind == "user" else state.happened | {(kind, tool)}
        held = tuple(
            (kind == "ok" and tool == phi.on) or (now and not (kind == "ok" and tool == phi.off))
            for phi, now in zip(self.helds, state.held, strict=True)
        )
        state = State(happened, held, state.charges, state.begun, state.duties)
        kept = [one for one in state.duties if not self._ends(one, kind, tool, call)]
        for rule, duty in enumerate(self.game.duties):
            is_opened = duty.kind == kind and (duty.tool == tool if kind != "user" else tool == "go")
            if is_opened and (duty.guard is None or ("ok", duty.guard) in happened):
                kept.append(Open(rule, stamp, 0))
        state = replace(state, duties=tuple(kept))
        aged = tuple(replace(one, late=True) if self._is_past(state, one) else one for one in state.duties)
        return self._normal(State(happened, held, state.charges, state.begun, aged))

    def _ends(self, one: Open, kind: str, tool: str, call: Begun | None) -> bool:
        duty = self.game.duties[one.rule]
        wanted = duty.late if one.late and duty.late is not None else duty.wanted
        is_timely = call is not None and (one.late or duty.window is None or one.used - call.age <= duty.window)
        if kind == "ok" and call is not None and call.tool == wanted and call.stamp > one.stamp and is_timely:
            return True
        if duty.void is None:
            return False
        return duty.void == (kind, tool) or (duty.void[0] == "user" == kind and tool == "stop")

    def _is_past(self, state: State, one: Open) -> bool:
        duty = self.game.duties[one.rule]
        return duty.window is not None and one.used >= duty.window and not self._is_under_way(state, one)

    def _normal(self, state: State) -> State:
        """Forget what no rule can tell: equal duties but the youngest, numbers but their order, old charges."""
        youngest: dict[tuple[int, bool], Open] = {}
        kept: list[Open] = []
        for one in state.duties:
            if one.late or self.game.duties[one.rule].window is None:
                youngest[one.rule, one.late] = replace(one, used=0)
            else:
                kept.append(one)
        duties = sorted([*kept, *youngest.values()], key=lambda one: (one.stamp, one.rule))
        stamps = sorted({*(one.stamp for one in duties), *(one.stamp for one in state.begun)})
        rank = {stamp: number + 1 for number, stamp in enumerate(stamps)}
        window = max(
            [duty.window or 0 for duty in self.game.duties] + [cap.window or 0 for cap in self.game.caps], default=0
        )
        begun = tuple(replace(one, stamp=rank[one.stamp], age=min(one.age, window + 1)) for one in state.begun)
        charges = tuple(
            tuple(sorted(age for age in ages if cap.window is None or age < cap.window))[: cap.most + 1]
            for cap, ages in zip(self.game.caps, state.charges, strict=True)
        )
        kept = [Open(one.rule, rank[one.stamp], one.used, one.late) for one in duties]
        return State(state.happened, state.held, charges, begun, tuple(kept))

    # --- V1 --------------------------------------------------------------------------------------------------------

    def is_viable(self, state: State) -> bool:
        """Whether some continuation without a new overdue duty ends the process."""
        if state in self.found:
            return self.found[state]
        parents: dict[State, State | None] = {state: None}
        queue = deque([state])
        while queue:
            here = queue.popleft()
            if self.found.get(here) or self.can_end(here):
                at: State | None = here
                while at is not None:
                    self.found[at] = True
                    at = parents[at]
                return True
            for after in self._continued(here):
                if after not in parents and self.found.get(after) is not False:
                    parents[after] = here
                    queue.append(after)
            if len(parents) > self.most:
                raise TooLarge
        self.found.update(dict.fromkeys(parents, False))
        return False

    def _continued(self, state: State) -> Iterator[State]:
        late = sum(one.late for one in state.duties)
        for after in self._everything(state):
            if not self._newly_late(state, after, late):
                yield after

    def _newly_late(self, before: State, after: State, late: int) -> bool:
        """Whether a duty became overdue between the two (late ones of a rule count as one)."""
        was = {one.rule for one in before.duties if one.late}
        return any(one.late and one.rule not in was for one in after.duties) or (
            late > 0 and self._was_pressed(before, after)
        )

    def _was_pressed(self, before: State, after: State) -> bool:
        """Whether a timely duty of a rule that has a late one already has become late too."""
        was = {one.rule for one in before.duties if one.late}
        timely_before = sum(not one.late and one.rule in was for one in before.duties)
        timely_after = sum(not one.late and one.rule in was for one in after.duties)
        return timely_after < timely_before and any(one.late and one.rule in was for one in after.duties)

    def _everything(self, state: State) -> Iterator[State]:
        for index, call in enumerate(state.begun):
            yield self.answered(state, index, "ok")
            if call.tool not in self.game.always_ok:
                yield self.answered(state, index, "err")
        if len(state.begun) < self.width:
            for tool in self.game.tools:
                if self.is_legal(state, tool):
                    yield self.started(state, tool)
        for text in self.messages():
            yield self.told(state, text)

    def messages(self) -> list[str]:
        """The messages that rules speak of."""
        found = ["go"] if any(duty.kind == "user" for duty in self.game.duties) else []
        return found + (["stop"] if any(duty.void and duty.void[0] == "user" for duty in self.game.duties) else [])

    def has_dead_end(self, most: int = 40) -> bool:
        """Whether rules alone would let the agent walk from a state with an end into one without, early on."""
        start = self.start()
        seen, queue = {start}, deque([start])
        while queue and len(seen) < most:
            here = queue.popleft()
            if not self.is_viable(here):
                continue
            moves = [self.started(here, tool) for tool in self.game.tools if self.is_legal(here, tool)]
            if not all(map(self.is_viable, moves)):
                return True
            for after in (*moves, *self._answers(here), *(self.told(here, text) for text in self.messages())):
                if after not in seen and len(after.begun) <= 1:
                    seen.add(after)
                    queue.append(after)
        return False

    # --- V2 --------------------------------------------------------------------------------------------------------

    def is_won(self, state: State) -> bool:
        """Whether the agent can end the process against every answer; what is lost may be settled at any time."""
        if state not in self.won:
            graph = self._graph(state)
            won = {one for one in graph if self.won.get(one)}
            while True:
                more = {one for one in graph if one not in won and self._is_won_now(one, graph[one], won)}
                if not more:
                    break
                won |= more
            self.won.update({one: one in won for one in graph})
        return self.won[state]

    def _graph(self, state: State) -> dict[State, tuple[list[State], list[State]]]:
        """Each state that can come, with the states after an answer and after a call."""
        graph: dict[State, tuple[list[State], list[State]]] = {}
        queue = deque([state])
        while queue:
            here = queue.popleft()
            if here in graph:
                continue
            graph[here] = (list(self._answers(here)), list(self._calls(here)))
            queue += [after for afters in graph[here] for after in afters if not self._fails(here, after)]
            if len(graph) > self.most:
                raise TooLarge
        return graph

    def _fails(self, before: State, after: State) -> bool:
        return self._newly_late(before, after, sum(one.late for one in before.duties))

    def _is_won_now(self, state: State, afters: tuple[list[State], list[State]], won: set[State]) -> bool:
        answers, calls = afters
        if any(self._fails(state, after) or after not in won for after in answers):
            return False
        is_awaited = any(not one.lost for one in state.begun)
        return (
            is_awaited or self.can_end(state) or any(after in won and not self._fails(state, after) for after in calls)
        )

    def _answers(self, state: State) -> Iterator[State]:
        for index, call in enumerate(state.begun):
            yield self.answered(state, index, "ok")
            if call.tool not in self.game.always_ok:
                yield self.answered(state, index, "err")
                if not call.lost:
                    yield self.answered(state, index, "lost")

    def _calls(self, state: State) -> Iterator[State]:
        if len(state.begun) < self.width:
            yield from (self.started(state, tool) for tool in self.game.tools if self.is_legal(state, tool))


class TooLarge(Exception):
    """The graph is larger than the solver will walk."""


def _helds(phi: Formula) -> Iterator[Held]:
    if isinstance(phi, Held):
        yield phi
    elif isinstance(phi, Un):
        yield from _helds(phi.phi)
    elif isinstance(phi, Both):
        yield from _helds(phi.left)
        yield from _helds(phi.right)


# --- drawing games ---------------------------------------------------------------------------------------------------


def draw(random: Random, *, level: str = "V1") -> Game:
    """A random game that can be ended, with two to four duties."""
    while True:
        game = _drawn(random, level)
        solver = Solver(game, most=1500 if level == "V2" else 400)
        try:
            is_good = solver.is_won(solver.start()) if level == "V2" else solver.is_viable(solver.start())
            if is_good and (random.random() < 0.2 or solver.has_dead_end()):
                return game
        except TooLarge:
            pass


def _drawn(random: Random, level: str) -> Game:
    tools = tuple("abcde"[: random.randint(3, 5 if level == "V1" else 4)])
    rate = 0.8 if level == "V2" else 0.3
    always_ok = frozenset(tool for tool in tools if random.random() < rate)
    safe = frozenset(random.sample(tools, 1)) if random.random() < 0.3 else frozenset[str]()
    demands = tuple(
        Demand(random.choice(tools), _formula(random, tools, 1), random.random() < 0.5)
        for _ in range(random.randint(0, 3))
    )
    caps = tuple(
        Cap(random.choice(tools), random.randint(1, 2), random.choice((None, None, 2, 3)))
        for _ in range(random.randint(0, 2))
    )
    duties = tuple(_duty(random, tools, level) for _ in range(random.randint(2, 4 if level == "V1" else 3)))
    endings = tuple(_formula(random, tools, 1) for _ in range(random.choice((0, 0, 1))))
    return Game(tools, always_ok, safe, demands, caps, duties, endings)


def _formula(random: Random, tools: tuple[str, ...], depth: int) -> Formula:
    dice = random.random()
    if depth and dice < 0.2:
        return Both(random.choice(("and", "or")), _formula(random, tools, 0), _formula(random, tools, 0))
    if dice < 0.45:
        return Un(_formula(random, tools, 0))
    if dice < 0.6:
        on, off = random.sample(tools, 2)
        return Held(on, off)
    return Once(random.choice(("ok", "ok", "ok", "start", "err")), random.choice(tools))


def _duty(random: Random, tools: tuple[str, ...], level: str) -> Duty:
    kind = random.choice(
        ("ok", "ok", "ok", "start", "err", "user") if level == "V1" else ("ok", "start", "start", "err")
    )
    voids = [None, None, ("user", "stop"), ("ok", random.choice(tools)), ("start", random.choice(tools))]
    if level == "V2":
        return _certain(random, kind, tools)
    return Duty(
        kind,
        "go" if kind == "user" else random.choice(tools),
        random.choice(tools),
        random.choice((None, None, None, random.choice(tools))),
        random.choice((None, None, 1, 2, 3, 4)),
        random.choice(voids),
        random.choice((None, None, None, random.choice(tools))),
    )


def _certain(random: Random, kind: str, tools: tuple[str, ...]) -> Duty:
    """A duty as V2 takes it, if its tool turns out to be always ok."""
    guard, void = (
        random.choice((None, None, random.choice(tools))),
        random.choice((None, None, ("ok", random.choice(tools)))),
    )
    return Duty(kind, random.choice(tools), random.choice(tools), guard, random.choice((None, None, 1, 2, 3)), void)
