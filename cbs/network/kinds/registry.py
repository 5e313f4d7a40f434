"""Which modules can be rewritten as parts that are matrices, and how: the registry of layer types.

A layer type is a function `open(module)`. It gives a module that computes the same, made of `Linear` and
convolutions, and slots that say which entries of the user's parameters are which entries of the parts'.
Everything else (curvatures, masks, refits) then works on the parts, and the slots lead back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

Take = Callable[[Tensor], Tensor]
Open = Callable[[nn.Module], tuple[nn.Module, "Sequence[Slot]"]]

STOCK = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "__getattr__")
"""What a subclass must have of its base to compute what that computes."""


STAYS = "_bias_stays"
"""Attribute of a part whose bias is not to move, as the network's outputs do not depend on it."""


def same(values: Tensor) -> Tensor:
    """All of a tensor as it is."""
    return values


@dataclass(frozen=True)
class Slot:
    """Which entries of the user's parameter are which of a part's: `where(part) = take(parameter)`.

    Attributes:
        part: a parameter of the rewritten module, such as `q.weight`.
        parameter: of the user's module, such as `in_proj_weight`.
        take: a rearrangement of the parameter, which changes no value and takes no entry twice: slices,
            transpositions, flips, reshapes. By default all of it.
        where: a view of the part's parameter. By default all of it.
        plus: a second parameter, taken in the same way, that is added; what pruning changes then goes to the
            first. Recurrent layers have such pairs of biases.
    """

    part: str
    parameter: str
    take: Take = same
    where: Take = same
    plus: str | None = None


_types: dict[type[nn.Module] | str, Open] = {}
_built_in: list[bool] = []


def register_layer(kind: type[nn.Module] | str, open: Open) -> None:
    """Have a type of module pruned, by rewriting it in the copy of the network that methods work on.

    The rewritten module is called as the user's is, and must give the same outputs; that is tried on real
    samples, and a module that does not is left out. `Linear` and convolutions of it become layers, named
    after their place in it. Its parameters are filled from the slots, and so need no values. The result's
    model has the user's own modules and parameters, with masks in `torch.nn.utils.prune` form on these.

    Args:
        kind: the module's class, of which subclasses with the same `forward` are taken too; or its full name,
            such as `transformers.pytorch_utils.Conv1D`, to do without an import. What was registered for it
            before is replaced.
        open: gives the rewritten module and its slots, which must name every parameter of both. A
            `ValueError` says why a module can't be rewritten; it is then left out with that reason.

    Raises:
        ValueError: if `kind` is neither a module's class nor a name, or `open` can't be called.
    """
    named = isinstance(kind, str) and "." in kind
    if not named and not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"kind must be a class of nn.Module, or its full name, got {kind!r}")
    if not callable(open):
        raise ValueError(f"open must be a function of a module, got {open!r}")
    _types[kind] = open


def kind_of(module: nn.Module) -> Open | None:
    """What rewrites a module, if its class is registered, or one that it was derived from."""
    base = base_of(module)
    return None if base is None else _of(base)


def base_of(module: nn.Module) -> type[nn.Module] | None:
    """The class nearest to a module's own that is registered."""
    return next((cls for cls in type(module).__mro__ if _of(cls) is not None), None)


def _of(cls: type) -> Open | None:
    if not _built_in:
        _built_in.append(True)
        from cbs.network.kinds.built_in import TYPES

        for kind, open in TYPES.items():
            _types.setdefault(kind, open)
    return _types.get(cls) or _types.get(f"{cls.__module__}.{cls.__qualname__}")


def departs(module: nn.Module) -> str | None:
    """Why a module does not compute what its registered class does, or None."""
    base, cls = base_of(module), type(module)
    if replaced := [key for key in STOCK if key in vars(module)]:
        return f"its {replaced[0]} was replaced"
    if any(getattr(cls, key, None) is not getattr(base, key, None) for key in STOCK):
        return f"{cls.__module__}.{cls.__name__} does not compute what {getattr(base, '__name__', base)} does"
    return None
