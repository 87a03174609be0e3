"""Making the native library ahead of its first use: what is said, and that looking makes nothing."""

from pathlib import Path

import pytest

from aios_kernels.native import build


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the library lie in the folder that is named, and a compiler be found that must not be run."""
    found = tmp_path / "c++"
    found.write_text("#!/bin/sh\necho 'error: it was run' >&2\nexit 3\n")
    found.chmod(0o755)
    monkeypatch.setenv("CXX", str(found))
    monkeypatch.setattr(build, "_place", lambda folder: folder)
    return found


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = build.prepared(tmp_path)
    assert "no C++ compiler" in said
    assert "g++" in said
    assert not build.is_built(tmp_path)


def test_looking_for_the_library_makes_nothing(tmp_path: Path, compiler: Path) -> None:
    folder = tmp_path / "cache"
    assert not build.is_built(folder)
    assert not folder.exists()


def test_what_cannot_be_built_is_said(tmp_path: Path, compiler: Path) -> None:
    assert "could not be built" in build.prepared(tmp_path / "cache")


def test_a_library_that_is_there_is_not_built_again(tmp_path: Path, compiler: Path) -> None:
    (tmp_path / f"aios-native-{build.digest(compiler)}.so").write_bytes(b"")
    assert build.is_built(tmp_path)
    assert build.prepared(tmp_path) == "native operations: there already"
