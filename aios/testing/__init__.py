"""Parts for tests and benchmarks: a core made of delays (`LatencyCore`), always labelled `latency-model`."""

from aios.testing.latency import LatencyCore, LatencyModel

__all__ = ["LatencyCore", "LatencyModel"]
