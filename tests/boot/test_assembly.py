"""The kernel's secret: made once, for its owner only, whole or not at all."""

from pathlib import Path

import pytest

from aios.boot.assembly import SECRET_BYTES, own_secret
from aios.errors import StoreError


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = own_secret(path)
    assert len(first) == SECRET_BYTES
    assert own_secret(path) == first
    assert path.stat().st_mode & 0o077 == 0


def test_what_a_crash_left_unfinished_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"")
    assert len(own_secret(tmp_path / "secret")) == SECRET_BYTES


def test_a_cut_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(StoreError, match="0 bytes instead of 32"):
        own_secret(tmp_path / "secret")
