"""What a vocabulary's tokens do inside of a text of a language: which stay in it, which end it.

Owns the walk of the vocabulary's trie along the language's automaton. Where the next characters may be anything, only
the tokens that are more than plain characters are walked. Knows vocabulary and languages; neither parser nor rules.
"""

from typing import NamedTuple

from aios.guard.masking.shapes import Shapes
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
    depth = 0 if begun else spelling.language.depth(state, shapes.longest)
    if not depth:
        staying, closing = walked_inside(spelling, spot, vocabulary.root, vocabulary.text)
        return Inside(vocabulary.bits(staying), closing)
    staying, closing = walked_inside(spelling, spot, shapes.beyond(depth), vocabulary.text)
    return Inside(vocabulary.bits(staying) | shapes.up_to(depth), closing)


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
