"""What the kernel and its core report, in words: the header of `top` and of `top --once`."""

from typing import Any, NamedTuple

from aios.cli.columns import count, plain

Row = dict[str, Any]


class Pages(NamedTuple):
    """The KV pool in pages."""

    used: int
    free: int
    host: int
    disk: int

    @property
    def total(self) -> int:
        """Pages of the device pool."""
        return self.used + self.free


def pages(core: Row) -> Pages:
    """Read the pool from a core's statistics; all zero before the first."""
    total, free = core.get("pages_total", 0), core.get("pages_free", 0)
    return Pages(total - free, free, core.get("pages_host", 0), core.get("pages_disk", 0))


def title(status: Row) -> str:
    """Name the kernel and what it runs."""
    model = status["model"].get("model") or "no model yet"
    device = status["model"].get("device", "")
    parts = [f"aios {status['name']}", model, device, f"durability {status['durability']}", status["policy"]]
    return plain("  ".join(part for part in parts if part))


def counters(core: Row) -> str:
    """Write the core's rates and counts on one line."""
    return "  ".join(
        (
            f"{core.get('tokens_per_s', 0.0):.1f} tok/s",
            f"running {core.get('running', 0)}",
            f"waiting {core.get('waiting', 0)}",
            f"suspended {core.get('suspended', 0)}",
            f"switches {count(core.get('switches', 0))}",
            f"masked {count(core.get('masked_argmax', 0))}",
        )
    )


def pool(seen: Pages) -> str:
    """Write the pool's counts."""
    return f"KV pages {seen.used} used  {seen.free} free  {seen.host} host  {seen.disk} disk"
