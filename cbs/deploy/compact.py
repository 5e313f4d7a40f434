"""Neurons that a weight mask left without effect, taken out of the network: dead-neuron removal, exact.

Two kinds go. A neuron whose outgoing columns are all zero feeds nothing. A neuron whose incoming rows are
all zero is the same number c for every input: `c W[:, j]` is added to the bias of the layer that it feeds,
and its column is then zero too; where that layer has no bias, or pads its images with zeros, it goes only if
c is zero. What goes takes rows with it, so that neurons before it may have lost their last column: both are
repeated until nothing is left to take. The smaller network is run beside the other, and kept where it agrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cbs.deploy.batch import Batch, difference, tensors_of
from cbs.network.eligible import survey
from cbs.network.evaluate import evaluating
from cbs.network.layers import Layer, named_layers, visiting
from cbs.network.neurons import TRIED, Neurons, neurons_of
from cbs.network.shrink import Removed, shrink, tried
from cbs.network.surgery import clone
from solvers.problem import Mask

STEPS = 100
"""Times that taking out is repeated at most."""


def compact(model: nn.Module, inputs: Batch) -> tuple[nn.Module, list[Removed]]:
    """A smaller network that computes the same, and what it lost; the network itself where nothing can go.

    Args:
        model: in evaluation mode, with masks or zeros; it is not changed.
        inputs: a batch of its inputs, to trace it with.
    """
    model = clone(model).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    prunable = survey(model)
    layers = named_layers(model, [name for name in prunable.prunable if name not in prunable.refused])
    layers = [layer for layer in layers if _is_plain(model, layer.name)]
    few = inputs[:TRIED]
    if not layers or not isinstance(few, Tensor):
        return model, []
    groups = neurons_of(model, layers, few).groups
    names = [layer.name for layer in layers]
    folded = clone(model)
    lost = _lost(groups, _gone(folded, groups, named_layers(folded, names), few))
    if lost and (tried(folded, lost, few) is not None or not _same(model, folded, few)):
        folded, kept = clone(model), list[Removed]()
        for group in _lost(groups, _gone(folded, groups, None, few)):
            if tried(folded, [*kept, group], few) is None:
                kept.append(group)
        lost = kept
    return (shrink(folded, lost), lost) if lost else (model, [])


def _gone(
    model: nn.Module, groups: Sequence[Neurons], layers: Sequence[Layer] | None, inputs: Tensor
) -> list[Mask]:
    """For every group `[count]`, True where a neuron goes; constants are added to biases, in place.

    Without `layers` constants stay, and what feeds nothing goes alone.
    """
    gone = [np.zeros(group.count, dtype=bool) for group in groups]
    dead_rows: dict[str, set[int]] = defaultdict(set)
    for _ in range(STEPS):
        constants: list[list[dict[str, float] | None]] = [[None] * group.count for group in groups]
        if layers is not None:
            constants = _constants(model, groups, layers, inputs)
        moved = False
        for group, out, constant in zip(groups, gone, constants, strict=True):
            for i in np.flatnonzero(~out).tolist():
                if out.sum() == group.count - 1:
                    break  # a layer of no rows is none
                if not _is_dead(model, group, i, dead_rows) and not _fold(model, group, i, constant[i]):
                    continue
                out[i] = moved = True
                for name, rows in group.rows.items():
                    dead_rows[name].add(int(rows[i]))
        if not moved:
            break
    return gone


def _is_dead(model: nn.Module, group: Neurons, i: int, dead_rows: dict[str, set[int]]) -> bool:
    """Whether every weight that a neuron feeds is zero, in rows that are there still."""
    for name, columns in group.columns.items():
        W = _matrix(model, name)
        alive = [r for r in range(len(W)) if r not in dead_rows[name]]
        if bool(W[alive][:, torch.from_numpy(columns[i])].ne(0).any()):
            return False
    return True


def _fold(model: nn.Module, group: Neurons, i: int, values: dict[str, float] | None) -> bool:
    """Move a constant neuron into the biases of what it feeds, in place; False where that can't be."""
    if values is None:
        return False
    for name, value in values.items():
        module = model.get_submodule(name)
        pads = isinstance(module, _ConvNd) and module.padding != "valid" and any(module.padding)
        if value and (module.bias is None or pads):
            return False
    with torch.no_grad():
        for name, value in values.items():
            module, columns = model.get_submodule(name), torch.from_numpy(group.columns[name][i])
            W = _matrix(model, name)
            if value:
                assert isinstance(module.bias, Tensor)
                moved = module.bias.double() + value * W[:, columns].double().sum(dim=1)
                module.bias.copy_(moved)
            W[:, columns] = 0
    return True


def _constants(
    model: nn.Module, groups: Sequence[Neurons], layers: Sequence[Layer], inputs: Tensor
) -> list[list[dict[str, float] | None]]:
    """For every neuron without incoming weights what each layer that it feeds gets of it, or None."""
    found: list[list[dict[str, float] | None]] = [[None] * group.count for group in groups]
    idle = [_idle(model, group) for group in groups]
    if not any(mask.any() for mask in idle):
        return found
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    by_name = {layer.name: layer for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        layer = by_name[name]
        if isinstance(layer.module, _ConvNd):
            size, places = layer.module.weight[0, 0].numel(), layer.module.weight.ndim - 2
            flat = x.movedim(-1 - places, -1).flatten(0, -2).repeat_interleave(size, dim=-1)
        else:
            flat = x.reshape(-1, x.shape[-1])
        a, b = flat.amin(dim=0), flat.amax(dim=0)
        low[name] = torch.minimum(low[name], a) if name in low else a
        high[name] = torch.maximum(high[name], b) if name in high else b

    with torch.no_grad(), evaluating(model), visiting(layers, visit):
        for batch in _varied(inputs):
            model(batch)
    for group, mask, values in zip(groups, idle, found, strict=True):
        for i in np.flatnonzero(mask):
            parts: dict[str, float] = {}
            for name, columns in group.columns.items():
                if name not in low:
                    break
                a, b = low[name][columns[i]], high[name][columns[i]]
                if float(a.min()) != float(b.max()):
                    break
                parts[name] = float(a[0])
            else:
                values[i] = parts
    return found


def _idle(model: nn.Module, group: Neurons) -> Mask:
    """`[count]`, True where nothing comes in: every row that computes a neuron is zero."""
    found = np.ones(group.count, dtype=bool)
    for name, rows in group.rows.items():
        found &= ~_matrix(model, name)[torch.from_numpy(rows)].ne(0).any(dim=1).cpu().numpy()
    return found


def _is_plain(model: nn.Module, name: str) -> bool:
    """Whether a layer is a module with a weight of its own."""
    modules = dict(model.named_modules())
    return isinstance(modules.get(name), nn.Linear | _ConvNd) and "weight" in modules[name]._parameters


def _matrix(model: nn.Module, name: str) -> Tensor:
    """A layer's weights as a matrix, in the memory of its parameter."""
    W = model.get_parameter(f"{name}.weight").detach()
    return W.view(len(W), -1)


def _varied(inputs: Tensor) -> Iterator[Tensor]:
    """The inputs, and others of their kind: what is constant on all is taken to be."""
    yield inputs.clone()
    if inputs.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float64).to(inputs)
        size = inputs.double().square().mean().sqrt().clamp(min=1e-6).to(inputs)
        yield -inputs
        yield size * noise
        if torch.finfo(inputs.dtype).bits >= 32:  # what depends on sizes across neurons, as gates do
            yield 100 * size * noise
    yield inputs[:1].clone()  # what depends on the number of samples


def _same(model: nn.Module, other: nn.Module, inputs: Tensor) -> bool:
    """Whether two networks' outputs agree to within rounding, on inputs and others of their kind."""
    with torch.no_grad(), evaluating(model), evaluating(other):
        for batch in _varied(inputs):
            wanted = model(batch.clone())
            precise = min(torch.finfo(t.dtype).bits for t in tensors_of(wanted) if t.is_floating_point())
            slack = 64 * {64: 2.0**-52, 32: 2.0**-23}.get(precise, 2.0**-10)
            if not difference(other(batch.clone()), wanted) <= slack:
                return False
    return True


def _lost(groups: Sequence[Neurons], gone: Sequence[Mask]) -> list[Removed]:
    """What every group loses that loses some."""
    return [_removed(group, out) for group, out in zip(groups, gone, strict=True) if out.any()]


def _removed(group: Neurons, out: Mask) -> Removed:
    return Removed(
        name=group.name,
        count=group.count,
        neurons=np.flatnonzero(out).tolist(),
        rows={name: rows[out].tolist() for name, rows in group.rows.items()},
        columns={name: columns[out].ravel().tolist() for name, columns in group.columns.items()},
        norms={name: places[out].tolist() for name, places in group.norms.items()},
    )
