"""Each test has a home of its own, with the embedded model in reach."""

from pathlib import Path

import pytest

from aios.config import EngineSettings
from aios.engine import modelstore
from aios.errors import ModelError
from tests.survival.programs import Home


@pytest.fixture(scope="session")
def model() -> Path:
    try:
        return modelstore.find(EngineSettings().model).path
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture
def home(tmp_path: Path, model: Path) -> Home:
    return Home(tmp_path, {"AIOS_MODEL": str(model)})
