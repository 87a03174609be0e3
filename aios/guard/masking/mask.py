"""The call mask: which tokens can still lead to a call that the rules allow.

One general test decides a token: feed its bytes to a copy of the call parser and ask whether what then stands there
can be completed (`Rulebook.can_go_on`). Where the grammar has left few tokens, those are tested. Otherwise the tokens
are found along the vocabulary's trie, a byte that cannot be completed cutting off all behind it; inside a string,
where every text goes on, tokens that end it alike are tested once (`Shapes`). What was found is kept by place.
A mask only clears bits. A fault of the mask costs tokens, never a violation: the gate decides.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec
from aios.formats.arguments import ArgumentsReader, Spot
from aios.formats.calls import CallParser, Place
from aios.formats.spelling import HERMES, CallFormat
from aios.guard.masking.asking import Asking, Solver
from aios.guard.masking.choices import Choices
from aios.guard.masking.inside import Inside, inside, walked_inside
from aios.guard.masking.shapes import Shapes, is_plain
from aios.guard.masking.standing import Rulebook, argument_name, decided, lead_of, place_of, written_value
from aios.guard.masking.strings import Spelling
from aios.guard.masking.vocabulary import Bits, Trie, Vocabulary, listed
from aios.guard.masking.written import Written, element_of

_MOST_REMEMBERED = 1024
_FEW = 12
"""Set tokens, up to which they are tested one by one."""
_CLOSERS = b",}"
"""What follows a value that has no closing sign of its own."""
_VALUE_SPOTS = (Spot.COLON, Spot.VALUE, Spot.STRING, Spot.NUMBER, Spot.WORD)
_NEXT = {
    Spot.OPEN: frozenset(b"{"),
    Spot.FIRST_KEY: frozenset(b'"}'),
    Spot.NEXT_KEY: frozenset(b'"'),
    Spot.COLON: frozenset(b": "),
    Spot.VALUE: frozenset(b'"-0123456789tfn{['),
    Spot.NUMBER: frozenset(b"-+.eE0123456789,}"),
    Spot.AFTER: frozenset(b",}"),
    Spot.COMMA: frozenset(b" "),
}
"""The bytes that can stand at a spot of the arguments object itself; any, where it is not listed."""
_NESTED = {
    **_NEXT,
    Spot.FIRST_ITEM: frozenset(b'"-0123456789tfn{[]'),
    Spot.NUMBER: frozenset(b"-+.eE0123456789,]}"),
    Spot.AFTER: frozenset(b",]}"),
}
"""The same inside of lists and objects."""


class _Known:
    """What was found out about a place."""

    __slots__ = ("forbidden", "is_whole", "tested")

    def __init__(self) -> None:
        self.tested: dict[int, bool] = {}
        """Token → whether it passes."""
        self.is_whole = False
        """Whether `forbidden` is known."""
        self.forbidden: Bits | None = None
        """All tokens that fail; None: not one."""


class CallMasks:
    """Makes call masks for one vocabulary and one spelling of calls. Implements `aios.abi.guard.MaskFactory`."""

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        special_ids: Iterable[int],
        format: CallFormat = HERMES,
        solver: Solver | None = None,
        *,
        in_order: bool = False,
    ) -> None:
        """`solver`: asked where rules relate open numbers in ways that are not settled here; it wakes the loop.

        `in_order`: a grammar beside the masks has the arguments in the order of their schema; what it has passed over
        stays absent.
        """
        self.in_order = in_order
        self.asking = Asking(solver)
        vocabulary = Vocabulary(token_bytes, special_ids)
        self.vocabulary, self.format = vocabulary, format
        self.between = format.between.encode()
        self.shapes = Shapes(vocabulary, format)
        self.shapes.prepare()
        tags = {format.open.encode(): format.head.encode(), format.again.encode(): format.again_head.encode()}
        self.crossing = vocabulary.having(*(tag + head[:1] for tag, head in tags.items()))
        """Tokens that open a call and go on inside it."""
        self.opening = vocabulary.having(*tags)
        self.tag_ending = vocabulary.having(*(tag[-1:] for tag in tags))
        """Tokens that may end an opening tag that was begun before."""
        self.tag_crossing = vocabulary.having(*(tag[-1:] + head[:1] for tag, head in tags.items()))
        behind = vocabulary.root.children.get(format.again.encode()[0])
        self.further = vocabulary.bits([] if behind is None else [*behind.tokens, *behind.below()])
        """Tokens that may begin what stands between two calls."""
        self._inside: dict[tuple[int, Any], tuple[Spelling, Inside]] = {}
        self.has_crossing, self.has_opening = bool(self.crossing.any()), bool(self.opening.any())

    def outside(self, place: Place, *, is_enabled: bool) -> Bits | None:
        """The tokens that must be looked at outside of a call; None: none. `is_enabled`: some tool may be called."""
        if place is Place.TAG:
            return self.tag_crossing if is_enabled else self.tag_ending
        if is_enabled:
            return self.crossing if self.has_crossing else None
        if place is Place.AFTER:
            return self.further
        return self.opening if self.has_opening else None

    def inside(self, spelling: Spelling, spot: Any) -> "Inside":
        """What the tokens do to a text of a language that is being written; kept by the place in the language."""
        place = (id(spelling), spot)
        if place not in self._inside:
            if len(self._inside) >= _MOST_REMEMBERED:
                self._inside.clear()
            self._inside[place] = (spelling, inside(spelling, spot, self.vocabulary, self.shapes))
        return self._inside[place][1]

    def open(self, state: MaskState, tools: Sequence[ToolSpec]) -> "TokenMask":
        """Start a mask at the beginning of a generation's output."""
        book = Rulebook(state, tools, asking=self.asking, in_order=self.in_order)
        return TokenMask(self, book, tuple(tools), CallParser(self.format))


class TokenMask:
    """Implements `aios.abi.guard.CallMask`."""

    def __init__(self, masks: CallMasks, book: Rulebook, tools: tuple[ToolSpec, ...], parser: CallParser) -> None:
        self._masks, self._rulebook, self._tools, self._parser = masks, book, tools, parser
        self._places: dict[Any, _Known] = {}
        """What was found out, by place; shared with forks, dropped with the residuals."""
        self._free: dict[Any, Bits] = {}
        """Tokens that fail in strings about which no rule says anything, by what is decided; kept alike."""
        self._known: _Known | None = None
        """About the place at hand."""
        self._has_given_up = False
        """Whether it is to answer here although something is missing."""

    @property
    def version(self) -> int:
        """Trace version of the residuals in use."""
        return self._rulebook.version

    @property
    def parser(self) -> CallParser:
        """Where the output stands; not to be fed."""
        return self._parser

    def accept(self, token: int) -> None:
        """Take in a token's bytes."""
        self._parser.feed(self._masks.vocabulary.text[token])
        self._known, self._has_given_up = None, False

    def steer(self, state: MaskState) -> None:
        """Go on with newer residuals."""
        self._rulebook = Rulebook(state, self._tools, self._rulebook, self._masks.asking, in_order=self._masks.in_order)
        self._has_given_up = False
        self._places, self._free, self._known = {}, {}, None

    @property
    def is_ready(self) -> bool:
        """Whether it can answer at once: no answer of the solver is missing."""
        return self._has_given_up or self._rulebook.is_ready(self._parser)

    def give_up(self) -> None:
        """Answer without what is missing here: less counts as possible."""
        self._has_given_up, self._known = True, None

    def fork(self) -> "TokenMask":
        """Return an independent copy at the same point."""
        twin = TokenMask(self._masks, self._rulebook, self._tools, self._parser.fork())
        twin._places, twin._free = self._places, self._free
        return twin

    # --- restricting -----------------------------------------------------------------------------------------------

    def restrict(self, bits: NDArray[np.uint32]) -> bool:
        """Clear the tokens from which no allowed call can be completed; return whether anything was cleared."""
        place = self._parser.place
        if place is Place.TEXT or place is Place.AFTER or place is Place.TAG:
            return self._outside(bits, place)
        if place is Place.ERROR or place is Place.TAIL:
            return False
        known = self._here()
        if not known.is_whole:
            few = _few(bits)
            if few is not None:
                return self._test(bits, few, known)
            known.forbidden, known.is_whole = self._forbidden(place), True
        return known.forbidden is not None and _clear(bits, known.forbidden)

    def _outside(self, bits: Bits, place: Place) -> bool:
        candidates = self._masks.outside(place, is_enabled=bool(self._rulebook.enabled))
        return candidates is not None and self._test(bits, listed(bits & candidates), self._here())

    def _test(self, bits: Bits, tokens: Iterable[int], known: _Known) -> bool:
        """Test tokens that are set, each once at a place; clear those that fail. Tokens without text are left alone."""
        tested, text = known.tested, self._masks.vocabulary.text
        failed = []
        for token in tokens:
            if token not in tested:  # masks are padded beyond the last token
                tested[token] = token >= len(text) or not text[token] or self._passes(token)
            if not tested[token]:
                failed.append(token)
        for token in failed:
            bits[token >> 5] &= np.uint32(~(1 << (token & 31)) & 0xFFFFFFFF)
        return bool(failed)

    def _here(self) -> _Known:
        if self._known is None and self._has_given_up:
            self._known = _Known()  # what is found without an answer is not kept
        if self._known is None:
            place = place_of(self._parser)
            found = self._places.get(place)
            if found is None:
                if len(self._places) >= _MOST_REMEMBERED:
                    self._places.clear()
                found = self._places[place] = _Known()
            self._known = found
        return self._known

    def _passes(self, token: int) -> bool:
        trial = self._parser.fork()
        trial.feed(self._masks.vocabulary.text[token])
        return self._rulebook.can_go_on(trial, len(self._parser.calls))

    # --- all tokens of a place -------------------------------------------------------------------------------------

    def _forbidden(self, place: Place) -> Bits | None:
        if place is Place.HEAD or place is Place.NAME:
            return ~self._named()
        reader, tool = self._parser.reader, self._parser.tool
        if reader is None:
            return self._all_but(self._from_root(self._masks.between[self._parser.done : self._parser.done + 1]))
        if tool not in self._rulebook.enabled:
            return None
        if reader.depth > 1:
            return self._nested(self._rulebook.choices(tool), argument_name(self._parser), reader)
        if reader.spot in _VALUE_SPOTS:
            found = self._of_value(self._rulebook.choices(tool), argument_name(self._parser), reader)
            if found is not None:
                return found
        if reader.spot is Spot.KEY:
            keys, written = self._rulebook.choices(tool).keys, reader.key[1:]
            return self._all_but(self._from_root({key[len(written)] for key in keys if key.startswith(written)}))
        return self._all_but(self._from_root(_following(self._parser)))

    def _of_value(self, choices: Choices, name: str, reader: ArgumentsReader) -> Bits | None:
        """The tokens that fail where a finite set or a string is written; None: to be found by a walk."""
        if name not in choices.params:
            return None
        args = decided(choices, self._parser)
        written = choices.written(name, args)
        if written.spelled is not None:
            return ~self._listed(written.spelled, written_value(self._parser), lead_of(self._parser))
        if reader.spot is not Spot.STRING:
            return None
        if written.spelling is not None and not (choices.is_uniform(name) and written.some.language is None):
            return self._in_language(written.spelling, reader.value, alone=choices.stands_alone(name, args))
        return self._in_free_string(choices, name, reader)

    def _listed(self, spelled: Sequence[bytes], written: bytes, lead: bytes = b"") -> Bits:
        """Tokens that go on towards one of the spellings, which rise."""
        begun = spelled[bisect_left(spelled, written) : bisect_left(spelled, written + b"\xff")]
        return self._leading([lead + text[len(written) :] for text in begun])

    def _in_free_string(self, choices: Choices, name: str, reader: ArgumentsReader) -> Bits:
        """Where no rule says anything about the string, what may follow it is the same whatever was written."""
        if not choices.is_free(name) or not is_plain(reader.value):
            return self._in_string(choices, name, reader.value)
        place = (self._parser.name, *place_of(self._parser)[-1], reader.key)
        if place not in self._free:
            self._free[place] = self._in_string(choices, name, reader.value)
        return self._free[place]

    def _in_language(self, spelling: Spelling, written: bytes, *, alone: bool) -> Bits:
        """Where a text of a language is written. `alone`: what may follow it is the same whatever the text."""
        spot = spelling.read(written[1:])
        if spot is None:
            return ~self._masks.vocabulary.untouched
        inside = self._masks.inside(spelling, spot)
        closing = self._closing(inside.closing, alone=alone)
        return ~(inside.staying | self._masks.vocabulary.bits(closing) | self._masks.vocabulary.untouched)

    def _closing(self, closing: dict[bytes, list[int]], *, alone: bool) -> list[int]:
        """Of the tokens that end the text as they may, by what they do from the quote on, those that pass."""
        found: list[int] = []
        for tokens in closing.values():
            if alone:
                found += tokens if self._passes(tokens[0]) else ()
            else:
                found += [token for token in tokens if self._passes(token)]
        return found

    def _named(self) -> Bits:
        parser, between = self._parser, self._masks.between
        head = parser.fixed[parser.done :]
        names = [tool.encode() for tool in sorted(self._rulebook.enabled) if tool.encode().startswith(parser.name)]
        return self._leading(sorted(head + name[len(parser.name) :] + between for name in names))

    def _leading(self, wanted: Sequence[bytes]) -> Bits:
        """Tokens that begin one of the texts, which rise, and those that go on behind one and pass the test."""
        vocabulary, calls = self._masks.vocabulary, len(self._parser.calls)
        found, ends = vocabulary.towards(wanted)
        for text, node in ends:
            trial = self._parser.fork()
            trial.feed(text)
            if not text or self._rulebook.can_go_on(trial, calls):
                found.update(self._walked(trial, node, _following(trial) if text else _CLOSERS))
        return vocabulary.bits(found) | vocabulary.untouched

    def _from_root(self, first: Iterable[int] | None) -> list[int]:
        return self._walked(self._parser, self._masks.vocabulary.root, first)

    def _all_but(self, passed: Iterable[int]) -> Bits:
        return ~(self._masks.vocabulary.bits(passed) | self._masks.vocabulary.untouched)

    def _walked(self, start: CallParser, root: Trie, first: Iterable[int] | None) -> list[int]:
        """Tokens below `root` that pass, found byte by byte; `first`: the bytes that may come next, if known."""
        calls, found = len(self._parser.calls), list[int]()
        stack = [(start, root, first)]
        while stack:
            parser, node, following = stack.pop()
            for byte in node.children if following is None else following:
                child = node.children.get(byte)
                if child is None:
                    continue
                trial = parser.fork()
                trial.feed(bytes((byte,)))
                if not self._rulebook.can_go_on(trial, calls):
                    continue
                found += child.tokens
                written = self._open_string(trial) if child.children else None
                if written is not None:
                    found += self._in_open_string(trial, written, child)
                elif child.children:
                    stack.append((trial, child, _following(trial)))
        return found

    def _open_string(self, trial: CallParser) -> Written | None:
        """The values of the string that is being written, if they may be infinitely many."""
        reader, tool = trial.reader, trial.tool
        if reader is None or tool is None or reader.spot is not Spot.STRING or reader.depth > 2:
            return None
        choices, name = self._rulebook.choices(tool), argument_name(trial)
        if name not in choices.params:
            return None
        written: Written | None = choices.written(name, decided(choices, trial))
        if reader.depth > 1 and written is not None:
            written = element_of(written, reader)
        return written if written is not None and written.spelling is not None else None

    def _in_open_string(self, trial: CallParser, written: Written, node: Trie) -> Iterator[int]:
        """Tokens below a node that stands inside such a string: those that stay in it or end it well."""
        reader, spelling = trial.reader, written.spelling
        assert reader is not None and spelling is not None
        leaf = reader.leaf
        text, course = self._masks.vocabulary.text, self._masks.shapes.course
        if written.some.language is None and is_plain(leaf):
            for token in node.below():
                stays = course(text[token], node.depth)
                if stays or (stays is None and self._passes(token)):
                    yield token
            return
        spot = spelling.read(leaf[1:])
        if spot is not None:
            staying, closing = walked_inside(spelling, spot, node, text)
            yield from staying
            yield from self._closing(closing, alone=False)

    def _in_string(self, choices: Choices, name: str, written: bytes) -> Bits:
        """Where a string is written that may have infinitely many values."""
        shapes = self._masks.shapes
        if not choices.is_uniform(name) or not is_plain(written):
            return self._failing(listed(shapes.quotes))
        single = {token for end in choices.ends(name, written) for token in shapes.by_prefix.get(end, ())}
        forbidden = shapes.misplaced | self._failing((*single, *shapes.odd))
        for group, tokens in shapes.by_tail:
            one = next((token for token in tokens if token not in single), None)
            if one is not None and not self._passes(one):
                forbidden |= group & ~self._masks.vocabulary.bits(single)
        return forbidden

    def _nested(self, choices: Choices, name: str, reader: ArgumentsReader) -> Bits | None:
        """Inside a list or object."""
        if name not in choices.params:
            return None
        written = choices.written(name, decided(choices, self._parser))
        if written.is_any:
            return self._unasked(reader)
        if written.spelled is not None:
            return ~self._listed(written.spelled, reader.value)
        if reader.depth == 2 and reader.spot is Spot.STRING:
            found = self._in_element(written, reader)
            if found is not None:
                return found
        return self._all_but(self._from_root(_following(self._parser)))

    def _in_element(self, written: Written, reader: ArgumentsReader) -> Bits | None:
        """Where a text is an element of a list."""
        part = element_of(written, reader)
        if part is None or part.spelling is None:
            return None
        return self._in_language(part.spelling, reader.leaf, alone=part.some.language is None and part.some.is_all)

    def _unasked(self, reader: ArgumentsReader) -> Bits:
        """Where nothing is asked of what is inside, only its end matters."""
        shapes = self._masks.shapes
        if reader.spot is Spot.AFTER:
            return self._failing(listed(shapes.nested_behind_value))
        in_string = reader.spot is Spot.STRING and is_plain(reader.leaf)
        return self._failing(listed(shapes.nested_in_string if in_string else shapes.nested))

    def _failing(self, tokens: Iterable[int]) -> Bits:
        return self._masks.vocabulary.bits([token for token in tokens if not self._passes(token)])

    # --- blame -----------------------------------------------------------------------------------------------------

    def blame(self, token: int) -> str | None:
        """Id of a rule that forbids `token` here; None if none does (or only several together)."""
        trial = self._parser.fork()
        trial.feed(self._masks.vocabulary.text[token])
        calls = len(self._parser.calls)
        if trial.place is Place.ERROR or self._rulebook.can_go_on(trial, calls):
            return None
        if len(trial.calls) > calls:
            call = trial.calls[calls]
            return self._blamed(call.name, dict(call.arguments), complete=True)
        if trial.place in (Place.HEAD, Place.NAME, Place.TEXT, Place.TAG):
            return self._blamed_name(trial.name.decode("utf-8", "replace"))
        return self._blamed_value(trial)

    def _blamed_name(self, begun: str) -> str | None:
        names = [tool.name for tool in self._tools if tool.name.startswith(begun)]
        found = [self._rulebook.blamed(name, {}) for name in names]
        return next((rule for rule in found if rule is not None), None)

    def _blamed(self, tool: str, arguments: dict[str, Any], *, complete: bool) -> str | None:
        if tool not in self._rulebook.enabled:
            return self._rulebook.blamed(tool, {})
        choices = self._rulebook.choices(tool)
        args = {name: choices.read(name, value) for name, value in arguments.items() if name in choices.params}
        return self._rulebook.blamed(tool, choices.complete(args) if complete else args)

    def _blamed_value(self, trial: CallParser) -> str | None:
        tool = trial.tool
        if tool is None or tool not in self._rulebook.enabled:
            return None if tool is None else self._rulebook.blamed(tool, {})
        found = self._blamed(tool, dict(trial.arguments), complete=trial.place is Place.TAIL)
        reader = trial.reader
        if found is not None or reader is None or reader.spot is Spot.KEY:
            return found
        return self._rulebook.narrowing(tool, trial.arguments, argument_name(trial))


def _following(parser: CallParser) -> Iterable[int] | None:
    """The bytes that can come next in arguments, if that is known."""
    reader = parser.reader
    if reader is None or parser.place is Place.TAIL:
        return None
    return (_NEXT if reader.depth == 1 or reader.spot is Spot.OPEN else _NESTED).get(reader.spot)


def _few(bits: Bits) -> list[int] | None:
    """The tokens that are set, if they are few."""
    words = bits.nonzero()[0]
    if len(words) > _FEW:
        return None
    found = listed(bits, words)
    return found if len(found) <= _FEW else None


def _clear(bits: Bits, forbidden: Bits) -> bool:
    refused = bits & forbidden
    if not refused.any():
        return False
    bits ^= refused
    return True
