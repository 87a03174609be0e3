"""What a vocabulary's tokens do inside of a text of a language: which stay in it, which end it.

Owns the walk of the vocabulary along the language's automaton: byte by byte along a trie where little can follow;
otherwise tokens of plain characters together, place by place, as far as the next characters may not be anything.
Knows vocabulary and languages; neither parser nor rules.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aios.guard.masking.languages import Language
from aios.guard.masking.shapes import Plain, Shapes
from aios.guard.masking.strings import Spelling, Spot
from aios.guard.masking.vocabulary import Bits, Trie, Vocabulary

_QUOTE = ord('"')


class Inside(NamedTuple):
    """Tokens that stay in the text; and those that end it where it may end, by what they are from the quote on."""

    staying: Bits
    closing: dict[bytes, list[int]]


def inside(spelling: Spelling, spot: Spot, vocabulary: Vocabulary, shapes: Shapes) -> Inside:
    """Find both for all tokens."""
    state, begun = spot
    if begun or spelling.language.is_sparse(state):  # only some bytes can follow
        staying, closing = walked_inside(spelling, spot, vocabulary.root, vocabulary.text)
        return Inside(vocabulary.bits(staying), closing)
    staying, closing = walked_inside(spelling, spot, shapes.special, vocabulary.text)
    free = spelling.language.depth(state, len(shapes.up_to) - 1)
    found = vocabulary.bits(staying) | shapes.up_to[free]
    if free < len(shapes.up_to) - 1:
        found |= vocabulary.bits(_live(spelling.language, state, shapes.plain, free))
    return Inside(found, closing)


def _live(language: Language, state: Any, plain: Plain, free: int) -> NDArray[np.int64]:
    """The plain tokens of more than `free` characters behind which the text is live."""
    first = int(np.searchsorted(plain.lengths, free, side="right"))
    states, at = [state], np.zeros(len(plain.tokens) - first, dtype=np.int64)
    dead = np.zeros(len(at), dtype=bool)
    for start, column in plain.columns:
        skipped = max(start - first, 0)
        active = np.flatnonzero(~dead[skipped:]) + skipped
        if not len(active):
            break
        asked = at[active] * len(plain.alphabet) + column[active + first - start]
        told, places = np.unique(asked, return_inverse=True)
        states, numbers = _stepped(language, states, told, plain.alphabet)
        at[active] = numbers[places]
        dead[active] = numbers[places] < 0
    return plain.tokens[first:][~dead]


def _stepped(
    language: Language, states: list[Any], asked: NDArray[np.int64], alphabet: list[str]
) -> tuple[list[Any], NDArray[np.int64]]:
    """The states behind pairs of a state and a character; and the number of each one's; -1: it is not live."""
    found: dict[Any, int] = {}
    numbers = []
    for pair in asked.tolist():
        number, char = divmod(pair, len(alphabet))
        after = language.step(states[number], alphabet[char])
        numbers.append(found.setdefault(after, len(found)) if language.is_live(after) else -1)
    return list(found), np.array(numbers, dtype=np.int64)


def walked_inside(
    spelling: Spelling, spot: Spot, root: Trie, text: tuple[bytes, ...]
) -> tuple[list[int], dict[bytes, list[int]]]:
    """The tokens below `root`, which stands at `spot`: those that stay, and those that end the text."""
    staying: list[int] = []
    closing: dict[bytes, list[int]] = {}
    stack = [(spot, root)]
    step = spelling.step
    while stack:
        at, node = stack.pop()
        for byte, child in node.children.items():
            if byte == _QUOTE and not at[1]:
                if spelling.closes(at):
                    for token in (*child.tokens, *child.below()):
                        closing.setdefault(text[token][node.depth :], []).append(token)
                continue
            after = step(at, byte)
            if after is not None:
                staying += child.tokens
                stack.append((after, child))
    return staying, closing
