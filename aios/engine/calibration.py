"""What this machine does with this model's pages, measured once before the first order and kept for the next start.

Owns the measurement and its file. The numbers are a beginning: real copies and steps refine them
(`aios.engine.gauges`), and the prefill rate comes from real steps alone, since one prefill would cost more than the
whole measurement may.
"""

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from aios.abi.sched import Rates
from aios.engine.pages import DiskSlot, Tier
from aios.engine.storage import Frame
from aios.engine.tiers import Memory

_SAMPLE_BYTES = 8 * 2**20
"""Copied by each measurement: some milliseconds in memory, tens of them on a slow disk."""
_MOST_PAGES = 8


def rates_file(folder: Path, fingerprint: Mapping[str, str], threads: int) -> Path:
    """Return where the rates of this model on this machine are kept."""
    parts = (*sorted(fingerprint.items()), platform.node(), platform.machine(), os.cpu_count(), threads)
    return folder / f"rates-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.json"


def read_rates(path: Path) -> Rates | None:
    """Return the rates of an earlier run; None if there are none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rates)
    except (OSError, msgspec.MsgspecError):
        return None


def write_rates(path: Path, rates: Rates) -> None:
    """Keep rates for the next start; where that cannot be, they are measured again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(rates))
        part.replace(path)


def measure(memory: Memory) -> Rates:
    """Copy a few free pages around and return the bandwidths, bytes a second. The pools must be idle.

    Each way is taken twice and the second time counts: memory that was never touched is slow once and then not.
    The disk is measured as it is used, without waiting for the medium.
    """
    count = min(_MOST_PAGES, max(1, _SAMPLE_BYTES // memory.page_bytes), memory.device.num_free, memory.host.num_free)
    if not count:
        return Rates()
    device = [Frame(Tier.DEVICE, memory.device.take()) for _ in range(count)]
    host = [Frame(Tier.HOST, memory.host.take()) for _ in range(count)]
    storage, sample = memory.storage, count * memory.page_bytes
    try:
        rates = Rates(
            to_host=sample / _second(lambda: storage.save(device, host)),
            from_host=sample / _second(lambda: storage.load(host, device)),
        )
        return _with_disk(memory, device, rates)
    finally:
        for frame in device:
            memory.device.give_back(frame.number)
        for frame in host:
            memory.host.give_back(frame.number)


def _with_disk(memory: Memory, device: list[Frame], rates: Rates) -> Rates:
    disk = memory.disk
    if disk is None or not disk.has_room(len(device)):
        return rates
    slots: list[DiskSlot] = disk.reserve(len(device))
    sample = len(slots) * memory.page_bytes
    try:
        to_disk = sample / _second(lambda: memory.storage.store(device, slots))
        from_disk = sample / _second(lambda: memory.storage.load(slots, device))
        return msgspec.structs.replace(rates, to_disk=to_disk, from_disk=from_disk)
    except OSError:
        return rates  # a disk that takes nothing is found out again when something must go there
    finally:
        for slot in slots:
            disk.forget(slot)


def _second(act: Callable[[], object]) -> float:
    act()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
