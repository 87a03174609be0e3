"""Plays games on the real gate and beside it on the solver, and counts what was seen."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules
from tests.guard.games import Game, Solver, TooLarge, draw


@dataclass
class Play:
    """One game under way. The same moves are made on the gate and on the solver's state."""

    game: Game
    random: Random
    level: str = "V1"
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.solver = Solver(self.game)
        self.state = self.solver.start()
        self.gate: RuleGate = compile_rules(self.game.text(self.level), complete=True)
        self.loose: RuleGate = compile_rules(self.game.text("V0"), complete=True)
        self.seq = 0
        self.starts: list[int] = []
        """Numbers of the unanswered calls, as the state has them."""
        self.told: list[str] = []

    def walk(self, length: int) -> str | None:
        """Make random moves; return what went wrong."""
        for _ in range(length):
            wrong = self._agent() if self.random.random() < 0.55 or not self.starts else self._environment()
            if wrong is not None:
                return f"{wrong}\n{self.game.text(self.level)}" + "\n".join(self.told)
        return None

    def _event(self, kind: str, tool: str = "", **fields: object) -> TraceEvent:
        return TraceEvent(self.seq + 1, 0.0, 1, kind, tool, **fields)  # type: ignore[arg-type]  # by name

    def _agent(self) -> str | None:
        """Look at every tool, then take one that is admitted."""
        admitted = []
        is_viable = self.solver.is_viable(self.state)
        self.seen["states"] += 1
        self.seen["states not viable"] += not is_viable
        for tool in self.game.tools:
            event = self._event("start", tool)
            is_legal = self.solver.is_legal(self.state, tool)
            if self.loose.allows(event) is not is_legal:
                return f"V0 says {not is_legal} of {tool}, the solver {is_legal}"
            may = self.gate.allows(event)
            if may and not is_legal:
                return f"{tool} is admitted and not legal"
            if is_legal:
                wrong = self._compare(tool, may=may, is_viable=is_viable)
                if wrong is not None:
                    return wrong
            if may:
                admitted.append(tool)
        ending = self._event("finish")
        if self.gate.allows(ending) is not self.solver.can_end(self.state):
            return f"finish: the gate says {self.gate.allows(ending)}"
        if admitted and len(self.starts) < 2:
            self._start(self.random.choice(admitted))
        elif self.solver.messages() and self.random.random() < 0.5:
            self._tell(self.random.choice(self.solver.messages()))
        return None

    def _compare(self, tool: str, *, may: bool, is_viable: bool) -> str | None:
        after = self.solver.is_viable(self.solver.started(self.state, tool))
        self.seen["legal moves"] += 1
        self.seen["V0 gets stuck"] += is_viable and not after
        if not is_viable:
            if may is not (tool in self.game.safe):
                return f"no end can be reached, and {tool} is {'admitted' if may else 'denied'}"
            return None
        if may and not after and not self._wide(tool):
            return f"{tool} is admitted, and no end can be reached after it"
        self.seen["admitted"] += may
        if after and not may:
            self.seen["viable and denied"] += 1
            if self.gate._viability.table.is_complete:
                return f"all is in the table, an end can be reached after {tool}, and it is denied"
            self.told.append(f"lost: {tool}")
        return None

    def _wide(self, tool: str) -> bool:
        """Whether an end can be reached by calls under way side by side."""
        self.seen["needs calls side by side"] += 1
        wide = Solver(self.game, width=3, most=50_000)
        return wide.is_viable(wide.started(self.state, tool))

    def _start(self, tool: str) -> None:
        self._record(self._event("start", tool))
        self.starts.append(self.seq)
        self.state = self.solver.started(self.state, tool)
        self.told.append(f"start {tool}")

    def _environment(self) -> str | None:
        index = self.random.randrange(len(self.starts))
        call = self.state.begun[index]
        kinds = ["ok"] if call.tool in self.game.always_ok else ["ok", "ok", "err", "lost"]
        kind = self.random.choice(kinds)
        if kind == "lost" and call.lost:
            return None
        self._record(self._event(kind, cause=self.starts[index]))
        self.state = self.solver.answered(self.state, index, kind)
        if kind != "lost":
            del self.starts[index]
        self.told.append(f"{kind} {call.tool}")
        return None

    def _tell(self, text: str) -> None:
        self._record(self._event("user", args={"text": text}))
        self.state = self.solver.told(self.state, text)
        self.told.append(text)

    def _record(self, event: TraceEvent) -> None:
        if event.kind == "start":
            self.gate.judge(event)  # as the kernel does, in the same step
        self.gate.record(event)
        self.loose.record(event)
        self.seq += 1


def played(seed: int, length: int = 14) -> tuple[str | None, Counter[str]]:
    """Draw a game and play it; return what went wrong and what was seen."""
    random = Random(seed)
    play = Play(draw(random), random)
    try:
        wrong = play.walk(length)
    except TooLarge:
        play.seen["left out"] += 1
        wrong = None
    play.seen["in the table"] += play.gate._viability.table.is_complete
    play.seen["stuck under V0"] += _may_get_stuck(play)
    return (None if wrong is None else f"seed {seed}: {wrong}"), play.seen


class CertainPlay(Play):
    """A game under V2: against answers that are never to the agent's liking."""

    def __init__(self, game: Game, random: Random) -> None:
        super().__init__(game, random, "V2")
        self.solver = Solver(game, width=2, most=4000)

    def _agent(self) -> str | None:
        """Look at every tool: none may lead out of the states that are won; one that stays must be admitted."""
        if not self.solver.is_won(self.state):
            return "the state is not won any more"
        self.seen["states"] += 1
        good, stuck = [], 0
        for tool in self.game.tools if len(self.starts) < 2 else ():
            if not self.solver.is_legal(self.state, tool):
                continue
            may = self.gate.allows(self._event("start", tool))
            after = self.solver.started(self.state, tool)
            is_good = self.solver.is_won(after) and not self.solver._fails(self.state, after)
            stuck += not is_good
            if may and not is_good and not self._wide(tool):
                return f"{tool} is admitted and leads out of the states that are won"
            self.seen["admitted"] += may
            self.seen["won and denied"] += is_good and not may
            good += [tool] if may else []
        self.seen["V0 gets stuck"] += stuck
        may_end = self.gate.allows(self._event("finish"))
        if may_end is not self.solver.can_end(self.state):
            return f"finish: the gate says {may_end}"
        if not good and not may_end and not any(not call.lost for call in self.state.begun):
            return "won, and no move is admitted"
        if good:
            self._start(self.random.choice(good))
        return None

    def _wide(self, tool: str) -> bool:
        """Whether it is won by more calls side by side: lost ones stay in the way of a narrow solver."""
        self.seen["needs calls side by side"] += 1
        wide = Solver(self.game, width=len(self.starts) + 3, most=30_000)
        after = wide.started(self.state, tool)
        return wide.is_won(after) and not wide._fails(self.state, after)


def played_for_certain(seed: int, length: int = 12) -> tuple[str | None, Counter[str]]:
    """Draw a game that V2 takes and that is won at the start, and play it."""
    random = Random(seed)
    while True:
        game = draw(random, level="V2")
        try:
            play = CertainPlay(game, random)
            break
        except RuleError:
            continue
    try:
        wrong = play.walk(length)
    except TooLarge:
        play.seen["left out"] += 1
        wrong = None
    play.seen["stuck under V0"] += _may_get_stuck(play)
    return (None if wrong is None else f"seed {seed}: {wrong}"), play.seen


def _may_get_stuck(play: Play) -> bool:
    """Whether rules alone would let the agent of this game walk into a dead end."""
    try:
        return play.seen["V0 gets stuck"] > 0 or Solver(play.game).has_dead_end()
    except TooLarge:
        return False
