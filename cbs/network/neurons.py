"""Groups of neurons that go together: structured pruning's dependency groups, found in any network and tried.

A neuron is all that it touches: the row that computes it, its bias, the batch norm behind it, and the columns
that it feeds in later layers. Where outputs are added up, as around a residual block, neurons of the same
place in several layers are one. torch-pruning traces which modules hang together; every group that is kept
was then tried: with its columns at zero, the network's outputs do not depend on the neuron any more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cbs.data import first_line
from cbs.network.answers import answer, raw, tensors_in
from cbs.network.eligible import KINDS, SHOWN, LeftOut
from cbs.network.kinds.opening import close_model, parts_of
from cbs.network.shrink import doubled
from cbs.network.surgery import clone
from solvers.problem import Mask

if TYPE_CHECKING:
    from cbs.network.layers import Layer
    from cbs.network.network import Network

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Modules beside the layers that work channel by channel, with parameters of their own; and PReLU."""
TRIED = 4
"""Samples on which groups are tried."""
SAME = 1e-9
"""Largest change of an output in the trial, relative to the largest output; by the root of the precision."""
GROUPED = "it is a block of a grouped convolution"
"""Why the rows of such a block stay."""
PART = "it is a part of a module that is no single matrix"
"""Why the rows of a part of an attention or a recurrent layer stay."""
OUTPUTS = "its rows are the network's outputs"
"""Why nobody is told that a layer's neurons stay."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """Neurons that are alike: hidden channels, or units of a hidden layer. Each can go, with all it touches.

    Attributes:
        name: of the first layer that computes them.
        count: how many.
        rows: for every layer that computes them `[count]`, the row of each.
        columns: for every layer that they feed `[count, width]`, the columns of each in the layer's matrix: a
            convolution has `kh * kw` for every channel, a flattened map as many as it has places.
        norms: for every batch norm (and every PReLU of one parameter a channel) behind them `[count]`, the
            channel of each.
    """

    name: str
    count: int
    rows: Mapping[str, NDArray[np.int64]]
    columns: Mapping[str, NDArray[np.int64]]
    norms: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that compute them or are fed by them."""
        return list(dict.fromkeys((*self.rows, *self.columns)))

    def gone(self, earlier: Mapping[str, Mask]) -> Mask:
        """`[count]`, True where masks `[m, n]` of the layers prune every weight that a neuron feeds."""
        found = np.ones(self.count, dtype=bool)
        for name, columns in self.columns.items():
            found &= earlier[name][:, columns].all(axis=(0, 2))
        return found


@dataclass(frozen=True)
class Found:
    """What a network's dependency graph gives.

    Attributes:
        groups: of neurons that can go, in the order of their first layers.
        left_out: for every other layer by name why its rows stay.
    """

    groups: list[Neurons]
    left_out: Mapping[str, str]


def find_neurons(network: Network) -> Found:
    """The groups of a network, with a warning of class `LeftOut` for rows that stay and are no outputs.

    Raises:
        ValueError: in one line, if no neuron of the network can be removed.
    """
    model, inside = network.model, parts_of(network.model)
    layers, stay = network.layers, {layer.name: PART for layer in network.layers if layer.path in inside}
    if inside:  # the tracer knows the user's modules
        model = clone(close_model(model))
        layers = [layer.of(model) for layer in layers if layer.name not in stay]
    found = neurons_of(model, layers, network.samples.first(TRIED))
    found = Found(found.groups, {**found.left_out, **stay})
    told = {name: why for name, why in found.left_out.items() if why != OUTPUTS}
    if not found.groups:
        why = "; ".join(f"{name!r}: {why}" for name, why in [*found.left_out.items()][:SHOWN])
        raise ValueError(
            f"model {type(network.model).__name__} has no neuron that can be removed ({why}); "
            "prune its weights (granularity 'weights')"
        )
    if told:
        shown = [f"{name!r} ({why})" for name, why in [*told.items()][:SHOWN]]
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        warnings.warn(f"neurons that stay: {', '.join(shown)}{more}", LeftOut, stacklevel=2)
    return found


def neurons_of(model: nn.Module, layers: Sequence[Layer], inputs: Any) -> Found:
    """Trace, map and try: the groups of neurons that are understood.

    Args:
        model: the network, in evaluation mode; it is copied.
        layers: its prunable layers.
        inputs: a few samples.
    """
    grouped = {layer.name: GROUPED for layer in layers if layer.blocks > 1}
    layers = [layer for layer in layers if layer.blocks == 1]
    copied, inputs = doubled(model, inputs)
    for values in copied.parameters():
        values.requires_grad_(values.is_floating_point())
    try:
        traced = list(_traced(copied, layers, inputs))
    except Exception as error:  # what a tracer raises on a graph that it does not understand
        return Found([], {layer.name: _untraced(error) for layer in layers} | grouped)
    groups: list[Neurons] = []
    left_out: dict[str, str] = dict(grouped)
    for names, group in traced:
        if isinstance(group, Neurons):
            if (why := _dependence(copied, group, inputs)) is None:
                groups.append(group)
                continue
            group = why
        left_out |= dict.fromkeys(names, group)
    reached = {name for names, _ in traced for name in names}
    left_out |= {layer.name: "it is not reached" for layer in layers if layer.name not in reached}
    order = {layer.name: i for i, layer in enumerate(layers)}
    return Found(sorted(groups, key=lambda group: order[group.name]), left_out)


def _untraced(error: Exception) -> str:
    return f"its dependencies can't be traced ({type(error).__name__}: {first_line(error)})"


def _traced(
    model: nn.Module, layers: Sequence[Layer], inputs: Any
) -> Iterator[tuple[list[str], Neurons | str]]:
    """For every group its layers by name, and its neurons or why they stay."""
    import torch_pruning

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, inputs, forward_fn=_outputs, verbose=False
        )
        named = {model.get_submodule(layer.name): layer for layer in layers}
        done: set[str] = set()
        for module, layer in named.items():
            if layer.name in done or module not in graph.module2node:
                continue
            pruner = graph.get_pruner_of_module(module)
            try:
                group = graph.get_pruning_group(module, pruner.prune_out_channels, range(layer.shape[0]))
                names, neurons = _mapped(model, graph, group, named)
            except Exception as error:  # a tracer that guesses meets what it did not guess
                names, neurons = [layer.name], _untraced(error)
            done |= {*names}
            yield names, neurons


def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Every tensor of a network's answer that its parameters are in."""
    return [each for each in tensors_in(raw(model, inputs)) if each.grad_fn is not None]


def _mapped(
    model: nn.Module, graph: Any, group: Any, named: Mapping[nn.Module, Layer]
) -> tuple[list[str], Neurons | str]:
    """A traced group as rows and columns of the layers' matrices."""
    names = {module: name for name, module in model.named_modules()}
    rows: dict[str, NDArray[np.int64]] = {}
    columns: dict[str, NDArray[np.int64]] = {}
    norms: dict[str, NDArray[np.int64]] = {}
    computing = [
        named[dep.target.module].name
        for dep, _ in group
        if graph.is_out_channel_pruning_fn(dep.handler) and dep.target.module in named
    ]
    count = named[group[0].dep.target.module].shape[0]

    def refused(why: str) -> tuple[list[str], str]:
        return computing, why

    for item in group:
        module, places, roots = item.dep.target.module, item.idxs, item.root_idxs
        what = f"{names.get(module) or 'a parameter'!r}"
        if not isinstance(module, nn.Module):
            return refused(f"a parameter of {list(module.shape)} beside the layers hangs on it")
        if type(module).__module__.startswith("torch_pruning."):
            continue  # an operation without parameters: it is tried whether it keeps neurons apart
        out = graph.is_out_channel_pruning_fn(item.dep.handler)
        if module in named:
            layer = named[module]
            table, goal = (rows, 1) if out else (columns, 0)
            if layer.name in table:
                return refused(f"layer {layer.name!r} is in the group twice")
            by_neuron = _by_neuron(places, roots, count)
            if by_neuron is None or (goal and by_neuron.shape[1] != goal):
                return refused(f"the neurons share what is theirs in layer {layer.name!r}")
            if out:
                table[layer.name] = by_neuron[:, 0]
            else:
                size = math.prod(getattr(module, "kernel_size", ()))
                spread = by_neuron[:, :, None] * size + np.arange(size)
                table[layer.name] = spread.reshape(count, -1)
        elif isinstance(module, NORMS) or (isinstance(module, nn.PReLU) and module.num_parameters > 1):
            by_neuron = _by_neuron(places, roots, count)
            if by_neuron is None or by_neuron.shape[1] != 1:
                return refused(f"the neurons share what is theirs in {what}")
            norms[names[module]] = by_neuron[:, 0]
        elif isinstance(module, nn.PReLU):
            continue
        elif isinstance(module, KINDS):
            return refused(f"{what} hangs on it, which is not among the layers to prune")
        else:
            return refused(f"{what} ({type(module).__name__}) hangs on it, which is not understood")
    if any(len(index) != named_rows(named, name) for name, index in rows.items()):
        return refused("the tracer does not follow all of its rows")
    if not columns:
        return refused(OUTPUTS)
    order = {layer.name: i for i, layer in enumerate(named.values())}
    computed = dict(sorted(rows.items(), key=lambda item: order[item[0]]))
    return computing, Neurons(next(iter(computed)), count, computed, columns, norms)


def named_rows(named: Mapping[nn.Module, Layer], name: str) -> int:
    """Rows of the layer of a name."""
    return next(layer.shape[0] for layer in named.values() if layer.name == name)


def _by_neuron(places: Sequence[int], roots: Sequence[int] | None, count: int) -> NDArray[np.int64] | None:
    """`[count, width]` the places of every neuron, in order; None unless each has as many, of its own."""
    if roots is None or len(places) != len(roots) or None in roots or len(places) % count:
        return None
    if len(set(places)) != len(places):
        return None
    owner, at = np.asarray(roots, dtype=np.int64), np.asarray(places, dtype=np.int64)
    if not np.array_equal(np.bincount(owner, minlength=count), np.full(count, len(places) // count)):
        return None
    return at[np.lexsort((at, owner))].reshape(count, -1)


@torch.no_grad()
def _dependence(model: nn.Module, group: Neurons, inputs: Any) -> str | None:
    """Why a group is not what the graph says, or None.

    Halves of the neurons, one for every binary digit of their numbers and its complement, so that any two are
    told apart by some: the half's columns are set to zero, its rows, biases and norms are changed, and the
    outputs must stay.
    """
    modules = {name: model.get_submodule(name) for name in (*group.layers, *group.norms)}
    saved = {
        tensor: tensor.clone()
        for module in modules.values()
        for tensor in (*module.parameters(), *module.buffers())
    }
    numbers = np.arange(group.count)
    digits = [(numbers >> d) & 1 == 1 for d in range(max(1, (group.count - 1).bit_length()))]
    generator = torch.Generator().manual_seed(0)
    try:
        for half in [part for digit in digits for part in (digit, ~digit) if part.any()]:
            _still(model, group, half)
            before = answer(model, inputs.clone())
            for name, places in (*group.rows.items(), *group.norms.items()):
                _stir(modules[name], torch.from_numpy(places[half]), generator)
            _still(model, group, half)  # a layer may be in both: its rows were stirred
            after = answer(model, inputs.clone())
            for tensor, values in saved.items():
                tensor.copy_(values)
            slack = SAME if before.dtype == torch.float64 else math.sqrt(torch.finfo(before.dtype).eps)
            off = (after - before).abs().max() / before.abs().max().clamp(min=1e-12)
            if not bool(off <= slack):
                return "outputs depend on it beyond the columns that it feeds"
    except Exception as error:  # the network does not run with other weights
        return f"it can't be tried ({type(error).__name__}: {first_line(error)})"
    finally:
        for tensor, values in saved.items():
            tensor.copy_(values)
    return None


def _still(model: nn.Module, group: Neurons, half: Mask) -> None:
    """Set the columns that some neurons of a group feed to zero, in place."""
    for name, columns in group.columns.items():
        weight = model.get_parameter(f"{name}.weight")
        keep = torch.ones(weight[0].numel(), dtype=weight.dtype, device=weight.device)
        keep[torch.from_numpy(columns[half].ravel()).to(weight.device)] = 0
        weight.mul_(keep.reshape(weight[0].shape))


def _stir(module: nn.Module, places: Tensor, generator: torch.Generator) -> None:
    """Change the rows or channels of a module at some places, in place."""
    for name in ("weight", "bias", "running_mean"):
        values = getattr(module, name, None)
        if values is not None:
            size = max(float(values.square().mean().sqrt()), 0.1)
            noise = torch.randn(len(places), *values.shape[1:], generator=generator, dtype=torch.float64)
            at = places.to(values.device)
            values[at] += (size * noise).to(values.device, values.dtype)


def least(
    scores: Sequence[NDArray[np.float64]], counts: Sequence[int] | int, gone: Sequence[Mask]
) -> list[Mask]:
    """The neurons of least score: so many of every group, or of all groups together.

    Neurons that are gone already go first; one neuron of every group stays.

    Args:
        scores: `[count]` of every group.
        counts: how many of every group; or of all groups together, whose scores are then compared.
        gone: `[count]` of every group, True where nothing of a neuron is left.

    Returns:
        `[count]` of every group, True where it goes.
    """
    ranked = [np.where(out, -np.inf, part) for part, out in zip(scores, gone, strict=True)]
    if not isinstance(counts, int):
        found = [np.zeros(len(part), dtype=bool) for part in ranked]
        for mask, part, k in zip(found, ranked, counts, strict=True):
            mask[np.argsort(part, kind="stable")[:k]] = True
        return found
    for part in ranked:  # the best neuron of a group stays
        part[len(part) - 1 - int(np.argmax(part[::-1]))] = np.inf
    flat = np.concatenate(ranked)
    chosen = np.zeros(len(flat), dtype=bool)
    chosen[np.argsort(flat, kind="stable")[:counts]] = True
    return np.split(chosen, np.cumsum([len(part) for part in ranked])[:-1])
