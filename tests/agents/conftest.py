"""Every test of agents starts without a way to a kernel, and leaves none."""

from collections.abc import Iterator

import pytest

from aios.agents import connection


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection, "_connectors", [])
    yield
