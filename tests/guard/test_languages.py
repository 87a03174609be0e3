"""Languages combined from automata hold what the conditions say; JSON spelled byte by byte is let through exactly."""

import json
import operator
import re
from collections.abc import Callable
from random import Random

import pytest

from aios.guard.language.patterns import Pattern
from aios.guard.masking.inside import inside
from aios.guard.masking.languages import Holding, Language, Listed, Occurring, Ordered, Sized, single
from aios.guard.masking.shapes import Shapes
from aios.guard.masking.strings import Spelling
from aios.guard.masking.vocabulary import Vocabulary, listed
from aios.guard.monitor.origins import occurs

CHARACTERS = 'ab"\\\n\x01_é€😀 -'
WORDS = Vocabulary(
    [bytes([byte]) for byte in range(256)]
    + [
        word.encode()
        for word in ("ab", "aab", 'b"', '"}', 'a", "', '\\"', "\\n", "é€", "é", "a\\", "_ -", "baaab", "😀a", "")
    ],
    [],
)
Made = tuple[Language, Callable[[str], bool]]
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_HELD = {"starts": str.startswith, "ends": str.endswith, "contains": str.__contains__}


def _word(random: Random, most: int) -> str:
    return "".join(random.choices(CHARACTERS, k=random.randint(0, most)))


def _leaf(random: Random) -> Made:
    kind, constant, size = random.randrange(6), _word(random, 3), random.randint(0, 4)
    if kind == 0:
        texts = [_word(random, 4) for _ in range(random.randint(0, 4))]
        return single(Listed(texts)), lambda text: text in texts
    if kind == 1:
        way = random.choice(list(_HELD))
        return single(Holding(way, constant)), lambda text: bool(_HELD[way](text, constant))
    if kind == 2:
        return single(Sized(lambda count: count <= size, size + 1)), lambda text: len(text) <= size
    if kind == 3:
        sign = random.choice(list(_SIGNS))
        return single(Ordered(sign, constant)), lambda text: bool(_SIGNS[sign](text, constant))
    if kind == 4:
        texts = [_word(random, 8) for _ in range(random.randint(0, 3))]
        return single(Occurring(texts)), lambda text: any(occurs(text, one) if text else not one for one in texts)
    pattern = random.choice(("[ab]+", "a.*", r"\w*", "[^a]*é?"))
    return single(Pattern(pattern)), lambda text: re.fullmatch(pattern, text) is not None


def _made(random: Random, depth: int) -> Made:
    if depth == 0:
        return _leaf(random)
    left, holds = _made(random, depth - 1)
    kind = random.randrange(4)
    if kind == 0:
        return ~left, lambda text: not holds(text)
    right, also = _made(random, depth - 1)
    if kind < 3:
        return left & right, lambda text: holds(text) and also(text)
    return left | right, lambda text: holds(text) or also(text)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_a_text_is_let_through_byte_by_byte_where_the_conditions_hold_of_it(first: int) -> None:
    for seed in range(first, first + 50):
        random = Random(seed)
        language, holds = _made(random, random.randint(0, 3))
        spelling = Spelling(language)
        for _ in range(15):
            text = _word(random, 5)
            spelled = json.dumps(text, ensure_ascii=False).encode()
            assert language.has(text) is spelling.can_grow(spelled) is holds(text), (seed, text)
            assert not holds(text) or all(spelling.can_grow(spelled[:at]) for at in range(len(spelled))), (seed, text)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_bytes_that_are_let_through_can_always_go_on(first: int) -> None:
    for seed in range(first, first + 20):
        random = Random(seed)
        language, holds = _made(random, random.randint(0, 3))
        spelling, written = Spelling(language), b'"'
        for _ in range(20 if spelling.start is not None else 0):
            following = [byte for byte in range(32, 256) if spelling.can_grow(written + bytes((byte,)))]
            assert following, (seed, written)
            byte = ord('"') if ord('"') in following and random.random() < 0.4 else random.choice(following)
            written += bytes((byte,))
            if byte == ord('"') and _is_whole(written):
                assert holds(json.loads(written)), (seed, written)
                break


def _is_whole(written: bytes) -> bool:
    try:
        json.loads(written)
    except ValueError:
        return False
    return True


def test_only_the_canonical_spelling_of_a_character_is_let_through() -> None:
    spelling = Spelling(single(Sized(lambda count: count == 1, 2)))
    good = (b'"\xc3\xa9"', b'"\\n"', b'"\\u0001"', b'"/"', b'"\x7f"')
    bad = (b'"\\u00e9"', b'"\\/"', b'"\\u000a"', b'"\n"', b'"\xed\xa0', b'"\xc0', b'"\\u00e')
    assert [spelling.can_grow(text) for text in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


def test_what_may_follow_is_known_some_way_ahead() -> None:
    assert single(Sized(lambda count: count <= 7, 8)).depth((3,), 30) == 4
    assert single(Holding("contains", "ab")).depth((0,), 30) == 30
    assert single(Holding("starts", "ab")).depth((0,), 30) == 0


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_the_tokens_of_a_place_are_those_that_pass_one_by_one(first: int) -> None:
    shapes = Shapes(WORDS)
    for seed in range(first, first + 20):
        random = Random(seed)
        spelling = Spelling(_made(random, random.randint(0, 3))[0])
        written = json.dumps(_word(random, 3), ensure_ascii=False).encode()[:-1]
        spot = spelling.read(written[1 : random.randint(1, len(written))])
        if spot is None:
            continue
        found = inside(spelling, spot, WORDS, shapes)
        staying, closing = set(listed(found.staying)), sorted(one for group in found.closing.values() for one in group)
        for token, data in enumerate(WORDS.text):
            body, quote, _ = data.partition(b'"') if not spot[1] else (data, b"", b"")
            after = spelling.behind(spot, body)
            if b"\\" in data or not quote:  # an escaped quote ends nothing
                continue
            assert (token in closing) is (after is not None and spelling.closes(after)), (seed, data)
        plain = [token for token, data in enumerate(WORDS.text) if data and b'"' not in data and b"\\" not in data]
        assert staying & set(plain) == {t for t in plain if spelling.behind(spot, WORDS.text[t]) is not None}, seed
