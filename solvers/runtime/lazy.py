"""Packages that import what they export when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package whose exports are imported at their first use; for type checkers it imports them at once.

    A submodule may have the name of what it exports, as `solvers.curve` has: the package's attribute is
    then what is exported, whether it or the submodule was imported first.
    """

    _homes: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        """An export, from the submodule that has it."""
        home = self.__dict__.get("_homes", {}).get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Binds a submodule, as Python does once it is imported, unless an export has its name."""
        if isinstance(value, ModuleType) and self._homes.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes})


def export(package: str, homes: Mapping[str, Sequence[str]]) -> None:
    """Make a package lazy.

    Args:
        package: its name, `__name__` in its `__init__.py`.
        homes: what it exports, by the submodule that has it: `{"curve": ["Curve", "curve"]}`.
    """
    module = sys.modules[package]
    module.__dict__["_homes"] = {name: f"{package}.{home}" for home, names in homes.items() for name in names}
    module.__class__ = LazyPackage
    for name, home in module.__dict__["_homes"].items():
        if home == f"{package}.{name}" and home not in sys.modules:
            _import_later(home)


def _import_later(name: str) -> None:
    """Put a module among the imported ones that is executed when it is first looked into.

    Whoever wants the module itself, which the package's attribute is not, finds it in `sys.modules`.
    """
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = LazyLoader(spec.loader)
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    waits = type(module)

    class Later(waits):  # type: ignore[misc, valid-type]
        """Tells its class, name and file without being executed.

        `inspect` asks them of every imported module, and PyTorch has it ask while it is imported itself: what
        is executed then meets half-made modules.
        """

        def __getattribute__(self, attribute: str) -> Any:
            if attribute in ("__class__", "__name__", "__file__"):
                return ModuleType.__getattribute__(self, attribute)
            ModuleType.__setattr__(self, "__class__", waits)
            return getattr(self, attribute)

    module.__class__ = Later
