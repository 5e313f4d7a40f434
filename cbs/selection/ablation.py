"""Ablation: what a weight matters, measured by taking it away, its bias making up for its mean.

The non-linear rule of elimination-compensation (Ballini et al. 2026), with the project's factor one half:

    I_ij = 1/2 E sum_k (y_k - y_k | W_ij <- 0, b_i <- b_i + W_ij E[z_j])^2

One pass over the data for every weight. Taking a weight away moves its row's output by
`-W_ij (z_j - E[z_j])`, and nothing before it: many copies of a batch, each with another weight gone, run
through what comes after the layer at once. In a plain chain of modules that is all that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.base import Gram
from cbs.curvature.output_gram import require_samples_first
from cbs.curvature.outputs import OutputDiagonal
from cbs.data.nested import repeated, same
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.selection.base import Job
from cbs.watch import HEARTBEAT

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from solvers.hessian import Array
    from solvers.hessian.base import Index

CHUNK = 2**21
"""Largest number of activations, of the widest module, in flight."""
LIMIT = 1.5e12
"""Multiplications, about, beyond which a network is refused: some minutes on one core."""
SPEED = 6e9
"""Of these in a second, about."""
ELEMENTWISE = 16
"""What an activation costs, in multiplications."""


def ablation_scores(job: Job, model: Quadratic) -> Array:
    """`I [m, n]` of a layer, measured once for a network, on as many samples as per-sample gradients are.

    When the run is stopped, or its time is up, weights not come to get the score of the rule `elimination`,
    which is the same quantity to first order.

    Args:
        job: the run.
        model: the layer's, on any curvature: what is measured does not depend on it.
    """
    index, network = model.index[0], job.network
    key = ("ablation", index)
    measured = np.full(network.layers[index].shape, np.nan)
    if key in network.memo or not job.watch.control.stopped():
        try:
            return network.memo(key, lambda: _measure(job, model, measured))
        except _Stopped:
            pass
    linear = network(OutputDiagonal())[index]
    job.stats["ablation"] = {
        "measured": job.stats.get("ablation", {}).get("measured", 0) + int(np.isfinite(measured).sum()),
        "rest": "by the linear rule, as the run was stopped",
    }
    return np.where(np.isfinite(measured), measured, 0.5 * linear.diagonal * network.dense[index].W ** 2)


class _Stopped(Exception):
    """The run is to end before all weights are measured."""


def _measure(job: Job, model: Quadratic, found: Array) -> Array:
    """Fill in `found [m, n]`, and return it.

    Raises:
        _Stopped: when the run is to end.
    """
    network, index = job.network, model.index[0]
    wide, layers, samples = network.differentiable()
    samples = samples.choose(network.gradients, network.seed)
    gram = model if isinstance(job.curvature, Gram) else network(Gram())[index]
    means, W = _means(gram), network.dense[index].W
    ahead = _Ahead(wide, layers[index])
    told, sums = time.perf_counter(), np.zeros(W.shape)
    spread = np.zeros(W.shape[1])
    for inputs, _ in samples.batches():
        Z, _ = ahead.start(inputs)
        spread = np.maximum(
            spread, array((Z.double() - torch.from_numpy(means).to(Z.device)).abs().amax(dim=(0, 1)))
        )
    gone = np.argwhere((W != 0.0) & (spread > 1e-12 * (1.0 + np.abs(means))) & ~network.earlier[index])
    found[:] = np.where(np.isin(np.arange(W.size), gone @ [W.shape[1], 1]).reshape(W.shape), np.nan, 0.0)
    size = max(1, CHUNK // (ahead.widest * min(len(samples), samples.batch, 500)))
    if (
        ahead.tail is None
    ):  # copies of a batch would be given to the whole network, which may not take so much
        size = 1
    for part in np.array_split(gone, -(-len(gone) // size)) if len(gone) else []:
        rows, columns = part[:, 0], part[:, 1]
        for inputs, _ in samples.batches():
            if job.watch.control.stopped():
                raise _Stopped
            if time.perf_counter() - told > HEARTBEAT:
                told = time.perf_counter()
                job.watch.tell("select", model.name, index)
            sums[rows, columns] += ahead.moved(inputs, rows, columns, W[rows, columns], means[columns])
        found[rows, columns] = 0.5 * sums[rows, columns] / len(samples)
    return found


def _means(model: Quadratic) -> Array:
    """`E[z_j]`, the bias column of a layer's Gram; zeros without a bias that could make up for them."""
    if not model.bias:
        return np.zeros(model.n)
    assert isinstance(model.H, np.ndarray)
    return np.asarray(model.H[-1, : model.n] / model.H[-1, -1])


class _Ahead:
    """What runs after a layer.

    Args:
        model: the network, in evaluation mode.
        layer: of it.
    """

    def __init__(self, model: nn.Module, layer: Layer) -> None:
        self.model, self.layer = model, layer
        self.tail = _tail(model, layer)
        self.widest = 1
        self._batch: tuple[Any, Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def start(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The layer's unfolded inputs `[B, positions, n]`, of all its runs, and the outputs `[B, k]`."""
        if self._batch is None or not same(self._batch[0], inputs):
            seen: list[tuple[Tensor, Tensor]] = []
            with visiting([self.layer], lambda name, x, y: seen.append((x.clone(), y.clone()))):
                outputs = answer(self.model, inputs.clone()).flatten(1)
            for x, _ in seen:
                require_samples_first(self.layer, x, len(inputs))
            y = seen[0][1]
            unfolded = [self.layer.unfold(x).reshape(len(inputs), -1, self.layer.shape[1]) for x, _ in seen]
            Z = torch.cat(unfolded, dim=1)
            self.widest = max(self.widest, y[0].numel(), Z.shape[1] * self.layer.shape[0])
            if self.tail is None:
                self.widest = max(self.widest, _sizes(self.model, inputs[:1]))
            self._batch = inputs.clone(), Z, y, outputs
        return self._batch[1], self._batch[3]

    @torch.no_grad()
    def moved(self, inputs: Any, rows: Index, columns: Index, weights: Array, means: Array) -> Array:
        """`sum_samples |dy|^2` for each of some weights that is taken away.

        Args:
            inputs: `[B, ...]` of the network.
            rows: of the weights.
            columns: of the weights.
            weights: their values.
            means: of their inputs.
        """
        Z, outputs = self.start(inputs)
        assert self._batch is not None
        y, count = self._batch[2], len(rows)
        w, zeta = (torch.from_numpy(v).to(Z.device, Z.dtype) for v in (weights, means))
        at = torch.from_numpy(rows).to(Z.device)

        def nudged(out: Tensor, Z: Tensor) -> Tensor:
            """The layer's outputs `[R * B, ...]` with copy r's weight gone, from its unfolded inputs."""
            delta = w[:, None, None] * (Z - zeta[:, None, None])
            copies = out.reshape(count, len(inputs), *out.shape[1:])
            conv = self.layer.places > 0
            flat = (
                copies.flatten(3)
                if conv
                else copies.reshape(*copies.shape[:2], -1, copies.shape[-1]).transpose(2, 3)
            )
            flat = flat.clone()
            flat[torch.arange(count, device=at.device), :, at] -= delta
            back = flat if conv else flat.transpose(2, 3)
            return back.reshape(out.shape)

        if self.tail is not None:
            picked = Z[:, :, torch.from_numpy(columns).to(Z.device)].permute(2, 0, 1)
            after = self.tail(nudged(y.repeat(count, *([1] * (y.ndim - 1))), picked))
        else:

            def visit(name: str, x: Tensor, out: Tensor) -> Tensor:
                own = self.layer.unfold(x).reshape(count, len(inputs), -1, self.layer.shape[1])
                index = torch.from_numpy(columns).to(Z.device)
                picked = own[torch.arange(count, device=index.device), :, :, index]
                return nudged(out, picked)

            with visiting([self.layer], visit):
                after = answer(self.model, repeated(inputs, count))
        change = after.reshape(count, *outputs.shape) - outputs
        return array(change.double().square().sum(dim=(1, 2)))


def _tail(model: nn.Module, layer: Layer) -> Callable[[Tensor], Tensor] | None:
    """The modules after a layer in a chain of them, or None if the network is something else."""
    chain = _chain(model)
    if chain is None or layer.blocks > 1 or sum(module is layer.module for module in chain) != 1:
        return None
    at = next(i for i, module in enumerate(chain) if module is layer.module)
    return nn.Sequential(*chain[at + 1 :])


def _chain(model: nn.Module) -> list[nn.Module] | None:
    """The modules of a plain, perhaps nested, `nn.Sequential` without hooks, one after the other."""
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return None
    found: list[nn.Module] = []
    for module in model:
        inner = _chain(module) if isinstance(module, nn.Sequential) else [module]
        if inner is None:
            return None
        found += inner
    return found


def _work(model: nn.Module, x: Any) -> dict[nn.Module, tuple[int, int]]:
    """What every module without parts does for one sample: multiplications, and activations."""
    found: dict[nn.Module, tuple[int, int]] = {}

    def hook(module: nn.Module, args: object, y: object) -> None:
        if isinstance(y, Tensor):
            weight = getattr(module, "weight", None)
            fan = weight[0].numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 0
            before = found.get(module, (0, 0))
            found[module] = before[0] + y.numel() * fan, before[1] + y.numel()

    handles = [m.register_forward_hook(hook) for m in model.modules() if not any(m.children())]
    try:
        with torch.no_grad():
            answer(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _sizes(model: nn.Module, x: Any) -> int:
    """Most activations of a module for one sample."""
    return max((size for _, size in _work(model, x).values()), default=1)


def too_much(network: Network) -> str | None:
    """Why measuring every weight of a network would take too long, or None."""
    work = _work(network.model, network.samples.first(1))
    chain = _chain(network.model)
    total = 0.0
    for layer in network.layers:
        parts = list(work)
        if chain is not None and layer.module in chain:
            parts = [module for module in chain[chain.index(layer.module) :] if module in work]
        cost = sum(work[part][0] + ELEMENTWISE * work[part][1] for part in parts)
        cost -= work[layer.module][0] if chain is not None and layer.module in work else 0
        total += float(layer.size) * cost
    total *= min(len(network.samples), network.gradients)
    if total <= LIMIT:
        return None
    return (
        f"takes a pass over the data for each of {sum(layer.size for layer in network.layers)} weights, "
        f"about {total / SPEED / 60:.0f} minutes, its limit is {LIMIT / SPEED / 60:.0f}; take method "
        "'elimination', fewer `samples`, or name smaller `layers`"
    )
