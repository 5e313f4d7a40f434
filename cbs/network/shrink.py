"""Physical removal of neurons: a smaller network that computes what the masked one does.

A neuron that is removed feeds only columns that are zero, so that leaving out its rows, its bias, its channel
of a batch norm and those columns changes nothing. What else a network does with its channels, such as a fixed
view or a padded shortcut, may not follow: the smaller network is run, and kept only where it agrees.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import first_line
from cbs.data.nested import cast
from cbs.network.answers import answer, raw
from cbs.network.eligible import KINDS, SHOWN, Kind, LeftOut
from cbs.network.evaluate import evaluating
from cbs.network.surgery import clone

SAME = 1e-6
"""Largest change of an output, relative to the largest, of a network in its own precision."""
SAME_DOUBLE = 1e-12
"""The same in double precision, in which networks are compared where they run there."""


@dataclass(frozen=True)
class Removed:
    """What a group of neurons loses.

    Attributes:
        name: of the first layer that computes the neurons.
        count: neurons of the group.
        neurons: the places of those that go.
        rows: for every layer that computes them the rows that go.
        columns: for every layer that they feed the columns of its matrix that go.
        norms: for every batch norm, and PReLU of one parameter a channel, the channels that go.
        stays: why they can't be taken out of the network and stay masked; None where they can.
    """

    name: str
    count: int
    neurons: Sequence[int]
    rows: Mapping[str, Sequence[int]]
    columns: Mapping[str, Sequence[int]]
    norms: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stays: str | None = None

    @property
    def kept(self) -> list[int]:
        """The places of the neurons that stay."""
        gone = {*self.neurons}
        return [i for i in range(self.count) if i not in gone]


def shrink(model: nn.Module, groups: Sequence[Removed | Mapping[str, Any]]) -> nn.Module:
    """A copy of a network without the neurons of some groups, whose masks become zeros.

    Args:
        model: the network, whose columns behind these neurons are zero; masks are made permanent in the copy.
        groups: what goes, as `PruneResult.neurons` or a report has it; those that stay are left in.

    Raises:
        ValueError: in one line, if a column behind a neuron that goes is not zero, or the groups are none or
            another network's.
    """
    small = clone(model)
    rows: dict[str, set[int]] = {}
    columns: dict[str, set[int]] = {}
    norms: dict[str, set[int]] = {}
    for group in _read(groups):
        if group.stays is None:
            for table, lost in ((rows, group.rows), (columns, group.columns), (norms, group.norms)):
                for name, places in lost.items():
                    table.setdefault(name, set()).update(places)
    modules = dict(small.named_modules())
    for name in {**rows, **columns, **norms}:
        module = modules.get(name)
        _require_places(
            name, module, rows.get(name, set()) | norms.get(name, set()), columns.get(name, set())
        )
        assert module is not None
        if isinstance(module, KINDS):
            _narrow(name, module, rows.get(name, set()), columns.get(name, set()))
        else:
            _thin(module, norms[name])
    return small


def _read(groups: Sequence[Removed | Mapping[str, Any]]) -> list[Removed]:
    """Groups, of which some may be records.

    Raises:
        ValueError: if they are none.
    """
    try:
        return [group if isinstance(group, Removed) else Removed(**group) for group in groups]
    except TypeError as error:
        raise ValueError(
            f"groups must be the neurons of a result or a report, result.neurons ({first_line(error)})"
        ) from None


def _require_places(name: str, module: nn.Module | None, rows: set[int], columns: set[int]) -> None:
    """Refuse a module that has not the rows (or channels) and columns that are to go.

    Raises:
        ValueError: naming it.
    """
    if isinstance(module, KINDS):
        m, n = len(module.weight), module.weight[0].numel()
    else:
        size = getattr(module, "num_parameters" if isinstance(module, nn.PReLU) else "num_features", 0)
        m, n = (size if isinstance(size, int) else 0), 0
    if max(rows, default=-1) >= m or max(columns, default=-1) >= n:
        what = "there is none" if module is None else f"a {type(module).__name__} of {m} rows and {n} columns"
        raise ValueError(
            f"groups are of another network: module {name!r} is to lose row {max(rows, default=None)} and "
            f"column {max(columns, default=None)} at most, but {what}"
        )


def tried(model: nn.Module, groups: Sequence[Removed], inputs: Any) -> str | None:
    """Why the network without these neurons is not the same, in evaluation mode; None if it is.

    Args:
        model: the masked network.
        groups: what goes.
        inputs: to run both on.
    """
    try:
        large, inputs = doubled(model, inputs)
        small = shrink(large, groups)
        with evaluating(large), evaluating(small):
            before, after = answer(large, inputs.clone()), answer(small, inputs.clone())
        if before.shape != after.shape:
            return f"outputs become {list(after.shape)} instead of {list(before.shape)}"
        facts = torch.finfo(before.dtype)
        slack = SAME_DOUBLE if facts.bits == 64 else max(SAME, 8 * facts.eps)
        off = float((after - before).abs().max() / before.abs().max().clamp(min=facts.tiny))
        return None if off <= slack else f"outputs change by {off:.1e} of the largest"
    except Exception as error:  # whatever a network raises whose channels are fewer than it expects
        return f"the smaller network does not run ({first_line(error)})"


def doubled(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a network in double precision and inputs for it, or both as they are if it does not run."""
    large, wide = clone(model).double().eval(), cast(inputs, torch.Tensor.double)
    try:
        with torch.no_grad():
            raw(large, wide.clone())
    except Exception:  # a network that casts by itself
        return clone(model).eval(), inputs
    return large, wide


def tell_stays(groups: Sequence[Removed]) -> None:
    """Warn, in one line, of neurons that can't be taken out physically."""
    stays = [group for group in groups if group.stays is not None]
    if stays:
        shown = [f"{group.name!r} ({group.stays})" for group in stays[:SHOWN]]
        more = f" and {len(stays) - SHOWN} more" if len(stays) > SHOWN else ""
        warnings.warn(
            f"neurons that can't be taken out of the network stay masked: {', '.join(shown)}{more}",
            LeftOut,
            stacklevel=2,
        )


def _narrow(name: str, module: Kind, rows: set[int], columns: set[int]) -> None:
    """Take rows and columns out of a layer, in place.

    Raises:
        ValueError: if a column is not zero, or a convolution would lose parts of a channel.
    """
    W = module.weight
    matrix = W.detach().reshape(len(W), -1)
    stay_rows = _rest(len(W), rows, W)
    if columns:
        lost = torch.tensor(sorted(columns), device=W.device)
        if bool(matrix[stay_rows][:, lost].ne(0).any()):
            raise ValueError(f"layer {name!r}: a column behind a removed neuron is not zero any more")
    places = 1 if isinstance(module, nn.Linear) else W[0, 0].numel()
    channels = {column // places for column in columns}
    if len(columns) != len(channels) * places:
        raise ValueError(f"layer {name!r}: the columns to remove are no whole channels")
    stay = _rest(W.shape[1], channels, W)
    module.weight = _like(W, W.detach()[stay_rows][:, stay])
    if module.bias is not None:
        module.bias = _like(module.bias, module.bias.detach()[stay_rows])
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = len(stay_rows), len(stay)
    else:
        module.out_channels, module.in_channels = len(stay_rows), len(stay)


def _thin(module: nn.Module, channels: set[int]) -> None:
    """Take channels out of a batch norm or PReLU, in place."""
    for name, parameter in [*module._parameters.items()]:
        if parameter is not None:
            stay = _rest(len(parameter), channels, parameter)
            setattr(module, name, _like(parameter, parameter.detach()[stay]))
    for name, values in [*module._buffers.items()]:
        if values is not None and values.ndim:
            setattr(module, name, values[_rest(len(values), channels, values)].clone())
    size = "num_parameters" if isinstance(module, nn.PReLU) else "num_features"
    setattr(module, size, getattr(module, size) - len(channels))


def _rest(count: int, lost: set[int], like: Tensor) -> Tensor:
    return torch.tensor([i for i in range(count) if i not in lost], dtype=torch.long, device=like.device)


def _like(old: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone(), requires_grad=old.requires_grad)
