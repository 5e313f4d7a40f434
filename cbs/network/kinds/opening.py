"""The open form of a network, and the way back: a reduction with `apply` and `invert`.

In the copy of the network that methods work on, modules of registered types are replaced by what they were
rewritten to. `close_model` puts the user's modules back, with the weights and masks that their parts have by
then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.utils import _pytree as pytree

from cbs.data import first_line
from cbs.network.answers import raw, tensors_in
from cbs.network.eligible import TYPES, masked
from cbs.network.kinds.hooks import Refresh, settle
from cbs.network.kinds.registry import Slot, departs, kind_of
from cbs.network.storage import Held, memory, shared_with
from cbs.network.surgery import copied, make_permanent, put_mask

SLACK, MOST = 2.0**10, 0.05
"""Rounding errors that a rewritten module's outputs may have, relative to the largest output."""


@dataclass(frozen=True)
class Opening:
    """What leads back from a rewritten module.

    Attributes:
        module: the user's, with its masks.
        slots: where its parameters are in the parts.
    """

    module: nn.Module
    slots: Sequence[Slot]


@dataclass(frozen=True)
class Opened:
    """A network of which modules were rewritten.

    Attributes:
        model: a copy; the network itself where nothing was rewritten.
        names: of the modules that were.
        left_out: why others of registered types were not, by name.
    """

    model: nn.Module
    names: Sequence[str]
    left_out: Mapping[str, str]


def is_open(model: nn.Module) -> bool:
    """Whether some module of a network is rewritten."""
    return any("_opening" in vars(module) for module in model.modules())


def open_model(model: nn.Module, left_out: Mapping[str, str] | None = None) -> Opened:
    """A copy of a network whose modules of registered types are rewritten, masks and all.

    Args:
        model: any network; those that are rewritten already stay so.
        left_out: modules to leave as they are, and why.

    Raises:
        ValueError: if the network can't be copied, or a type's slots do not fit its module.
    """
    reasons = dict(left_out or {})
    places: Mapping[int, Sequence[Held]] | None = None
    wanted: dict[int, str] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name in reasons or (inside and name.startswith(inside)) or kind_of(module) is None:
            continue
        places = memory(model) if places is None else places
        if (why := _why_closed(module, places)) is not None:
            reasons[name] = why
            continue
        wanted[id(module)] = name
        inside = (*inside, f"{name}." if name else "")
        if not name:
            break
    if not wanted:
        return Opened(model, (), reasons)
    model = copied(model)
    made: dict[int, nn.Module] = {}
    names = set(wanted.values())
    for name, module in [*model.named_modules()]:
        if name not in names:
            continue
        try:
            made[id(module)] = _open(module)
        except ValueError as error:
            reasons[name] = first_line(error)
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if id(module) in made and not name:
            model = made[id(module)]
        elif id(module) in made:
            path, _, key = name.rpartition(".")
            model.get_submodule(path)._modules[key] = made[id(module)]
    done = [name for name in names if name not in reasons]
    return Opened(model, done, reasons)


def _why_closed(module: nn.Module, places: Mapping[int, Sequence[Held]]) -> str | None:
    """Why a module of a registered type is not rewritten, or None."""
    if any(parametrize.is_parametrized(part) for part in module.modules()):
        return "a weight of it is computed, as by a parametrization; take that off first"
    if (why := departs(module)) is not None:
        return why
    ours = (torch_prune.BasePruningMethod, Refresh)
    for part in module.modules():
        hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
        if not all(isinstance(hook, ours) for hook in hooks):
            return "a forward hook may change what it computes"
    for parameter in module.parameters():
        kind = type(parameter.detach())
        if kind is not Tensor or parameter.layout is not torch.strided or parameter.dtype not in TYPES:
            return f"a weight of it is a {kind.__name__} of {parameter.dtype}, {parameter.layout}"
    if (other := shared_with(module, places)) is not None:
        return f"it shares a weight with {other!r}"
    if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters()):
        return "it has a NaN or infinite weight"
    return None


@torch.no_grad()
def _open(module: nn.Module) -> nn.Module:
    """A module rewritten, with its weights, its masks and the way back."""
    plain = make_permanent(copied(module))
    rewrite = kind_of(module)
    assert rewrite is not None
    opened, slots = rewrite(plain)
    opened.train(module.training)
    first = next(module.parameters())
    opened.to(first.device, first.dtype)
    _require_slots(module, plain, opened, slots)
    parts = dict(opened.named_parameters())
    for name, values in _opened_values(plain, opened, slots).items():
        parts[name].copy_(values)
    grads = {p.requires_grad for p in plain.parameters()}
    for parameter in parts.values():
        parameter.requires_grad_(True in grads)
    before = _masks(module)
    found: dict[str, Tensor] = {}
    for slot in slots:
        for name in filter(None, (slot.parameter, slot.plus)):
            if name in before:
                mask = found.setdefault(slot.part, torch.zeros(parts[slot.part].shape, dtype=torch.bool))
                if slot.plus is None:
                    slot.where(mask).copy_(slot.take(before[name].cpu()))
    for part, mask in found.items():
        path, _, key = part.rpartition(".")
        put_mask(opened.get_submodule(path), key, mask)
    object.__setattr__(opened, "_opening", Opening(module, slots))
    return opened


def _require_slots(module: nn.Module, plain: nn.Module, opened: nn.Module, slots: Sequence[Slot]) -> None:
    """Refuse slots that do not name every parameter, or of shapes that do not fit.

    Raises:
        ValueError: in one line.
    """
    kind, theirs, parts = (
        type(module).__name__,
        dict(plain.named_parameters()),
        dict(opened.named_parameters()),
    )
    named = {slot.parameter for slot in slots} | {slot.plus for slot in slots if slot.plus}
    if (missing := sorted(named ^ {*theirs})) or (missing := sorted({s.part for s in slots} ^ {*parts})):
        raise ValueError(f"the slots of layer type {kind} and its parameters differ in {missing[0]!r}")
    filled = {name: torch.zeros(values.shape, dtype=torch.int64) for name, values in parts.items()}
    taken = {name: torch.zeros(values.numel(), dtype=torch.int64) for name, values in theirs.items()}
    for slot in slots:
        index = slot.take(_numbered(theirs[slot.parameter]))
        there = slot.where(filled[slot.part])
        if there.shape != index.shape:
            raise ValueError(
                f"layer type {kind}: {slot.parameter!r} gives {list(index.shape)}, and {slot.part!r} takes "
                f"{list(there.shape)}"
            )
        there += 1
        for name in filter(None, (slot.parameter, slot.plus)):
            taken[name][index.reshape(-1)] += 1
    for counts in (filled, taken):
        for name, count in counts.items():
            if bool((count != 1).any()):
                raise ValueError(f"layer type {kind}: its slots must take every entry of {name!r} once")


def _numbered(values: Tensor) -> Tensor:
    return torch.arange(values.numel()).reshape(values.shape)


def _opened_values(plain: nn.Module, opened: nn.Module, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """What a rewritten module's parameters are by the user's module's."""
    found: dict[str, Tensor] = {}
    for slot in slots:
        like = opened.get_parameter(slot.part) if _is_plain(opened, slot.part) else _under(opened, slot.part)
        there = found.setdefault(slot.part, torch.empty_like(like))
        values = slot.take(plain.get_parameter(slot.parameter).detach())
        if slot.plus is not None:
            values = values + slot.take(plain.get_parameter(slot.plus).detach())
        slot.where(there).copy_(values)
    return found


def _is_plain(module: nn.Module, name: str) -> bool:
    path, _, key = name.rpartition(".")
    return key in module.get_submodule(path)._parameters


def _under(module: nn.Module, name: str) -> Tensor:
    """A parameter, with zeros where a mask prunes it."""
    path, _, key = name.rpartition(".")
    part: Any = module.get_submodule(path)
    if key in part._parameters:
        return part._parameters[key].detach()  # type: ignore[no-any-return]
    return part.get_parameter(f"{key}_orig").detach() * getattr(part, f"{key}_mask")  # type: ignore[no-any-return]


def _masks(module: nn.Module) -> dict[str, Tensor]:
    """The masks of a module and its children by their parameters' names, True where pruned."""
    return {
        f"{path}.{key}" if path else key: getattr(part, f"{key}_mask") == 0
        for path, part in module.named_modules()
        for key in masked(part)
    }


def close_model(model: nn.Module) -> nn.Module:
    """A copy of a network with the user's modules in place of what they were rewritten to.

    Weights that moved and masks are in the user's parameters, the masks in `torch.nn.utils.prune` form.
    """
    model = copied(model)
    made = {id(part): _close(part) for part in model.modules() if "_opening" in vars(part)}
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if id(module) in made and not name:
            model = made[id(module)]
        elif id(module) in made:
            path, _, key = name.rpartition(".")
            model.get_submodule(path)._modules[key] = made[id(module)]
    return settle(model)


@torch.no_grad()
def _close(opened: nn.Module) -> nn.Module:
    """The user's module, with what its parts have become."""
    opening: Opening = vars(opened)["_opening"]
    before = _masks(opening.module)
    module = make_permanent(copied(opening.module))
    first = next(opened.parameters())
    module.to(first.device, first.dtype)
    module.train(opened.training)
    old, theirs = _opened_values(module, opened, opening.slots), dict(module.named_parameters())
    found, masks = _masks(opened), dict[str, Tensor]()
    for slot in opening.slots:
        parameter = theirs[slot.parameter]
        index = slot.take(_numbered(parameter)).to(parameter.device)
        now, was = slot.where(_under(opened, slot.part)), slot.where(old[slot.part])
        moved = now != was
        values = now[moved]
        if slot.plus is not None:
            values = values - slot.take(theirs[slot.plus].detach())[moved]
        flat = parameter.detach().reshape(-1).clone()
        flat[index[moved]] = values
        parameter.copy_(flat.reshape(parameter.shape))
        if slot.plus is None and slot.part in found:
            if slot.parameter not in masks:
                known = before.get(slot.parameter, torch.zeros(parameter.shape, dtype=torch.bool))
                masks[slot.parameter] = known.cpu().clone(memory_format=torch.contiguous_format)
            masks[slot.parameter].view(-1)[index.cpu()] = slot.where(found[slot.part]).cpu()
    for name, mask in {**before, **masks}.items():
        path, _, key = name.rpartition(".")
        put_mask(module.get_submodule(path), key, mask)
    return module


def parts_of(model: nn.Module) -> dict[str, str]:
    """For every part of a rewritten module, by its name in the network, the user's module that it is of."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if "_opening" in vars(module):
            for path, _ in module.named_modules():
                found[".".join(filter(None, (name, path)))] = name
    return found


@torch.no_grad()
def differing(model: nn.Module, opened: Opened, inputs: Any) -> dict[str, str]:
    """Which rewritten modules do not give what the user's do on some samples, and why.

    Args:
        model: the network, in evaluation mode.
        opened: of it.
        inputs: a few samples.

    Raises:
        ValueError: if the network refuses the inputs.
    """
    calls: dict[str, list[tuple[Any, Any, Any]]] = {name: [] for name in opened.names}

    def keep(name: str) -> Any:
        return lambda module, args, kwargs, output: calls[name].append(_own((args, kwargs, output)))

    with _plainly():
        handles = [
            model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True) for name in calls
        ]
        try:
            before = raw(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        found: dict[str, str] = {}
        for name, ran in calls.items():
            part = opened.model.get_submodule(name)
            for args, kwargs, output in ran[:4]:
                try:
                    again = part(*args, **kwargs)
                except Exception as error:
                    found[name] = f"rewritten as matrices it does not run as here ({first_line(error)})"
                    break
                if not _agree(output, again):
                    found[name] = "rewritten as matrices it gives other outputs"
                    break
        if found:
            return found
        try:
            fine = _agree(before, raw(opened.model, inputs), 4.0)
        except Exception:
            fine = False
        if fine:
            return found
        why = "the network does not do the same when it is rewritten as matrices"
        alone = {name: {other: "" for other in opened.names if other != name} for name in opened.names}
        for name, others in alone.items():
            one = replace(open_model(model, others), names=(name,))
            try:
                fine = _agree(before, raw(one.model.eval(), inputs), 4.0)
            except Exception:
                fine = False
            if not fine:
                found[name] = why
        return found or dict.fromkeys(opened.names, why)


def _own(values: Any) -> Any:
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, values)


def _agree(a: Any, b: Any, factor: float = 1.0) -> bool:
    """Whether two answers are the same but for rounding."""
    left, right = tensors_in(a), tensors_in(b)
    if len(left) != len(right):
        return False
    for x, y in zip(left, right, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return False
            continue
        slack = min(factor * SLACK * torch.finfo(x.dtype).eps, MOST)
        if x.is_cuda:
            slack = max(slack, 2.0**-7)
        finite = torch.isfinite(x)
        if not torch.equal(finite, torch.isfinite(y)):
            return False
        size = float(x[finite].abs().max()) if bool(finite.any()) else 0.0
        if bool(((x - y)[finite].abs() > slack * size).any()):
            return False
    return True


@contextmanager
def _plainly() -> Iterator[None]:
    """Without the fused path of torch's encoders, which does not run their modules."""
    backend = torch.backends.mha
    before = backend.get_fastpath_enabled()
    backend.set_fastpath_enabled(False)
    try:
        yield
    finally:
        backend.set_fastpath_enabled(before)
