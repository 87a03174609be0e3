"""Which core has seen the beginning of a prompt: the longest common prefix, by digests of its beginnings.

Owns a bounded memory for each core, the latest kept. Knows no tokens and no KV: what an endpoint has cached it may
have forgotten, so a match is a guess that costs nothing when it is wrong. Tenants never match each other: no core
shares their pages either. Idea: the router of SGLang (Zheng et al., 2024), with chained digests instead of a tree.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from aios.abi.core import Submit

PIECE_BYTES = 512
MOST_BYTES = 1 << 20
"""Of a prompt; what follows does not count."""
MOST_REMEMBERED = 16_384
"""Beginnings a core: some 2 MB."""


class Beginning(NamedTuple):
    """The first `size` bytes of a prompt, by their digest."""

    digest: bytes
    size: int


def beginnings(order: Submit) -> list[Beginning]:
    """Return the beginnings of a prompt at which others may part from it, shortest first."""
    digest = hashlib.blake2b(order.facts.tenant.encode(), digest_size=16)
    size, found = 0, []
    for piece in _pieces(order):
        digest.update(piece)
        size += len(piece)
        found.append(Beginning(digest.digest(), size))
        if size >= MOST_BYTES:
            break
    return found


class Remembered:
    """The beginnings that one core has had."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def note(self, prompt: Sequence[Beginning]) -> None:
        """Remember a prompt. The longest beginnings are the first to be forgotten: the short ones are shared."""
        for beginning in reversed(prompt):
            self._known[beginning.digest] = None
            self._known.move_to_end(beginning.digest)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def common(self, prompt: Sequence[Beginning]) -> int:
        """Return how many bytes of the prompt the core has had before, all from its first one on."""
        return next((one.size for one in reversed(prompt) if one.digest in self._known), 0)


def _pieces(order: Submit) -> Iterator[bytes]:
    """Cut the prompt where it can be continued: behind each tool and each message, long ones in between too."""
    ask = order.request
    parts = [tool.model_dump_json(include={"name", "description", "parameters"}) for tool in order.tools]
    parts += [message.model_dump_json() for message in ask.messages]
    for part in map(str.encode, parts):
        yield from (part[at : at + PIECE_BYTES] for at in range(0, len(part), PIECE_BYTES))
    for at in range(0, len(ask.tokens), PIECE_BYTES):
        yield msgspec.json.encode(ask.tokens[at : at + PIECE_BYTES])
