"""What the settings say model calls run on."""

import sys
from typing import Any

from aios.abi.core import Core
from aios.config import CoreSettings, EngineSettings, Settings
from aios.engine import fit, modelstore, nativestate
from aios.kernel.host import EngineHost

ENGINE_HOST = (sys.executable, "-m", "aios.boot.engine_host")


def make_core(settings: Settings) -> Core:
    """Make what the settings say model calls run on. Raises ModelError, ConfigError."""
    made = {name: _one_core(name, one, settings) for name, one in settings.cores.items()}
    if not made:
        return engine_host(settings)
    from aios.kernel.cores import Cores  # noqa: PLC0415  # as in `_remote`
    from aios.remote.failures import TRANSIENT  # noqa: PLC0415

    return Cores(made, settings.core_policy, TRANSIENT, {name: settings.models_of(name) for name in made})


def _one_core(name: str, one: CoreSettings, settings: Settings) -> Core:
    return engine_host(settings) if one.kind == "local" else _remote(name, one)


def _remote(name: str, one: CoreSettings) -> Core:
    # The HTTP client is loaded where an endpoint is configured.
    from aios.guard.masking.offers import Offers  # noqa: PLC0415
    from aios.remote.core import RemoteCore  # noqa: PLC0415

    return RemoteCore(name, one, Offers())


def engine_host(settings: Settings) -> EngineHost:
    """Make the core for the settings' model. Raises ModelError when it is missing."""
    model = modelstore.find(settings.model)
    if _builds_first(settings):
        print("the native operations are built first, once, about half a minute …", file=sys.stderr, flush=True)
    chosen: dict[str, Any] = settings.model_dump(mode="json", include=set(EngineSettings.model_fields))
    chosen |= {"model": str(model.path), "swap_folder": str(settings.folder / "pages")}
    return EngineHost(ENGINE_HOST, chosen, log=settings.folder / "engine.log")


def _builds_first(settings: Settings) -> bool:
    is_wanted = settings.native and settings.device != "cuda"
    return is_wanted and nativestate.state() == "unbuilt" and (settings.device == "cpu" or fit.gpu() is None)
