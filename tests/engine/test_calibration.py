"""Rates: measured on idle pools without a trace, kept between starts, refined by what really happens."""

from pathlib import Path

import pytest

from aios.abi.sched import Rates
from aios.engine.calibration import measure, rates_file, read_rates, write_rates
from aios.engine.gauges import Gauges
from aios.engine.pages import Tier
from tests.engine.kv import append, small_memory


def test_measuring_leaves_the_tiers_as_they_were(tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    rates = measure(memory)
    assert min(rates.to_host or 0, rates.from_host or 0, rates.to_disk or 0, rates.from_disk or 0) > 0
    assert rates.prefill is None
    assert (memory.device.num_free, memory.host.num_free, list(tmp_path.iterdir())) == (8, 8, [])


def test_without_room_on_a_tier_nothing_is_claimed_of_it(tmp_path: Path) -> None:
    assert measure(small_memory(disk=tmp_path, disk_pages=0)).to_disk is None
    assert measure(small_memory(host_pages=0)) == Rates()


def test_rates_are_kept_for_the_same_model_on_the_same_machine(tmp_path: Path) -> None:
    path = rates_file(tmp_path, {"model": "a"}, threads=2)
    assert read_rates(path) is None
    write_rates(path, Rates(to_host=1e9, prefill=350.0))
    assert read_rates(rates_file(tmp_path, {"model": "a"}, threads=2)) == Rates(to_host=1e9, prefill=350.0)
    assert read_rates(rates_file(tmp_path, {"model": "b"}, threads=2)) is None
    path.write_text("{")
    assert read_rates(path) is None


def test_real_copies_refine_the_rates(tmp_path: Path) -> None:
    memory = small_memory(disk=tmp_path)
    table = memory.open()
    append(memory, table, [1.0] * 9)
    for tier in (Tier.HOST, Tier.DISK):
        memory.suspend(table, tier)
        memory.resume(table)
    rates = memory.gauges.rates
    assert all(rate and rate > 0 for rate in (rates.to_host, rates.from_host, rates.to_disk, rates.from_disk))


def test_the_prefill_rate_comes_from_steps_that_are_mostly_prompt_and_moves_slowly() -> None:
    gauges = Gauges()
    gauges.computed([1] * 64, 0.1)
    assert gauges.rates.prefill is None
    gauges.computed([200, 1, 1], 2.02)
    assert gauges.rates.prefill == pytest.approx(100)
    gauges.computed([200], 1.0)
    assert gauges.rates.prefill == pytest.approx(110)


def test_what_a_decoding_step_takes_beyond_its_tokens_is_its_overhead() -> None:
    gauges = Gauges()
    gauges.computed([1] * 8, 0.1)
    assert (gauges.rates.overhead_s, gauges.overhead_tokens) == (None, None)  # what a token takes is not known yet
    gauges.computed([100], 1.0)
    assert gauges.overhead_tokens == 0
    gauges.computed([1] * 8, 0.1)
    assert gauges.rates.overhead_s == pytest.approx(0.02)
    gauges.computed([1, 16], 0.9)  # neither a prompt nor a plain decode
    gauges.computed([1], 0.0)
    assert gauges.overhead_tokens == pytest.approx(2)
