"""The embedded language model, found in the model store and loaded once for all tests."""

import functools
from pathlib import Path

import pytest

from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.config import EngineSettings
from aios.engine import modelstore
from aios.engine.copier import Copier
from aios.engine.engine import Engine
from aios.engine.loader import LoadedModel, load_model
from aios.errors import ModelError


@functools.cache
def real_model(threads: int = 1, *, deterministic: bool = False) -> LoadedModel:
    """Load the default model; the test is skipped where it is missing."""
    try:
        path = modelstore.find(EngineSettings().model).path
    except ModelError as error:
        pytest.skip(str(error))
    return load_model(path, threads=threads, deterministic=deterministic)


def real_engine(settings: EngineSettings, swap_folder: Path | None = None, copier: Copier | None = None) -> Engine:
    """Return an engine on it."""
    chosen = HostSettings(**settings.model_dump(), swap_folder=swap_folder)
    return make_engine(real_model(), make_memory(real_model(), chosen, copier), chosen)
