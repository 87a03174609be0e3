"""Constrained decoding: the one door to llguidance.

Owns the vocabulary as llguidance wants it (built with the first grammar, in a worker thread) and a cache of compiled
grammars; hands out independent matchers. Compilation never runs on the step loop.
Knows nothing of tools, schemas or rules: it takes a grammar's text (Lark, as `aios.formats.grammar` writes it).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray


class GrammarError(ValueError):
    """The grammar cannot be used; the message is the compiler's."""


class Lexicon(Protocol):
    """The vocabulary of a model as bytes. Implemented by the tokenizer of a GGUF file and by that of the tests."""

    vocab_size: int
    eos_ids: frozenset[int]
    special_ids: frozenset[int]
    token_bytes: list[bytes]
    """The bytes of each token."""

    def encode_output(self, text: str) -> list[int]:
        """Return the ids of text with which a model goes on."""
        ...


class Grammar:
    """A matcher at one point of one generation's output."""

    def __init__(self, matcher: LLMatcher, vocab: int) -> None:
        self._matcher, self._words = matcher, -(-vocab // 32)
        self._bits: NDArray[np.uint32] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end of the output can follow."""
        return bool(self._matcher.is_stopped())

    def bits(self) -> NDArray[np.uint32]:
        """Return a fresh bit mask of the tokens that may come next."""
        return self.peek().copy()

    def peek(self) -> NDArray[np.uint32]:
        """Return the bit mask of the tokens that may come next; not to be changed."""
        if self._bits is None:
            self._bits = np.zeros(self._words, dtype=np.uint32)
            data = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)[: self._words]
            self._bits[: len(data)] = data
        return self._bits

    def forced(self) -> list[int]:
        """Return the tokens of the text that must come next, as the model's tokenizer would write it; often none."""
        return list(self._matcher.compute_ff_tokens())

    def fitting(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` may come next, one after the other; moves nothing."""
        return int(self._matcher.validate_tokens(list(tokens)))

    def accept(self, tokens: Sequence[int]) -> bool:
        """Move on; False if the grammar does not allow these tokens."""
        self._bits = None
        return bool(self._matcher.consume_tokens(list(tokens)))

    def fork(self) -> "Grammar":
        """Return an independent copy at the same point."""
        return Grammar(self._matcher.deep_copy(), self._words * 32)


class Grammars:
    """Compiles grammars off the step loop and keeps the last ones. `on_ready` is called from the worker thread."""

    def __init__(self, lexicon: Lexicon, *, on_ready: Callable[[], None] = lambda: None, keep: int = 256) -> None:
        self._lexicon, self._on_ready, self._keep = lexicon, on_ready, keep
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, Future[LLMatcher]] = OrderedDict()

    def open(self, text: str) -> "PendingGrammar":
        """Start compiling the grammar `text`, or find it compiled."""
        future = self._compiled.get(text)
        if future is None:
            future = self._compiled[text] = self._worker.submit(self._compile, text)
            future.add_done_callback(lambda _: self._on_ready())
        self._compiled.move_to_end(text)
        if len(self._compiled) > self._keep:
            self._compiled.popitem(last=False)
        return PendingGrammar(future, self._lexicon.vocab_size)

    def run(self, job: Callable[[], object]) -> None:
        """Run a job in the worker, before what is opened later (a warm-up, for example)."""
        self._worker.submit(job)

    def close(self) -> None:
        """End the worker; grammars that are not compiled by then never will be."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _compile(self, text: str) -> LLMatcher:
        if self._tokenizer is None:  # there is one worker; a start without grammars does not wait for its tables
            self._tokenizer = _ll_tokenizer(self._lexicon)
        matcher = LLMatcher(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            raise GrammarError(str(matcher.get_error()))
        matcher.compute_bitmask()  # the first mask builds tables that every copy then shares
        return matcher


class PendingGrammar:
    """A grammar that is being compiled."""

    def __init__(self, future: "Future[LLMatcher]", vocab: int) -> None:
        self._future, self._vocab = future, vocab

    @property
    def is_ready(self) -> bool:
        """Whether `take` answers at once."""
        return self._future.done()

    def wait(self) -> None:
        """Wait until it is compiled or refused."""
        wait([self._future])

    def take(self) -> Grammar:
        """Return a matcher at the beginning. Raises GrammarError."""
        try:
            return Grammar(self._future.result().deep_copy(), self._vocab)
        except GrammarError:
            raise
        except Exception as error:
            raise GrammarError(f"{type(error).__name__}: {error}") from error


class _ByteVocabulary:
    """What `TokenizerWrapper` asks for."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._encode = lexicon.encode_output
        self.eos_token_id = min(lexicon.eos_ids)
        self.bos_token_id = None
        self.tokens = lexicon.token_bytes
        self.special_token_ids = sorted(lexicon.special_ids | lexicon.eos_ids)

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("text is wanted, not bytes")
        return self._encode(text)


def _ll_tokenizer(lexicon: Lexicon) -> LLTokenizer:
    wrapper = TokenizerWrapper(_ByteVocabulary(lexicon))
    return LLTokenizer(wrapper, n_vocab=lexicon.vocab_size, eos_token=sorted(lexicon.eos_ids))
