"""A small real transformer with random weights, a vocabulary of bytes, and an engine around them.

The model computes every token alone, in float64, so its numbers do not depend on what else is in the batch: with it
the engine owes the same tokens under any schedule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from aios.abi.chat import Message, Sampling, ToolChoice
from aios.abi.core import AnyMessage, AnyOrder, Finished, MaskState, ProcessFacts, Stepped, Submit, TokenRow
from aios.abi.guard import MaskFactory
from aios.abi.sched import Planner, Policy
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.engine.batch import Batch, Model, ModelConfig
from aios.engine.copier import Copier
from aios.engine.desk import Limits
from aios.engine.disk import DiskTier
from aios.engine.engine import Engine
from aios.engine.patience import LIMIT_S
from aios.engine.prefix import Digest, PrefixTrees
from aios.engine.shortcuts import Shortcuts
from aios.engine.tiers import Memory
from aios.formats.spelling import HERMES, CallFormat
from aios.ids import ContextId
from aios.sched import make_planner, make_retention

Kind = TypeVar("Kind")
EOS = 256
PAGE_TOKENS = 4
CONFIG = ModelConfig(
    architecture="tiny",
    layers=2,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    ff=32,
    vocab=260,
    max_context=96,
    rope_base=100.0,
    eps=1e-5,
)


class TinyModel:
    """Implements `Model`: attention with rotary positions, gated feed-forward, tied head."""

    def __init__(self, config: ModelConfig = CONFIG, seed: int = 1) -> None:
        self.config = config
        made = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> Tensor:
            return torch.randn(shape, generator=made, dtype=torch.float64) / math.sqrt(shape[-1])

        kv = config.kv_heads * config.head_dim
        self._embedding = weight(config.vocab, config.dim) * 4
        self._layers = [
            (
                weight(config.dim, config.dim),
                weight(kv, config.dim),
                weight(kv, config.dim),
                weight(config.dim, config.dim),
                weight(2 * config.ff, config.dim),
                weight(config.dim, config.ff),
            )
            for _ in range(config.layers)
        ]

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Compute token by token."""
        wanted = set(batch.sample.tolist())
        logits = []
        for row in batch.rows:
            for index in range(row.start, row.start + row.count):
                position = int(batch.positions[index])
                hidden = self._token(int(batch.tokens[index]), position, int(batch.slots[index]), row.pages, pool)
                if index in wanted:
                    logits.append(self._embedding @ hidden)
        return torch.stack(logits).float() if logits else torch.empty((0, self.config.vocab))

    def _token(self, token: int, position: int, slot: int, pages: Tensor, pool: Tensor) -> Tensor:
        config = self.config
        page, offset = divmod(slot, pool.shape[4])
        x = self._embedding[token]
        for index, (wq, wk, wv, wo, up, down) in enumerate(self._layers):
            h = _norm(x)
            query = _turn((wq @ h).view(config.heads, config.head_dim), position, config.rope_base)
            key = _turn((wk @ h).view(config.kv_heads, config.head_dim), position, config.rope_base)
            pool[page, index, 0, :, offset] = key.to(pool.dtype)
            pool[page, index, 1, :, offset] = (wv @ h).view(config.kv_heads, config.head_dim).to(pool.dtype)
            keys = _flat(pool, pages, index, 0)[: position + 1]
            values = _flat(pool, pages, index, 1)[: position + 1]
            scores = torch.softmax(query @ keys.T / math.sqrt(config.head_dim), dim=-1)
            x = x + wo @ (scores @ values).flatten()
            gate, value = (up @ _norm(x)).chunk(2)
            x = x + down @ (torch.nn.functional.silu(gate) * value)
        return _norm(x)


class Ahead:
    """A model that can be given a step whose tokens the host does not know: a device without delay."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.num_steps = self.num_ahead = 0

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._model.config

    def forward(self, batch: Batch, pool: Tensor, *, chosen: Tensor | None = None) -> Tensor:
        """Compute a step, with the tokens `chosen` in place of the batch's."""
        self.num_steps += 1
        if chosen is None:
            return self._model.forward(batch, pool)
        self.num_ahead += 1
        assert not batch.tokens.any(), "the host cannot know them"
        return self._model.forward(replace(batch, tokens=chosen.long()), pool)


def _flat(pool: Tensor, pages: Tensor, layer: int, kind: int) -> Tensor:
    """K (0) or V (1) of the only head, [tokens, dim], in the order of the page table."""
    return pool[pages, layer, kind, 0].flatten(0, 1).double()


def _norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + CONFIG.eps)


def _turn(x: Tensor, position: int, base: float) -> Tensor:
    half = x.shape[-1] // 2
    angle = position * base ** (-torch.arange(half, dtype=torch.float64) / half)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], dim=-1)


class ByteLexicon:
    """One token a byte, an end token, and a few longer tokens."""

    def __init__(self) -> None:
        self.token_bytes = [bytes([byte]) for byte in range(256)] + [b"<|end|>", b"the", b'{"', b'": ']
        self.vocab_size = len(self.token_bytes)
        self.eos_ids = self.special_ids = frozenset({EOS})

    def encode(self, text: str) -> list[int]:
        """Return the bytes of `text` as tokens."""
        return list(text.encode())

    def encode_output(self, text: str) -> list[int]:
        """The same: no text is written another way for what stands before it."""
        return self.encode(text)


def render(request: LlmGenerate, tools: Sequence[ToolSpec]) -> list[int]:
    """Write a conversation as its bytes."""
    return list("\n".join(f"{message.role}: {message.content}" for message in request.messages).encode())


class Ticks:
    """A clock that advances by one second at each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def tiny_engine(
    *,
    pages: int = 64,
    host_pages: int = 64,
    disk: Path | None = None,
    policy: Policy = "rr",
    quantum: int = 4,
    step_tokens: int = 16,
    planner: Planner | None = None,
    mask_factory: MaskFactory | None = None,
    clock: Callable[[], float] | None = None,
    model: Model | None = None,
    dtype: torch.dtype = torch.float64,
    is_exact: bool = False,
    may_drop: bool = True,
    copier: Copier | None = None,
    shortcuts: Shortcuts = Shortcuts(),  # noqa: B008 - immutable
    call_format: CallFormat = HERMES,
    shares: bool = False,
    digest: Digest | None = None,
    tenant_pages: int = 0,
    overlaps: bool = False,
    patience_s: float = LIMIT_S,
) -> Engine:
    """Return an engine with a tiny model; pages have 4 tokens. With `overlaps` it chooses and steps as on a device."""
    model = model or TinyModel()
    ahead = Ahead(model) if overlaps else None
    shape = (pages, model.config.layers, 2, model.config.kv_heads, PAGE_TOKENS, model.config.head_dim)
    pool = torch.zeros(shape, dtype=dtype)
    tier = DiskTier(disk, fingerprint={"model": "tiny"}, page_bytes=pool[0].nbytes) if disk else None
    memory = Memory(pool, host_pages=host_pages, disk=tier, copier=copier, tenant_pages=tenant_pages)
    return Engine(
        ahead or model,
        ByteLexicon(),
        memory,
        planner or make_planner(policy, quantum_tokens=quantum),
        retention=make_retention("least-cost"),
        limits=Limits(max_context=CONFIG.max_context, vocab=CONFIG.vocab, step_tokens=step_tokens, max_rows=8),
        prompt=render,
        clock=clock or Ticks(),
        mask_factory=mask_factory,
        shortcuts=shortcuts,
        is_exact=is_exact,
        may_drop=may_drop,
        call_format=call_format,
        prefixes=PrefixTrees(memory, digest) if shares else None,
        ahead=ahead,
        patience_s=patience_s,
    )


def submit(
    name: str = "1:main",
    prompt: Sequence[int] | str = "hello",
    *,
    epoch: int = 1,
    ticket: int = 1,
    lease: int = 1000,
    generated: tuple[int, ...] = (),
    tools: tuple[ToolSpec, ...] = (),
    tool_choice: ToolChoice = "auto",
    schema: dict[str, object] | None = None,
    mask: MaskState | None = None,
    kv_pages: int | None = None,
    tenant: str = "",
    messages: tuple[Message, ...] = (),
    **sampling: object,
) -> Submit:
    """Return an order to generate, 8 tokens by default and never ended by chance."""
    chosen = Sampling.model_validate({"max_tokens": 8, "ignore_eos": True, **sampling})
    tokens = () if messages else tuple(prompt.encode() if isinstance(prompt, str) else prompt)
    request = LlmGenerate(
        messages=messages, tokens=tokens, sampling=chosen, tool_choice=tool_choice, output_schema=schema
    )
    return Submit(
        context=ContextId(name),
        epoch=epoch,
        ticket=ticket,
        request=request,
        facts=ProcessFacts(pid=int(name.split(":", 1)[0]), kv_pages=kv_pages, tenant=tenant),
        lease_tokens=lease,
        generated=generated,
        tools=tools,
        mask=mask,
    )


def run(engine: Engine, *orders: AnyOrder, steps: int = 2000) -> list[AnyMessage]:
    """Do the orders, then step until nothing is left to do; return what was said.

    A grammar that is still being compiled is waited for.
    """
    for order in orders:
        engine.do(order)
    messages = engine.take_messages()
    for _ in range(steps):
        if not engine.step() and not engine.wait_for_grammar():
            break
        messages += engine.take_messages()
    else:
        raise AssertionError(f"still at work after {steps} steps")
    return messages + engine.take_messages()


def finished(messages: Sequence[AnyMessage]) -> dict[str, Finished]:
    """Return the generations that ended, by context."""
    return {message.context: message for message in messages if isinstance(message, Finished)}


def tokens_of(messages: Sequence[AnyMessage]) -> dict[str, tuple[int, ...]]:
    """Return the tokens of the generations that ended."""
    return {name: message.generation.tokens for name, message in finished(messages).items()}


def rows_of(messages: Sequence[AnyMessage], name: str = "1:main") -> list[TokenRow]:
    """Return the tokens of a context as they were streamed."""
    return [row for m in messages if isinstance(m, Stepped) for row in m.rows if row.context == name]


def one(messages: Sequence[AnyMessage], kind: type[Kind]) -> Kind:
    """Return the only message of a kind."""
    (message,) = [message for message in messages if isinstance(message, kind)]
    return message
