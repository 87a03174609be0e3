"""What a process that only runs models does before it imports torch, so that this takes less time.

Owns how torch is loaded, never what is computed. Called once, before anything imports torch.
"""

import gc
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_LATER = frozenset({"torch._meta_registrations"})
"""What torch loads with itself, at a quarter of the whole time, for tensors without data (meta, fake): for tracing and
compiling, which an engine never does. It is loaded all the same as soon as anything in it is asked for."""


def prepare() -> None:
    """Have torch's tracing loaded on demand, and no garbage looked for until `settled`."""
    assert "torch" not in sys.modules, "torch was imported before it could be prepared for"
    sys.meta_path.insert(0, _Finder())
    gc.disable()


def settled() -> None:
    """Collect again, but never look through what was loaded so far, which lives as long as the process."""
    gc.freeze()
    gc.enable()


class _Later(ModuleType):
    """A module whose code runs when something in it is first asked for."""

    def __getattr__(self, name: str) -> object:
        # `inspect` asks every module for such names, and means none of them.
        if name.startswith("__") or not isinstance(self.__spec__, importlib.machinery.ModuleSpec):
            raise AttributeError(name)
        loader = self.__spec__.loader
        assert isinstance(loader, _Loader)
        self.__class__ = ModuleType  # type: ignore[assignment]  # what it is from now on
        loader.real.exec_module(self)
        return getattr(self, name)


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader) -> None:
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Later(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it to the first use."""


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LATER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec
