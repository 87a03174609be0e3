"""Remote cores run on asyncio, as the kernel does: the HTTP client leaves half-read streams to trio's collector."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
