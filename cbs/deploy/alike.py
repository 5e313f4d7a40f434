"""Whether two modules are the same but for their parameters (deep structural equality).

A network that is made from a description may differ from the stored one in what no state dict has: an
activation that is a function, a tensor or a number that was set afterwards, a buffer that is not saved. What
can't be seen to be equal counts as different.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NOTES = frozenset({"name_or_path", "warnings_issued", "generation_config"})
"""Attributes of networks of transformers that no forward pass reads, beside those that loading adds."""
FLAT = frozenset({"_flat_weights", "_flat_weight_refs"})
"""Where LSTM, GRU and RNN have their parameters once more."""
INNER = frozenset(vars(nn.Module()))
"""Of every module; tensors, children and hooks are looked at by themselves."""
DEEP = 50
"""Levels of objects in objects that are looked into."""
MISSING = object()


def difference(model: nn.Module, other: nn.Module) -> str | None:
    """What two networks differ in but for the tensors that are saved, in words; None if in nothing.

    Modules in attributes that are no children are compared with their tensors, since no state dict has them.
    """
    ours, theirs = dict(model.named_modules()), dict(other.named_modules())
    if ours.keys() != theirs.keys():
        return f"module {sorted(ours.keys() ^ theirs.keys())[0]!r} is in one of them"
    look = _Look()
    look.seen |= {(id(module), id(theirs[name])): (module, theirs[name]) for name, module in ours.items()}
    for name, module in ours.items():
        what = f"module {name!r}" if name else "the network"
        if type(module) is not type(theirs[name]):
            return f"{what} is of another class"
        if not look.same(_hooks(module), _hooks(theirs[name])):
            return f"{what} has other hooks"
        for key in look.differing(module, theirs[name]):
            return f"{what} has another {key}"
    return None


class _Look:
    """A comparison; pairs that are being looked at count as equal, so that circles end."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.depth = 0

    def same(self, a: Any, b: Any) -> bool:
        """Whether two objects are known to be equal."""
        if a is b or (id(a), id(b)) in self.seen:
            return True
        if type(a) is not type(b) or self.depth > DEEP:
            return False
        if a is None or isinstance(a, bool | int | float | complex | str | bytes):
            return bool(a == b or (a != a and b != b))
        self.seen[id(a), id(b)] = a, b  # held, so that no other object gets their places
        self.depth += 1
        try:
            equal = self._equal(a, b)
        except Exception:  # of an object's own comparison
            equal = False
        self.depth -= 1
        if not equal:
            self.seen.pop((id(a), id(b)), None)
        return equal

    def differing(self, a: nn.Module, b: nn.Module) -> Iterator[str]:
        """The attributes of two modules that are not equal, and their buffers that are not saved."""
        ours, theirs = vars(a), vars(b)
        skipped = INNER | (FLAT if isinstance(a, nn.RNNBase) else frozenset())
        if type(a).__module__.startswith("transformers."):
            skipped |= NOTES | {key for key in ours if key.startswith("_") and key not in theirs}
        for key in [key for key in {**ours, **theirs} if key not in skipped]:
            if not self.same(ours.get(key, MISSING), theirs.get(key, MISSING)):
                yield key
        for key in sorted({*a._non_persistent_buffers_set} | {*b._non_persistent_buffers_set}):
            if not self.same(a._buffers.get(key), b._buffers.get(key)):
                yield key

    def _equal(self, a: Any, b: Any) -> bool:
        """Of two objects of one type."""
        if isinstance(a, Tensor):
            like = (a.dtype, a.layout, a.shape) == (b.dtype, b.layout, b.shape)
            return like and a.layout is torch.strided and _equal_arrays(a.detach().cpu(), b.detach().cpu())
        if isinstance(a, np.ndarray):
            return bool(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
        if isinstance(a, nn.Module):
            return self._modules(a, b)
        if isinstance(a, Mapping):
            return [*a] == [*b] and all(self.same(a[key], b[key]) for key in a) and self._vars(a, b)
        if isinstance(a, tuple | list):
            return len(a) == len(b) and all(map(self.same, a, b)) and self._vars(a, b)
        if isinstance(a, types.FunctionType):
            return self._functions(a, b)
        if isinstance(a, types.MethodType):
            return self.same(a.__func__, b.__func__) and self.same(a.__self__, b.__self__)
        if isinstance(a, functools.partial):
            return all(self.same(*pair) for pair in zip(_partial(a), _partial(b), strict=True))
        if isinstance(a, weakref.ref):
            return self.same(a(), b())
        if callable(getattr(a, "to_dict", None)) and callable(getattr(type(a), "from_dict", None)):
            return self.same(a.to_dict(), b.to_dict())  # a configuration, as in transformers
        if any("__eq__" in vars(cls) for cls in type(a).__mro__[:-1]):
            found = a == b
            if isinstance(found, bool) and found:
                return True
        state = [name for cls in type(a).__mro__ for name in _slots(cls)]
        if not state and not hasattr(a, "__dict__"):
            return False
        slots = ((getattr(a, name, MISSING), getattr(b, name, MISSING)) for name in state)
        return all(self.same(*pair) for pair in slots) and self._vars(a, b)

    def _vars(self, a: Any, b: Any) -> bool:
        return not hasattr(a, "__dict__") or self.same({**vars(a)}, {**vars(b)})

    def _functions(self, a: types.FunctionType, b: types.FunctionType) -> bool:
        """Of one code, in one module, over equal values."""
        if a.__code__ != b.__code__ or a.__globals__ is not b.__globals__:
            return False
        cells = [[_content(cell) for cell in f.__closure__ or ()] for f in (a, b)]
        given = [(f.__defaults__, f.__kwdefaults__) for f in (a, b)]
        return self.same(given[0], given[1]) and self.same(cells[0], cells[1]) and self._vars(a, b)

    def _modules(self, a: nn.Module, b: nn.Module) -> bool:
        """Of two that are children of nothing."""
        for kind in ("_parameters", "_buffers", "_modules"):
            if not self.same(dict(getattr(a, kind)), dict(getattr(b, kind))):
                return False
        return self.same(_hooks(a), _hooks(b)) and not [*self.differing(a, b)]


def _equal_arrays(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _hooks(module: nn.Module) -> list[Any]:
    """What runs before and after a module."""
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def _partial(a: Any) -> tuple[Any, ...]:
    return a.func, a.args, a.keywords


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return MISSING


def _slots(cls: type) -> list[str]:
    names = cls.__dict__.get("__slots__", ())
    return [n for n in ([names] if isinstance(names, str) else names) if n not in ("__dict__", "__weakref__")]
