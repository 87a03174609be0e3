"""The order in which a kernel begins: its lock before its engine host, the engine host before everything else."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from aios import env
from aios.boot.compose import embedded
from aios.config import Settings
from aios.errors import EngineLost, StoreLocked
from aios.kernel.host import EngineHost
from aios.kernel.store.sql import SqlStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv(env.HOME, str(tmp_path / "home"))
    return Settings(name="order", durability="none")


def leaving(trace: Path) -> EngineHost:
    """Return a host that leaves a trace and ends."""
    return EngineHost((sys.executable, "-c", f"open({str(trace)!r}, 'x')"), {})


async def test_beside_a_living_kernel_of_its_name_no_engine_host_is_started(settings: Settings, tmp_path: Path) -> None:
    settings.folder.mkdir(parents=True)
    with closing(SqlStore(settings.store_url, settings.durability, name=settings.name)):
        host = leaving(tmp_path / "trace")
        with pytest.raises(StoreLocked):
            async with embedded(settings, core=host):
                pass
    assert host.statistics().pid == 0
    assert not (tmp_path / "trace").exists()


async def test_an_engine_host_that_ends_before_it_is_waited_for_is_told_of_once(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(EngineLost, match="exit code 0"), flatten_subgroups=True):
        async with embedded(settings, core=leaving(tmp_path / "trace")):
            pass
    assert (tmp_path / "trace").exists()
    with closing(SqlStore(settings.store_url, settings.durability, name=settings.name)):
        pass  # its lock is free
