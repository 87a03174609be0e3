"""The C++ operations: the numbers of the torch operations, whatever else is computed beside, and nothing past an array.

Without a compiler there is no library; what then happens is tested here too, the rest needs one.
"""

import ctypes
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aios_kernels.native import build
from aios_kernels.native.check import (
    DIM,
    PAGE_TOKENS,
    PAGES,
    TOLERANCE,
    VOCAB,
    new_pool,
    random_model,
    random_tiles,
    reference,
    step_of,
)
from aios_kernels.native.library import Decoder, Library, NativeError, Span, StepArrays
from aios_kernels.native.tiles import Tiles, eight_bit_tiles, float_tiles, four_bit_tiles, unpacked

pytestmark = pytest.mark.timeout(300)
KINDS = ("four", "eight", "float", "brain")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path = build.built(tmp_path_factory.mktemp("native"))
    if path is None:
        pytest.skip("no C++ compiler for this processor")
    return Library(path)


# -- packing


def test_tiles_stand_for_the_numbers_that_were_packed() -> None:
    made = torch.Generator().manual_seed(0)
    scales = torch.rand(21, 3, generator=made).half()
    wide = scales.float().repeat_interleave(32, 1)
    four = torch.randint(0, 16, (21, 96), generator=made, dtype=torch.uint8)
    eight = torch.randint(-128, 128, (21, 96), generator=made).to(torch.int8)
    assert torch.equal(unpacked(four_bit_tiles(four, scales, -scales)), four * wide - wide)
    assert torch.equal(unpacked(eight_bit_tiles(eight, scales)), eight * wide)
    assert torch.equal(unpacked(float_tiles(wide)), wide)
    assert torch.equal(unpacked(float_tiles(wide.bfloat16())), wide.bfloat16().float())


@pytest.mark.parametrize("data", [torch.zeros(2, 3, 161, dtype=torch.uint8), torch.zeros(2, 3, 8).half()])
def test_other_layouts_are_refused(data: Tensor) -> None:
    with pytest.raises(ValueError, match="no layout"):
        _ = Tiles(data, 16).kind


# -- products


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "width", "count"), [(1, 32, 1), (8, 64, 3), (43, 96, 5), (64, 576, 33), (17, 1536, 4)]
)
def test_a_product_is_torchs(library: Library, kind: str, rows: int, width: int, count: int) -> None:
    made = torch.Generator().manual_seed(rows)
    tiles, x = random_tiles(made, rows, width, kind), torch.randn(count, width, generator=made)
    wanted = x.double() @ unpacked(tiles).double().T
    # activations are rounded to 16 bits where weights are codes
    assert torch.allclose(library.product(tiles, x).double(), wanted, atol=2e-4 * float(wanted.abs().max()), rtol=0)


def test_activations_of_any_size_are_rounded_soundly(library: Library) -> None:
    tiles = random_tiles(torch.Generator().manual_seed(0), 8, 64, "eight")
    for size in (0.0, 1e-40, 1e-30, 1e-6, 1e30):
        x = torch.full((2, 64), size)
        wanted = x @ unpacked(tiles).T
        assert torch.allclose(library.product(tiles, x), wanted, rtol=1e-3, atol=1e-3 * size + 1e-28)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_product_has_the_same_bits_in_any_company(library: Library, kind: str) -> None:
    made = torch.Generator().manual_seed(3)
    tiles, x = random_tiles(made, 43, 96, kind), torch.randn(41, 96, generator=made)
    whole = library.product(tiles, x)
    for count in (1, 2, 3, 5, 40):
        for first in (0, 1, 41 - count):
            assert torch.equal(library.product(tiles, x[first : first + count].clone()), whole[first : first + count])


def test_a_product_checks_its_arguments(library: Library) -> None:
    tiles = random_tiles(torch.Generator().manual_seed(0), 8, 64, "four")
    for x in (torch.zeros(2, 63), torch.zeros(2, 64).double(), torch.zeros(64, 2).T):
        with pytest.raises(ValueError, match="was expected"):
            library.product(tiles, x)


# -- steps


@pytest.mark.parametrize("has_habits", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_step_gives_torchs_logits(library: Library, has_habits: bool, threads: int) -> None:
    model, pool, other = random_model(has_habits=has_habits), new_pool(), new_pool()
    decoder = library.decoder(model, threads)
    for rows in ([(0, 19, [3, 1, 4, 15, 9]), (0, 1, [26])], [(19, 1, [3, 1, 4, 15, 9]), (1, 40, [26, *range(16, 26)])]):
        step = step_of(rows)
        found, wanted = decoder.forward(step, pool), reference(model, step, other)
        assert torch.allclose(found, wanted, atol=TOLERANCE, rtol=0)
    assert torch.allclose(pool, other, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_habits", [False, True])
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_tokens_do_not_depend_on_chunks_company_or_threads(
    library: Library, dtype: torch.dtype, has_habits: bool, data: st.DataObject
) -> None:
    """A context computed in any chunks, beside any others and by any number of threads has the same bits."""
    model = random_model(has_habits=has_habits)
    tokens = torch.randint(0, VOCAB, (60,), generator=torch.Generator().manual_seed(5))
    pages = data.draw(st.permutations(range(PAGES)))
    own, others = list(pages[:15]), list(pages[15:])
    alone, alone_pool = library.decoder(model, 1), new_pool(dtype)
    wanted = [alone.forward(_part(tokens, range(at, at + 1), own, [], others), alone_pool) for at in range(60)]
    decoder, pool, at = library.decoder(model, data.draw(st.integers(1, 3))), new_pool(dtype), 0
    while at < 60:
        count = min(data.draw(st.integers(1, 40)), 60 - at)
        before = data.draw(st.sampled_from([[], [1], [7], [1, 3, 1]]))
        found = decoder.forward(_part(tokens, range(at, at + count), own, before, others), pool)
        assert torch.equal(found, torch.cat(wanted[at : at + count]))
        at += count
    assert torch.equal(pool[own], alone_pool[own])


def _part(tokens: Tensor, part: range, pages: list[int], before: list[int], others: list[int]) -> StepArrays:
    """A step with this part of one context's tokens, all sampled, after rows of other contexts."""
    at, count = part.start, len(part)
    rows = [(0, size, others[3 * place : 3 * place + 3]) for place, size in enumerate(before)]
    step = step_of([*rows, (at, count, pages)], seed=at)
    step.tokens[sum(before) :] = tokens[at : at + count]
    return replace(step, sample=torch.arange(sum(before), sum(before) + count))


@pytest.mark.parametrize("has_habits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_that_share_a_long_context_leave_no_trace(
    library: Library, has_habits: bool, dtype: torch.dtype
) -> None:
    """Few rows are cut into segments of 256 keys, many are not: the same bits, and torch's numbers."""
    model, length, alone = random_model(has_habits=has_habits), 700, 8
    pages = list(torch.randperm(length // PAGE_TOKENS, generator=torch.Generator().manual_seed(1)))
    whole, (pool, other, third) = step_of([(0, length, pages)]), (_long_pool(length, dtype) for _ in range(3))
    wanted = library.decoder(model, 1).forward(whole, pool)
    if dtype is torch.float32:
        assert torch.allclose(wanted, reference(model, whole, other), atol=TOLERANCE, rtol=0)
    decoder, known = library.decoder(model, 3), whole.tokens
    found = [decoder.forward(_part(known, range(length - alone), pages, [], []), third)]
    for at in range(length - alone, length):
        found.append(decoder.forward(_part(known, range(at, at + 1), pages, [], []), third))
    assert torch.equal(torch.cat(found), wanted)
    assert torch.equal(third, pool)


def _long_pool(tokens: int, dtype: torch.dtype) -> Tensor:
    one = new_pool(dtype)
    return one.new_zeros(tokens // PAGE_TOKENS, *one.shape[1:])


# -- refusals


Change = Callable[[StepArrays], StepArrays]
BAD: dict[str, Change] = {
    "vocabulary": lambda step: replace(step, tokens=step.tokens + VOCAB),
    "vocabulary ": lambda step: replace(step, tokens=step.tokens - VOCAB),
    "position": lambda step: replace(step, positions=step.positions - 100),
    "slot": lambda step: replace(step, slots=step.slots + PAGES * PAGE_TOKENS),
    "slot ": lambda step: replace(step, slots=step.slots - PAGES * PAGE_TOKENS),
    "page": lambda step: replace(step, pages=step.pages + PAGES),
    "page ": lambda step: replace(step, pages=step.pages - PAGES),
    "fewer pages": lambda step: replace(step, pages=step.pages[:-1]),
    "sampled": lambda step: replace(step, sample=step.sample + 1000),
    "rows": lambda step: replace(step, rows=(Span * 1)(Span(0, 6, 5, 0))),
    "rows ": lambda step: replace(step, rows=(Span * 1)(Span(1, 5, 6, 0))),
    "rows  ": lambda step: replace(step, rows=(Span * 0)()),
}


@pytest.mark.parametrize("what", BAD)
def test_indices_that_lead_outside_are_refused_before_anything_is_written(library: Library, what: str) -> None:
    decoder, pool = library.decoder(random_model(), 1), new_pool()
    with pytest.raises(NativeError, match=what.strip()):
        decoder.forward(BAD[what](step_of([(0, 6, [1, 2])])), pool)
    assert not pool.any()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(numbers=st.lists(st.integers(-(2**62), 2**62) | st.integers(-2, 40), min_size=18, max_size=18))
def test_no_numbers_in_a_step_crash_it(fuzzed: tuple[Decoder, Tensor], numbers: list[int]) -> None:
    decoder, pool = fuzzed
    tokens, positions, slots, pages, sample = (
        torch.tensor(part) for part in (numbers[:3], numbers[3:6], numbers[6:9], numbers[9:13], numbers[13:15])
    )
    step = StepArrays(tokens, positions, slots, (Span * 1)(Span(*numbers[15:18], 0)), pages, sample)
    try:
        logits = decoder.forward(step, pool)
    except NativeError:
        return
    assert logits.shape == (2, VOCAB)


@pytest.fixture(scope="module")
def fuzzed(library: Library) -> tuple[Decoder, Tensor]:
    return library.decoder(random_model(), 1), new_pool()


def test_arrays_of_other_types_are_refused(library: Library) -> None:
    decoder, step, pool = library.decoder(random_model(), 1), step_of([(0, 6, [1, 2])]), new_pool()
    wrong = [
        (replace(step, tokens=step.tokens.int()), pool),
        (replace(step, slots=step.slots[:-1]), pool),
        (replace(step, pages=step.pages.repeat(2)[::2]), pool),
        (step, pool.double()),
        (step, pool.transpose(3, 4)),
        (step, pool[:, :2]),
    ]
    for bad, of_pool in wrong:
        with pytest.raises(ValueError, match=r"expected|possible"):
            decoder.forward(bad, of_pool)
    assert not pool.any()


def test_weights_that_do_not_fit_together_are_refused(library: Library) -> None:
    model = random_model()
    bad = replace(model.layers[0], qkv=model.layers[1].output)
    with pytest.raises(ValueError, match=r"0\.qkv"):
        library.decoder(replace(model, layers=[bad]), 1)
    with pytest.raises(ValueError, match="norm"):
        library.decoder(replace(model, norm=torch.zeros(DIM - 1)), 1)
    with pytest.raises(ValueError, match="threads"):
        library.decoder(model, 0)


# -- building


def test_without_a_compiler_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO):
        assert build.built(tmp_path) is None
    assert len(caplog.records) == 1
    assert "no C++ compiler" in caplog.text


def test_a_failed_build_is_one_logged_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "_place", lambda folder: folder)
    assert build.built(tmp_path / "cache") is None
    assert [record.message for record in caplog.records] == [
        "native operations are off: c++ ended with 3: error: not today"
    ]
    assert not list((tmp_path / "cache").iterdir())


def test_a_library_that_fails_its_check_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A compiler that produces something, only nothing that works."""
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho "no library" > "$last"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "_place", lambda folder: folder)
    assert build.built(tmp_path / "cache") is None
    assert "native operations are off" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_two_processes_that_build_at_once_both_get_a_whole_library(library: Library, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from aios_kernels.native import build\n"
        "build._place = lambda folder: folder\n"
        "build.FLAGS = tuple('-O1' if flag == '-O3' else flag for flag in build.FLAGS)\n"
        "print(build.built(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {builder.communicate(timeout=280)[0].strip() for builder in builders}
    assert len(paths) == 1
    assert [str(path) for path in tmp_path.iterdir()] == list(paths)
    assert ctypes.CDLL(paths.pop()).aios_product
