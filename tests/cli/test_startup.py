"""What a quick command must not load."""

import json
import subprocess
import sys

from tests.cli.living import living_kernel

HEAVY = ("torch", "textual", "fastapi", "uvicorn", "pydantic", "httpx2", "sqlalchemy", "llguidance", "huggingface_hub")

PROGRAM = f"""
import sys
from aios.cli.main import main
try:
    main(["ps", "--json"])
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def test_ps_loads_no_heavy_library() -> None:
    with living_kernel():
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {"kernel": "default", "cores": [], "processes": []}
    assert done.stderr.strip() == "[]"
