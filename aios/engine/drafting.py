"""Guesses at the next tokens of a generation, made without a second model.

Owns what is guessed and how far: a continuation that the context itself has shown before (prompt lookup), as long as
guessing pays. Does not know whether a guess is right: the step loop computes drafts beside the row and takes what the
row's own choice confirms, so a draft never changes a token, only the number of steps.
Source of the method: prompt lookup decoding (Saxena, 2023); Leviathan et al., Fast Inference from Transformers via
Speculative Decoding (2023), section 3, for the length that pays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

NGRAM = 3
"""Tokens that must have occurred before; fewer agree by chance, more are rarely found."""
_FIRST_SHARE = 0.7
_LEARNING = 0.15
_REST = 0.005
"""By how much the estimate recovers when a draft was found and not tried: one in dozens is, so that a text that
begins to repeat itself is noticed."""


@dataclass(slots=True)
class Confidence:
    """Moving estimate of how often a drafted token is right."""

    share: float = _FIRST_SHARE

    def length(self, most: int, token_cost: float) -> int:
        """Return how many tokens to draft: as long as one more raises the tokens per time of the step.

        `token_cost`: time that one more token adds to a step, relative to a step of one token.
        """
        tokens, time, chance = 1.0, 1.0, 1.0
        for length in range(most):
            chance *= self.share
            if chance * time < token_cost * tokens:
                return length
            tokens, time = tokens + chance, time + token_cost
        return most

    def learn(self, drafted: int, accepted: int) -> None:
        """Take in a verified draft; what follows the first wrong token says nothing."""
        for _ in range(accepted):
            self.share += _LEARNING * (1 - self.share)
        if accepted < drafted:
            self.share -= _LEARNING * self.share

    def rest(self) -> None:
        """Take in that a draft was found and not tried."""
        self.share = min(_FIRST_SHARE, self.share + _REST)


@dataclass(slots=True)
class Drafter:
    """Drafts for one generation. The tokens that it is shown only ever grow."""

    confidence: Confidence = field(default_factory=Confidence)
    _places: dict[tuple[int, ...], int] = field(default_factory=dict)
    """N-gram → where the token after its last occurrence stands."""
    _read: int = 0

    def draft(self, tokens: Sequence[int], most: int, token_cost: float) -> list[int]:
        """Return up to `most` tokens that may follow `tokens`; none where nothing is found or nothing would pay."""
        self._learn_places(tokens)
        place = self._places.get(tuple(tokens[-NGRAM:]))
        if place is None or most <= 0:
            return []
        length = self.confidence.length(most, token_cost)
        if not length:
            self.confidence.rest()
        return _copied(tokens, place, length)

    def _learn_places(self, tokens: Sequence[int]) -> None:
        """Note the n-grams that something follows; the last one would only find itself."""
        first = max(self._read - NGRAM, 0)
        grams = zip(*(tokens[first + i :] for i in range(NGRAM)), strict=False)
        self._places.update(zip(grams, range(first + NGRAM, len(tokens)), strict=False))
        self._read = len(tokens)


def _copied(tokens: Sequence[int], place: int, length: int) -> list[int]:
    """Return what follows from `place` on; a copy that reaches the end goes on with itself."""
    period = len(tokens) - place
    return [tokens[place + i % period] for i in range(length)]
