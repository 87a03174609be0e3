"""Kernel tests run on asyncio; those that ask for `anyio_backend` run on trio too."""

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
