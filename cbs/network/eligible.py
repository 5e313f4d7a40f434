"""Which modules of a network can be pruned, and why the others are left out."""

from __future__ import annotations

import difflib
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from cbs.network.storage import memory, overlap

STOCK = ("forward", "_conv_forward", "__call__", "_call_impl", "_wrapped_call_impl", "__getattr__")
"""What a module must have from torch to compute what its kind computes."""
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NAMED = 12
"""Layers that an error names."""
UNKNOWN = "is neither Linear nor a convolution"
"""Why a module that nothing is known of is left out."""
SHOWN = 3
"""Modules left out that a warning names."""
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules that are matrices, or a matrix for every group of channels."""
Kind = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
NAMED_ONLY = (
    "is an Embedding, pruned where `layers` has its name: tokens that the data lacks count for nothing"
)
"""Why a table of tokens' vectors is left out until it is asked for."""
BLOCK = re.compile(r"(.*)\[(\d+)\]")
"""The name of a block of a module, such as `conv[3]`."""


class LeftOut(UserWarning):
    """A layer is not understood, or a method can't prune this network; the rest is done without it."""


@dataclass(frozen=True)
class Survey:
    """A network's modules, by what can be done with them.

    Attributes:
        model: the network's class.
        prunable: names of modules that are understood, in the order of `model.named_modules()`.
        left_out: for every other module or parameter that holds a matrix its name and why.
        refused: names of prunable ones that can only be left out by the user's own word, and why.
        blocks: for every grouped convolution that is prunable how many blocks it has.
        tables: names of Embeddings that are understood, which are left out unless they are named.
        order: names of prunable ones and tables, as `model.named_modules()` has them.
    """

    model: str
    prunable: list[str]
    left_out: dict[str, str]
    refused: dict[str, str]
    blocks: dict[str, int] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def without(self, reasons: Mapping[str, str]) -> Survey:
        """The survey once more is known of some modules."""
        prunable = [name for name in self.prunable if name not in reasons]
        inside = tuple(f"{name}." for name in reasons if name)
        others = {
            name: why
            for name, why in self.left_out.items()
            if not (name.startswith(inside) and why.endswith(UNKNOWN))
        }
        tables = [name for name in self.tables if name not in reasons]
        return replace(self, prunable=prunable, tables=tables, left_out={**others, **reasons})

    def choose(self, names: Sequence[str] | None, exclude: Sequence[str] | None = None) -> list[str]:
        """The names of the layers to prune; all that are prunable when none are given.

        Args:
            names: of layers, of modules for all layers in them, or shell patterns such as `encoder.*`.
            exclude: those of them to leave out, in the same way.

        Raises:
            ValueError: in one line, if there are none, or one can't be pruned.
        """
        if names is None:
            chosen = [*self.prunable]
            if not chosen:
                raise ValueError(f"model {self.model} has no prunable layer: {self._reasons()}")
        else:
            asked = {name for given in _listed("layers", names) for name in self._named("layers", given)}
            if not asked:
                raise ValueError(f"layers: an empty list names no prunable layer; {self._there()}")
            chosen = self._ordered(asked)
        gone = {} if exclude is None else self.excluded(exclude)
        kept: list[str] = []
        for name in chosen:
            if name in gone:
                continue
            blocks = [f"{name}[{i}]" for i in range(self.blocks.get(name, 0))]
            kept += [name] if gone.keys().isdisjoint(blocks) else [one for one in blocks if one not in gone]
        if not kept:
            raise ValueError(f"exclude: nothing is left to prune; {self._there()}")
        for name in kept:
            if (why := self.refused.get(name, self.refused.get(module_of(name)))) is not None:
                raise ValueError(why)
        return kept

    def excluded(self, exclude: Sequence[str]) -> dict[str, str]:
        """For every layer that a user's list leaves out, module or block, by which entry of it.

        Raises:
            ValueError: if an entry is none of a layer.
        """
        found: dict[str, str] = {}
        for given in _listed("exclude", exclude):
            for name in self._named("exclude", given):
                found.setdefault(name, f"excluded by {given!r}")
        return found

    def stays(self, pruned: Sequence[str], exclude: Sequence[str] | None) -> dict[str, str]:
        """For everything that holds a matrix and is not pruned, by name, why.

        Args:
            pruned: names of the layers that are.
            exclude: the user's list.
        """
        gone = {} if exclude is None else self.excluded(exclude)
        there = {*pruned}
        found = {name: why for name, why in self.left_out.items() if name not in there}
        modules = {module_of(name) if self._is_block(name) else name for name in pruned}
        for name in self.prunable:
            if name not in modules:
                found[name] = gone.get(name, "it is not among `layers`")
            elif name in self.blocks:
                for one in (f"{name}[{i}]" for i in range(self.blocks[name])):
                    if one not in there:
                        found[one] = gone.get(one, "it is not among `layers`")
        return found

    def _named(self, what: str, given: str) -> list[str]:
        """The layers that a user's name or pattern means."""
        if given in self.prunable or given in self.tables or self._is_block(given):
            return [given]
        if given in self.left_out:
            if what == "exclude":
                return []
            raise ValueError(f"{what}: {given!r} can't be pruned: {self.left_out[given]}")
        able = [*self.prunable, *(self.tables if what == "exclude" else ())]
        found = [name for name in able if not given or name.startswith(f"{given}.")]
        if not found and any(sign in given for sign in "*?["):
            every = [*able, *(f"{n}[{i}]" for n, count in self.blocks.items() for i in range(count))]
            found = [name for name in every if fnmatchcase(name, given)]
            if not found and what == "exclude" and any(fnmatchcase(name, given) for name in self.left_out):
                return []
        if not found:
            near = difflib.get_close_matches(given, [*self.prunable, *self.left_out], n=1)
            hint = f"did you mean {near[0]!r}?" if near else self._there()
            raise ValueError(f"{what}: {given!r} names no prunable layer; {hint}")
        return found

    def _ordered(self, asked: set[str]) -> list[str]:
        """Modules and blocks in running order; a module stands for its blocks."""
        blocks = defaultdict(list)
        for name in asked - {*self.order}:
            blocks[module_of(name)].append(name)
        chosen: list[str] = []
        for name in self.order:
            chosen += [name] if name in asked else sorted(blocks[name], key=_place)
        return chosen

    def _there(self) -> str:
        more = f" and {len(self.prunable) - NAMED} more" if len(self.prunable) > NAMED else ""
        return f"there are {', '.join(self.prunable[:NAMED])}{more}"

    def _is_block(self, name: str) -> bool:
        return 0 <= _place(name) < self.blocks.get(module_of(name), 0)

    def _reasons(self) -> str:
        if not self.left_out:
            return "no Linear and no convolution"
        return "; ".join(f"{name!r}: {why}" for name, why in [*self.left_out.items()][:SHOWN])


def _listed(what: str, names: Sequence[str]) -> list[str]:
    """A user's list of names.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, such as [{names!r}], not a name")
    if not isinstance(names, Iterable):
        raise ValueError(f"{what} must be a list of names, got {names!r}")
    given = list(names)
    if odd := [name for name in given if not isinstance(name, str)]:
        raise ValueError(f"{what} must be a list of names, got {odd[0]!r} in it")
    return given


def module_of(name: str) -> str:
    """The module of a layer: its name, without the place of a block."""
    found = BLOCK.fullmatch(name)
    return found[1] if found else name


def _place(name: str) -> int:
    found = BLOCK.fullmatch(name)
    return int(found[2]) if found else -1


def unwrap(model: nn.Module) -> nn.Module:
    """The module itself, out of `torch.compile`, `DataParallel` and `DistributedDataParallel`.

    Raises:
        ValueError: for a module whose inside can't be seen, or whose parameters do not exist yet.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):
            model = inside
        else:
            break
    for name, module in model.named_modules():
        what = f"module {name!r}" if name else "model"
        if type(module).__name__ == "FullyShardedDataParallel" or any(_is_sharded(t) for t in _own(module)):
            raise ValueError(f"{what} is sharded (FSDP); gather its weights into a plain model first")
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{what} is TorchScript, which can't be pruned; give the nn.Module it was made of"
            )
        if isinstance(getattr(module, "_orig_mod", None), nn.Module):
            raise ValueError(f"{what} is compiled; give the model as it was before torch.compile")
        if any(nn.parameter.is_lazy(tensor) for tensor in _own(module)):
            raise ValueError(
                f"{what} ({type(module).__name__}) has no weights yet; run the model once on its inputs"
            )
        if any(tensor.is_meta for tensor in _own(module)):
            raise ValueError(f"{what} is on the device 'meta', without values; load its weights first")
    return model


def survey(model: nn.Module) -> Survey:
    """Look through a network, with masks or without, before any work is done."""
    sharing = _sharing(model)
    names = {name: module for name, module in model.named_modules() if isinstance(module, KINDS)}
    weights = {
        f"{name}.{key}": name for name in names for key in ("weight", "bias", "weight_orig", "bias_orig")
    }
    found = Survey(type(model).__name__, [], {}, {})
    for name, module in model.named_modules():
        if name not in names:
            for key in _matrices(name, module):
                found.left_out[key] = f"{type(module).__name__} {UNKNOWN}"
                if isinstance(module, nn.EmbeddingBag):
                    found.left_out[key] = (
                        "EmbeddingBag adds up its rows, which `Embedding` and a sum do as well"
                    )
                elif isinstance(module, nn.Embedding) and key == name:
                    why = _why_no_table(module, sharing.get(module, []))
                    found.left_out[key] = why or NAMED_ONLY
                    if why is None:
                        found.tables.append(name)
                        found.order.append(name)
            continue
        computed = [key for key in ("weight", "bias") if not _is_own(module, key)]
        others = sharing.get(module, [])
        strange = [other for other in others if other not in weights]
        why = _why_not(module)
        if why is None and not computed:
            why = _why_not_stored(module.weight)
        if why is None and strange:
            why = f"it shares its weight or bias with {strange[0]!r}"
        if why is not None:
            found.left_out[name] = why
            continue
        found.prunable.append(name)
        found.order.append(name)
        if getattr(module, "groups", 1) > 1:
            found.blocks[name] = module.groups
        if computed:
            found.refused[name] = (
                f"layer {name!r}: its {computed[0]} is computed, as by weight_norm or a parametrization, and "
                "zeros would not stay; take that off first (remove_parametrizations, remove_weight_norm, "
                "remove_spectral_norm), or name the other layers with `layers`"
            )
        elif others:
            first, second = [key for key in names if key in (name, weights[others[0]])]
            found.refused[name] = (
                f"layers {first!r} and {second!r} share one weight or bias; leave both out with `layers`"
            )
    return found


def tell(left_out: Mapping[str, str]) -> None:
    """Warn, in one line, of what is not pruned though nobody asked to leave it out."""
    if left_out:
        shown = [f"{name!r} ({why})" for name, why in [*left_out.items()][:SHOWN]]
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        warnings.warn(
            f"not pruned: {', '.join(shown)}{more}; `result.left_out` has all, `layers` says which to prune",
            LeftOut,
            stacklevel=2,
        )


def masked(module: nn.Module) -> list[str]:
    """The parameters of a module that have a `torch.nn.utils.prune` mask."""
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, torch_prune.BasePruningMethod)]


def masked_names(model: nn.Module) -> list[str]:
    """The names of parameters that have a mask in some module of a network."""
    return list(dict.fromkeys(name for module in model.modules() for name in masked(module)))


def _why_not(module: nn.Module) -> str | None:
    """Why a Linear, convolution or Embedding is not understood, whatever its weight is; None if it is."""
    kind = next(kind for kind in (*KINDS, nn.Embedding) if isinstance(module, kind))
    cls = type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)
    if replaced := [key for key in STOCK if key in vars(module)]:
        return f"its {replaced[0]} was replaced"
    if any(getattr(cls, key, None) is not getattr(kind, key, None) for key in STOCK):
        return f"{cls.__module__}.{cls.__name__} does not compute what torch.nn.{kind.__name__} does"
    norms = (WeightNorm, SpectralNorm, torch_prune.BasePruningMethod)
    if not all(isinstance(hook, norms) for hook in module._forward_pre_hooks.values()):
        return "a forward pre-hook may change what it computes"
    return None


def _why_no_table(module: nn.Embedding, others: Sequence[str]) -> str | None:
    """Why the vectors of an Embedding can't be pruned; None if they can."""
    if (why := _why_not(module)) is not None:
        return why
    if module.max_norm is not None:
        return "its weight changes when it runs, by max_norm"
    if module.sparse or module.scale_grad_by_freq:
        option = "sparse" if module.sparse else "scale_grad_by_freq"
        return f"it has no plain gradient, by {option}; set that to False"
    if not _is_own(module, "weight"):
        return "its weight is computed"
    if others:
        return f"it shares its weight with {others[0]!r}"
    return _why_not_stored(module.weight)


def _why_not_stored(weight: Tensor) -> str | None:
    kind = type(weight.detach())
    if kind is not Tensor or weight.layout is not torch.strided or weight.dtype not in TYPES:
        return f"its weight is a {kind.__name__} of {weight.dtype}, {weight.layout}"
    return None


def _is_own(module: nn.Module, name: str) -> bool:
    """Whether an attribute is a parameter of the module, or None, or one under a mask; not computed."""
    if getattr(type(module), name, None) is not None:
        return False
    return name in module._parameters or name in masked(module)


def _matrices(name: str, module: nn.Module) -> list[str]:
    """What holds the matrices that a module has itself: the module, or parameters beside its children."""
    names = [
        key for key, p in module._parameters.items() if p is not None and sum(d > 1 for d in p.shape) > 1
    ]
    if isinstance(module, nn.MultiheadAttention) or not any(module.children()):
        return [name] if names or hasattr(module, "_packed_params") else []
    return [f"{name}.{key}" if name else key for key in names]


def _sharing(model: nn.Module) -> dict[nn.Module, list[str]]:
    """For every Linear, convolution and Embedding other tensors in the memory of its weight or bias."""
    places = memory(model)
    found: dict[nn.Module, list[str]] = defaultdict(list)
    for same in places.values():
        for module, key, path, tensor in same:
            if isinstance(module, (*KINDS, nn.Embedding)) and key.removesuffix("_orig") in ("weight", "bias"):
                found[module] += [at for *_, at, twin in same if at != path and overlap(tensor, twin)]
    return found


def _is_sharded(tensor: Tensor) -> bool:
    """Whether it is a part of a tensor that several processes hold."""
    return type(tensor).__name__ in ("DTensor", "ShardedTensor")


def _own(module: nn.Module) -> Iterator[Tensor]:
    yield from (tensor for tensor in module._parameters.values() if tensor is not None)
    yield from (tensor for tensor in module._buffers.values() if tensor is not None)
