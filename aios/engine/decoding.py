"""From the logits of a step to tokens in contexts: choose, check drafts, append, and take what is forced.

Owns what a context gains in a step and when its turn ends; does not plan, and knows no pages.

Invariants:
- A draft is checked by the row's own choice, one token after the other, with the grammar, the guard's mask, the
  penalties and the random number of that position. So speculation changes no token, as far as the product of a row
  does not depend on how many rows there are (in deterministic mode: never).
- A token is taken without logits only where the grammar alone leaves no other. The guard is asked about it all the
  same and, where it refuses, the row is decoded as usual and comes to the same dead end. Where the grammar leaves
  several tokens and the guard one, the favourite is wanted for the report, so that token waits for its logits.
- While an answer of the guard is missing nothing is taken, neither of a draft nor forced (`aios.engine.patience`).
- After a turn's first token, the last token of its context is outstanding: its KV is not computed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aios.abi.chat import Finish
from aios.abi.core import TokenRow
from aios.engine import masks
from aios.engine.batching import Grant
from aios.engine.choosing import Choice, Chooser, Rows
from aios.engine.context import Context, Turn
from aios.engine.grammar import Grammar, Lexicon
from aios.engine.masks import MaskFault
from aios.engine.shortcuts import JumpForward, Shortcuts


class Ending(NamedTuple):
    """A turn that ended with its last token."""

    context: Context
    finish: Finish


class Decoding:
    """Makes tokens of logits. Rows and endings wait to be taken."""

    def __init__(self, lexicon: Lexicon, chooser: Chooser, *, shortcuts: Shortcuts, clock: Callable[[], float]) -> None:
        self._lexicon, self._shortcuts, self._clock = lexicon, shortcuts, clock
        self._chooser = chooser
        self._rows: list[TokenRow] = []
        self._endings: list[Ending] = []
        self._callers: list[Context] = []

    @property
    def num_masked(self) -> int:
        """Favourites that the guard alone forbade, so far."""
        return self._chooser.num_masked

    def take_rows(self) -> list[TokenRow]:
        """Return the tokens since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def take_endings(self) -> list[Ending]:
        """Return the turns that ended since the last call; no token may be added to them."""
        endings, self._endings = self._endings, []
        return endings

    def take_callers(self) -> list[Context]:
        """Return the contexts whose turns have completed a call since the last time and may begin another."""
        callers, self._callers = self._callers, []
        return callers

    def decode(self, grants: Sequence[Grant], rows: Rows) -> None:
        """Choose for every grant that reached its end; `rows` are in the order of `assemble`.

        Notes in the grants what came of them. A turn that goes on may gain forced tokens at once.
        """
        now, at = self._clock(), 0
        for grant in grants:
            if grant.samples:
                self._decode(grant, rows, at, now)
                at += len(grant.draft) + 1

    def jump(self, context: Context) -> int:
        """Take the tokens that the grammar forces at the end of `context`; return how many. The turn may end."""
        turn = _turn(context)
        mode = self._shortcuts.jumps(turn.sampling)
        if mode == "off" or turn.sampling.logprobs or not isinstance(turn.grammar, Grammar):
            return 0
        before = turn.forced
        while (tokens := _forced(turn.grammar, mode)) and self._take_forced(context, turn, tokens):
            turn.jumped = mode
        return turn.forced - before

    # --- with logits ---------------------------------------------------------------------------------------

    def _decode(self, grant: Grant, rows: Rows, at: int, now: float) -> None:
        """Choose a token by row `at`, and go on as long as the draft holds what was chosen."""
        context, turn, is_over = grant.context, _turn(grant.context), False
        turn.first_token_s, turn.last_token_s = turn.first_token_s or now, now
        for place in range(len(grant.draft) + 1):
            choice = rows.choose(context, turn, at + place)
            is_over = self._append(context, turn, choice)
            grant.gained += choice.token is not None
            if is_over or place == len(grant.draft) or choice.token != grant.draft[place] or turn.is_waiting:
                break
            grant.accepted += 1
        if grant.draft:
            self._learn(grant, turn)
        turn.ahead = 0 if is_over else self.jump(context)
        grant.gained += turn.ahead

    @staticmethod
    def _learn(grant: Grant, turn: Turn) -> None:
        turn.drafter.confidence.learn(len(grant.draft), grant.accepted)
        turn.drafted, turn.accepted = turn.drafted + len(grant.draft), turn.accepted + grant.accepted

    def _append(self, context: Context, turn: Turn, choice: Choice) -> bool:
        """Append the token to the context; whether the turn ended with it, or for want of one."""
        token = choice.token
        if token is None:
            self._endings.append(Ending(context, "no_compliant_call"))
            return True
        if choice.logprob is not None:
            turn.logprobs.append(choice.logprob)
        position = len(turn.generated)
        turn.generated.append(token)
        context.tokens.append(token)
        text = "" if token in self._lexicon.eos_ids else turn.output.push(self._lexicon.token_bytes[token], position)
        finish = self._advance(context, turn, token)
        if finish is None and turn.lacks_word and context not in self._callers:
            self._callers.append(context)
        if finish is not None:
            text += turn.output.close()
            self._endings.append(Ending(context, finish))
        self._rows.append(
            TokenRow(
                context=context.id,
                epoch=context.epoch,
                position=position,
                token=token,
                text=text,
                masked=choice.masked,
                logprob=choice.logprob,
                calls_since=turn.output.calls_since,
            )
        )
        return finish is not None

    def _advance(self, context: Context, turn: Turn, token: int) -> Finish | None:
        """Move grammar and mask over `token`; why the turn ends with it, if it does."""
        if isinstance(turn.grammar, Grammar):
            turn.grammar.accept([token])
        try:
            if turn.mask is not None:
                masks.accept(turn.mask, token)
        except MaskFault:
            return "no_compliant_call"
        return turn.finish(len(context.tokens), self._lexicon.eos_ids)

    # --- without ------------------------------------------------------------------------------------------

    def _take_forced(self, context: Context, turn: Turn, tokens: Sequence[int]) -> bool:
        """Append forced tokens; whether all were taken and the turn goes on."""
        for token in tokens:
            if not self._permits(turn, token):
                return False
            turn.forced += 1
            if self._append(context, turn, Choice(token)):
                return False
        return True

    def _permits(self, turn: Turn, token: int) -> bool:
        """Whether the guard allows a forced token. If its mask fails, the row's own choice will end the turn."""
        if turn.mask is None:
            return True
        if turn.is_waiting:
            return False
        try:
            return masks.permits(turn.mask, token, vocab=self._lexicon.vocab_size)
        except MaskFault:
            return False


def _forced(grammar: Grammar, mode: JumpForward) -> Sequence[int]:
    if mode == "canonical":
        return grammar.forced()
    token = masks.only(grammar.peek())
    return () if token is None else (token,)


def _turn(context: Context) -> Turn:
    assert context.turn is not None
    return context.turn
