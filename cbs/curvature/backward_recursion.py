"""Optimal Brain Damage's backward recursion: the Hessian's diagonal in one pass (LeCun et al. 1990).

The network's graph of modules is found by symbolic tracing (`torch.fx`), run forward on a batch, and gone
back through by the rules of `cbs.curvature.rules`. Where a value goes several ways, as around a residual sum,
what comes back from each is added up, as for a unit that feeds several others.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.func import jacrev, vmap
from torch.nn import functional as F

from cbs.change import array
from cbs.curvature import rules
from cbs.curvature.each import Each, differentiating, gradients
from cbs.data import Samples, first_line
from cbs.memory import at_once
from cbs.network.answers import answer
from cbs.network.evaluate import SAME
from cbs.network.layers import Layer
from cbs.network.leaves import Leaves
from cbs.network.losses import Loss, sample_losses, single_loss
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

CHUNK = 2**24
"""Largest number of entries of the loss's Hessians by a batch's outputs."""
WIDEST = 8_192
"""Most outputs of a sample: the loss's curvature by them is found as a dense matrix."""
ASKED = ("shape", "ndim", "dtype", "device", "size", "dim", "numel")
"""What may be asked of a value without using it."""


def network_recursion(network: Network, second: bool) -> list[Array]:
    """Every layer's `h [m, n]` by the recursion, with the terms in `f''` or without.

    Raises:
        ValueError: if a module has no rule, or the loss no second derivatives.
    """
    model, layers, samples = network.differentiable()
    found = recursion(model, layers, samples, network.loss, second=second)
    return network.checked([array(found[layer.name]) for layer in network.layers])


def why_not(network: Network) -> str | None:
    """Why the recursion can't go through a network, in words that follow a method's name; None if it can."""
    samples = network.samples
    for name in network.composite:
        if type(network.model.get_submodule(name)) not in rules.WEIGHTED:
            return f"has no rule of the recursion for {name!r}, which is no single matrix; {rules.INSTEAD}"
    try:
        graph = Graph(network.model, network.layers)
        with torch.no_grad():
            outputs = answer(network.model, samples.first(2))
            values = graph.run(samples.first(2))
            graph.back(values, torch.ones_like(outputs), {})
    except rules.NoRule as error:
        return str(error)
    except Exception as error:
        return f"can't follow the network module by module ({first_line(error)}); {rules.INSTEAD}"
    if not torch.allclose(values[graph.output], outputs, rtol=0, atol=SAME * float(outputs.abs().max())):
        return f"can't follow the network by its modules: its answer is then another; {rules.INSTEAD}"
    if outputs[0].numel() > WIDEST:
        size = outputs[0].numel()
        return f"takes the loss's curvature by {size} outputs, its limit is {WIDEST}; take another method"
    return None


def recursion(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss, *, second: bool
) -> dict[str, Tensor]:
    """`1/N sum_s d2E_s/dw_ij^2`, by the recursion's diagonal approximation, see `RecursionDiagonal`.

    It starts with the exact diagonal of the loss's Hessian by the outputs: 2 for a squared error, `p (1 - p)`
    for softmax and cross entropy.

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.
        second: whether the terms in `f''` are part of it; without them negative parts of the loss's own
            curvature are left out too.

    Returns:
        For every layer's name a tensor `[m, n]`, in double precision; zero where a layer is not run.

    Raises:
        ValueError: if a module has no rule, or the loss no second derivatives.
    """
    graph = Graph(model, layers)
    Leaves(layers)  # whose values are then live
    with torch.no_grad():
        outputs = answer(model, samples.first(1)).numel()
    found = {layer.name: torch.zeros(layer.shape, dtype=torch.float64) for layer in layers}
    diagonal = loss_diagonal(loss)
    for inputs, targets in samples.batches(max(1, at_once(CHUNK) // outputs**2)):
        with differentiating(), torch.enable_grad():
            values = graph.run(inputs)
            slopes = {}
            if second:
                total = sample_losses(loss, values[graph.output], targets).sum()
                slopes = dict(zip(graph.live, gradients(total, [values[n] for n in graph.live]), strict=True))
        h = diagonal(values[graph.output].detach(), targets)
        for name, part in graph.back(values, h if second else h.clamp(min=0), slopes).items():
            found[name] += part.reshape(found[name].shape).double().cpu()
    return {name: part / len(samples) for name, part in found.items()}


def loss_diagonal(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The diagonal of the loss's Hessian by the outputs of each sample, a function of outputs and targets."""

    def one(output: Tensor, target: Tensor) -> Tensor:
        H = jacrev(jacrev(lambda o: single_loss(loss, o[None], target[None])))(output)
        return torch.diagonal(H.reshape(output.numel(), -1)).reshape(output.shape)

    def alone(output: Tensor, target: Tensor) -> Tensor:
        point = output.detach().requires_grad_()
        value = single_loss(loss, point, target)
        if not value.requires_grad:
            return torch.zeros_like(output[0])
        (slope,) = torch.autograd.grad(value, point, create_graph=True)
        rows = [gradients(each, [point])[0].reshape(-1)[i] for i, each in enumerate(slope.reshape(-1))]
        return torch.stack(rows).reshape(output.shape[1:])

    return Each(vmap(one), alone)


class Graph:
    """A network as a graph of modules and functions: run forward with all values kept, and gone back through.

    Args:
        model: network in evaluation mode.
        layers: those whose second derivatives are wanted.

    Raises:
        ValueError: if it can't be traced, or a module between a layer and the loss has no rule.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        lone = type(model) in rules.WEIGHTED  # tracing looks into the outermost module
        model = nn.Sequential(model) if lone else model
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:
            raise rules.NoRule(
                f"can't follow the network module by module ({first_line(error)}); {rules.INSTEAD}"
            ) from error
        self.model = model
        self.layers: dict[str, list[Layer]] = {}
        for layer in layers:
            self.layers.setdefault("0" if lone else layer.path, []).append(layer)
        (end,) = (node for node in graph.nodes if node.op == "output")
        self.nodes = [node for node in graph.nodes if node.op != "output"]
        self.output = end.args[0]
        self.live: list[fx.Node] = []
        """Values that depend on a layer's weights, in running order."""
        if not isinstance(self.output, fx.Node):
            raise rules.NoRule(f"takes a network with a single output, not {self.output!r}; {rules.INSTEAD}")
        for node in self.nodes:
            if self._layer(node) or any(source in self.live for source in node.all_input_nodes):
                if (node.args[1] if node.target is getattr else node.target) in ASKED:
                    continue
                self.live.append(node)
                self._check(node)

    def _layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and node.target in self.layers

    def _check(self, node: fx.Node) -> None:
        """Refuse a value that no rule goes back through."""
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            known = rules.ELEMENTWISE + rules.SELECTING + rules.AVERAGING + rules.WEIGHTED
            if type(module) not in known:
                kind = type(module).__name__
                raise rules.NoRule(
                    f"has no rule of the recursion for module {node.target!r} ({kind}); {rules.INSTEAD}"
                )
            return
        tensors = Counter(node.all_input_nodes) & Counter(dict.fromkeys(self.live, 1))
        sources = _sources(node)
        twice = len(sources) > len(set(sources))
        if node.target in rules.SUMS and not twice and not node.kwargs:
            return
        known = (*rules.ELEMENTWISE_CALLS, *rules.SELECTING_CALLS)
        if len(tensors) == 1 and not twice and (node.target in known or _averaging(node) or _idle(node)):
            return
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
        raise rules.NoRule(f"has no rule of the recursion for {what!r} at {node.name!r}; {rules.INSTEAD}")

    def run(self, inputs: Tensor) -> dict[fx.Node, Any]:
        """The value of every node on a batch."""
        values: dict[fx.Node, Any] = {}
        waiting = [inputs]
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = waiting.pop() if waiting else node.args[0]
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(self.model)
            else:
                values[node] = self._call(node, values)
        return values

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """A node's value from others; it is given copies, which it may change in place."""

        def given(source: fx.Node) -> Any:
            value = values[source]
            return value.clone() if isinstance(value, Tensor) else value

        args, kwargs = fx.node.map_arg(node.args, given), fx.node.map_arg(node.kwargs, given)
        if node.op == "call_module":
            return self.model.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def back(self, values: dict[fx.Node, Any], h: Tensor, slopes: dict[fx.Node, Tensor]) -> dict[str, Tensor]:
        """For every layer that ran `sum_s d2E_s/dw^2`, as its weights are.

        Args:
            values: of every node, from `run`.
            h: second derivatives by the outputs.
            slopes: first derivatives by the live values; empty without the terms in `f''`.
        """
        curvature = {self.output: h}
        found: dict[str, Tensor] = {}
        for node in reversed(self.live):
            if node not in curvature:
                continue  # the outputs do not depend on it
            h = curvature.pop(node)
            if self._layer(node):
                x = values[node.all_input_nodes[0]]
                _, part = rules.weighted(self.model.get_submodule(str(node.target)), x, h)
                for layer in self.layers[str(node.target)]:
                    name, own = layer.name, layer.view(part)
                    found[name] = found[name] + own if name in found else own
            for source in node.all_input_nodes:
                if source in self.live:
                    part = self._through(node, source, values, h, slopes.get(node))
                    curvature[source] = curvature[source] + part if source in curvature else part
        return found

    def _through(
        self, node: fx.Node, source: fx.Node, values: dict[fx.Node, Any], h: Tensor, g: Tensor | None
    ) -> Tensor:
        """Second derivatives by a node's input from those by its output."""
        x = values[source]

        def run(point: Tensor) -> Tensor:
            result: Tensor = self._call(node, {**values, source: point})
            return result

        if node.op != "call_module":
            if node.target in rules.SUMS:
                return h.sum_to_size(x.shape)
            if node.target in rules.ELEMENTWISE_CALLS:
                return rules.elementwise(run, x, h, g)
            if node.target in rules.SELECTING_CALLS or _idle(node):
                return rules.selecting(run, x, h)
            return rules.averaging(run, x, h, _shares(node, x, values[node]))
        module = self.model.get_submodule(str(node.target))
        if type(module) in rules.WEIGHTED:
            return rules.weighted(module, x, h)[0]
        if type(module) in rules.ELEMENTWISE:
            return rules.elementwise(run, x, h, g)
        if type(module) in rules.AVERAGING:
            return rules.averaging(run, x, h, rules.window_shares(module, x))
        return rules.selecting(run, x, h)


def _sources(node: fx.Node) -> list[fx.Node]:
    """The nodes among a node's arguments, as often as they are given."""
    found: list[fx.Node] = []

    def note(source: fx.Node) -> fx.Node:
        found.append(source)
        return source

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def _idle(node: fx.Node) -> bool:
    """Whether a node is a dropout that drops nothing."""
    return node.target is F.dropout and node.kwargs.get("training") is False


def _averaging(node: fx.Node) -> bool:
    """Whether a node is a mean over places, or an average pooling by function."""
    return node.target in ("mean", torch.mean, F.avg_pool2d, F.adaptive_avg_pool2d)


def _shares(node: fx.Node, x: Tensor, y: Tensor) -> Tensor | float:
    """The share that every entry has in the mean that it is in."""
    pools: dict[Any, type[nn.Module]] = {
        F.avg_pool2d: nn.AvgPool2d,
        F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    }
    if (pool := pools.get(node.target)) is not None:
        return rules.window_shares(pool(*node.args[1:], **node.kwargs), x)
    return y.numel() / x.numel()
