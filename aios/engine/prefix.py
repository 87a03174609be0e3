"""Prefix trees: which full pages hold the KV of a run of tokens that a tenant has had before.

Owns one tree a tenant. A node is a page and the tokens in it; its place is the tokens before it. Nodes are found by a
chained hash: blake2b, keyed with a secret of this engine and begun with the tenant's name, over the tokens page by
page. So nobody can aim at another's nodes, and the time of a look-up says nothing about them. A hash is never trusted:
what is found must hold the same tokens, follow the same node and belong to the same tenant.
Knows no contexts, and no bytes: where pages are, and which go first, is the business of `aios.engine.tiers`.
Invariant: a node in a tree follows another node of the tree or begins it; its page is kept by its tenant.
"""

import secrets
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from aios.engine.pages import Page, PageTable
from aios.engine.tiers import Memory

Digest = Callable[[bytes], bytes]


@dataclass(slots=True, eq=False)
class Node:
    """A full page of tokens after those of its parent."""

    tenant: str
    parent: "Node | None"
    digest: bytes
    tokens: Sequence[int]
    page: Page
    children: set["Node"] = field(default_factory=set)
    is_linked: bool = True
    """Whether it is in the tree."""


@dataclass(slots=True)
class Trail:
    """How far a log of tokens is known in its tenant's tree; it follows one log that only grows."""

    tenant: str
    digests: list[bytes] = field(default_factory=list)
    """Of the log's first full pages."""
    nodes: list[Node] = field(default_factory=list)
    """Of the log's first full pages, each compared token by token."""

    def cut(self, pages: int) -> None:
        """Keep only what is known of the first pages: the log goes on differently."""
        del self.digests[pages:]
        del self.nodes[pages:]

    def copy(self) -> "Trail":
        """Return a trail of its own for a copy of the log."""
        return Trail(self.tenant, [*self.digests], [*self.nodes])


def keyed_digest(secret: bytes) -> Digest:
    """Return blake2b-128 with a secret key of up to 64 bytes."""
    return lambda data: blake2b(data, key=secret, digest_size=16).digest()


class PrefixTrees:
    """The trees of all tenants over the pages of one memory."""

    def __init__(self, memory: Memory, digest: Digest | None = None) -> None:
        self._memory = memory
        self._digest = digest or keyed_digest(secrets.token_bytes(32))
        self._nodes: dict[bytes, Node] = {}
        self._homes: dict[Page, Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def bind(self, trail: Trail, tokens: Sequence[int], table: PageTable, *, may_fetch: bool = False) -> None:
        """Let a resident table take the pages that the tree holds of `tokens`, of which the last is left to compute.

        A partial page whose full form is found is given up for it. Without `may_fetch` pages off the device, and all
        after them, are left where they are; with it the table may be on its way back to the device afterwards.
        """
        size = table.page_tokens
        first, end = table.tokens // size, (len(tokens) - 1) // size
        if first >= end:
            return
        self._follow(trail, tokens, end)
        pages = [node.page for node in trail.nodes[first:end]]
        if not may_fetch:
            pages = pages[: next((index for index, page in enumerate(pages) if page.frame is None), None)]
        if pages:
            self._memory.truncate(table, first * size)
            self._memory.adopt(table, pages)

    def note(self, trail: Trail, tokens: Sequence[int], table: PageTable) -> None:
        """Add the full pages of a resident table to the tree, as far as it does not hold others of these tokens."""
        size = table.page_tokens
        full = table.tokens // size
        if full <= len(trail.nodes):
            return
        self._follow(trail, tokens, full)
        for index in range(len(trail.nodes), full):
            digest, page = self.digest(trail, tokens, index, size), table.pages[index]
            if page.owner is not None or digest in self._nodes:
                return  # in another tree, or another page has the same hash
            parent = trail.nodes[-1] if trail.nodes else None
            node = Node(trail.tenant, parent, digest, tokens[index * size : (index + 1) * size], page)
            self._memory.keep(page, trail.tenant, None if parent is None else parent.page)
            self._link(node)
            trail.nodes.append(node)

    def digest(self, trail: Trail, tokens: Sequence[int], index: int, page_tokens: int) -> bytes:
        """Return the chained hash of the log's page at `index`, which must be full."""
        digests = trail.digests
        while len(digests) <= index:
            first = len(digests) * page_tokens
            before = digests[-1] if digests else self._digest(trail.tenant.encode())
            digests.append(self._digest(before + array("Q", tokens[first : first + page_tokens]).tobytes()))
        return digests[index]

    def _follow(self, trail: Trail, tokens: Sequence[int], pages: int) -> None:
        """Bring `trail.nodes` up to date: as many of the first `pages` as the tree holds."""
        for page in self._memory.take_gone():
            if page in self._homes:  # not gone with the page before it
                self._unlink(self._homes[page])
        nodes, size = trail.nodes, self._memory.page_tokens
        while nodes and not nodes[-1].is_linked:
            nodes.pop()
        for node in nodes:
            if node.page.is_lost:
                self._unlink(node)
                break
        nodes[:] = [node for node in nodes if node.is_linked]
        while len(nodes) < pages:
            index = len(nodes)
            found = self._nodes.get(self.digest(trail, tokens, index, size))
            if found is None or not self._is_right(found, trail, tokens[index * size : (index + 1) * size]):
                return
            nodes.append(found)

    def _is_right(self, node: Node, trail: Trail, tokens: Sequence[int]) -> bool:
        """Whether a node found by its hash is the one that is looked for, and its page can be had."""
        parent = trail.nodes[-1] if trail.nodes else None
        if node.tenant != trail.tenant or node.parent is not parent or node.tokens != tokens:
            return False
        if node.page.is_lost:
            self._unlink(node)
        return node.is_linked

    def _link(self, node: Node) -> None:
        self._nodes[node.digest] = self._homes[node.page] = node
        if node.parent is not None:
            node.parent.children.add(node)

    def _unlink(self, node: Node) -> None:
        """Take a node and all that follow it, which nobody could find any more, out of the tree."""
        if node.parent is not None:
            node.parent.children.discard(node)
        pending = [node]
        while pending:
            node = pending.pop()
            pending += node.children
            node.is_linked = False
            del self._nodes[node.digest], self._homes[node.page]
            if node.page.owner is not None:
                self._memory.unkeep(node.page)
