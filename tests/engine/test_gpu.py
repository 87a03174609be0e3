"""An engine whose model runs as on a GPU: weights placed, steps in captured sizes, one page set apart."""

import pytest
import torch

from aios.abi.chat import Sampling
from aios.abi.core import ProcessFacts, Stepped, Submit
from aios.abi.syscalls import LlmGenerate
from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.engine import gpu
from aios.engine.loader import LoadedModel, load_model
from aios.engine.runner import plainly
from aios.ids import ContextId
from tests.engine import tiny_model as tiny

CPU = torch.device("cpu")
SETTINGS = HostSettings(model="tiny", pool_pages=40, host_pages=40, step_tokens=32, max_rows=4)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tiny.write_folder(tmp_path_factory.mktemp("model") / "m", tiny.random_weights())
    return load_model(folder, threads=0, exact=True)


def generated(model: LoadedModel, *, replays: bool) -> dict[str, list[int]]:
    """Five contexts, greedy and at random, more than one step holds and longer than one chunk."""
    memory = make_memory(model, SETTINGS)
    if replays:
        model = gpu.replaying(model, memory, max_rows=SETTINGS.max_rows, capture=plainly)
    engine = make_engine(model, memory, SETTINGS)
    for number in range(5):
        sampling = Sampling(max_tokens=12, ignore_eos=True, temperature=float(number % 2), seed=number)
        request = LlmGenerate(tokens=tuple(range(5, 20 + 13 * number)), sampling=sampling)
        facts = ProcessFacts(pid=number)
        engine.do(Submit(context=ContextId(f"{number}:c"), epoch=1, request=request, facts=facts, lease_tokens=12))
    found: dict[str, list[int]] = {}
    while engine.step():
        for message in engine.take_messages():
            for row in message.rows if isinstance(message, Stepped) else ():
                found.setdefault(row.context, []).append(row.token)
    engine.close()
    return found


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_engine_in_captured_steps_says_what_the_plain_one_says(loaded: LoadedModel, deterministic: bool) -> None:
    plain = generated(loaded, replays=False)
    there = gpu.moved(loaded, CPU, deterministic=deterministic, dtype=torch.float32)
    assert [len(tokens) for tokens in plain.values()] == [12] * 5
    assert generated(there, replays=True) == plain


def test_a_gpu_does_not_claim_what_was_not_proved_there(loaded: LoadedModel) -> None:
    there = gpu.moved(loaded, CPU, deterministic=True, dtype=torch.float32)
    assert not there.numerics.is_exact
    assert there.numerics.name != loaded.numerics.name, "bits of another kind must not be taken for these"


def test_the_page_that_fills_steps_up_is_never_handed_out(loaded: LoadedModel) -> None:
    memory = make_memory(loaded, SETTINGS)
    gpu.replaying(loaded, memory, max_rows=4, capture=plainly)
    assert memory.device.num_free == SETTINGS.pool_pages - 1
