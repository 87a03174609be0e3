"""The first example runs as a newcomer runs it: a script, the real model, a kernel of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aios import env
from aios.engine import modelstore
from aios.errors import ModelError

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello.py"


@pytest.mark.model
def test_hello_calls_its_tool_and_prints_an_answer(tmp_path: Path) -> None:
    try:
        model = modelstore.find(os.environ.get("AIOS_MODEL", "smollm2-135m")).path
    except ModelError as error:
        pytest.skip(str(error))
    environment = {**os.environ, env.HOME: str(tmp_path), "AIOS_MODEL": str(model)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.strip().splitlines()
    assert first == "[count_letters → 9]"
    assert "".join(rest).strip()
