"""The pool of a round: which survivors may go and which pruned weights may return, by a diagonal model.

Of a divergence with gradient `g` and Gauss-Newton diagonal `h`, pruning a survivor `w` costs
`1/2 h w^2 - g w` and a weight at zero that returns gains `g^2 / (2 h)`, all else unmoved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cbs.data import Samples
from cbs.network.layers import Layer, every_layer, visiting
from cbs.refit.normal_equations import FLOOR
from cbs.refit.passes import Passes
from cbs.reselection.space import Space

ENTRIES = 2**24
"""Largest number of Jacobian entries in flight."""


def diagonal(passes: Passes, vector: Tensor, samples: Samples, seed: int) -> Tensor:
    """An unbiased estimate of the Gauss-Newton diagonal, `[count]`, with a floor.

    One pass forward and one back: with random signs `z` a sample's gradient of `z' R' o` has its share of the
    matrix as its covariance, `B = R R'` being the divergence's curvature by the outputs.

    Args:
        passes: of the network.
        vector: where.
        samples: to estimate from.
        seed: of the signs.
    """
    parts = {part.name: part for part in passes.movable.parts}
    layers = [
        layer
        for layer in every_layer(passes.model)
        if (f"{layer.path}." if layer.path else "") + "weight" in parts
    ]
    by_name = {layer.name: layer for layer in layers}
    found = {
        name: torch.zeros_like(values, dtype=torch.float64) for name, values in passes.movable.base.items()
    }
    seen: list[tuple[str, Tensor, Tensor]] = []

    def visit(name: str, inputs: Tensor, outputs: Tensor) -> Tensor:
        seen.append((name, inputs.detach().clone(), outputs))
        return outputs.clone()

    signs = torch.Generator().manual_seed(seed)
    for x, known in passes.batches(samples):
        seen.clear()
        with visiting(layers, visit):
            outputs, _ = passes.run(vector, x)
        with torch.no_grad():
            z = (torch.randint(2, outputs.shape, generator=signs) * 2 - 1).to(outputs)
            column = passes.divergence.rooted(outputs.detach(), known, z)
        pulled = torch.autograd.grad(outputs, [y for _, _, y in seen], column, allow_unused=True)
        for (name, inputs, y), slope in zip(seen, pulled, strict=True):
            if slope is not None:
                layer = by_name[name]
                dot = f"{layer.path}." if layer.path else ""
                W, b = _squares(layer, inputs, y, slope, len(x))
                found[f"{dot}weight"][layer.rows] += W.reshape(layer.weight.shape)
                if f"{dot}bias" in found:
                    found[f"{dot}bias"][layer.rows] += b
    h = passes.movable.vector(found) / len(samples)
    floor = FLOOR * float(h[h > 0].mean()) if bool((h > 0).any()) else 1.0
    return h + floor


def _squares(layer: Layer, inputs: Tensor, outputs: Tensor, slope: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """`[m, n]` and `[m]` sums over samples of the squared gradients of weight and bias."""
    m, n = layer.shape
    g = layer.flatten(slope).reshape(N, -1, m)
    if g.shape[1] == 1:
        z = layer.unfold(inputs)
        flat = g[:, 0].square()
        return (flat.T @ z.square()).double(), flat.sum(dim=0).double()
    W = torch.zeros(m, n, dtype=torch.float64, device=slope.device)
    step = max(1, ENTRIES // (m * n + g.shape[1] * (m + n)))
    for start in range(0, N, step):
        z = layer.unfold(inputs[start : start + step]).reshape(-1, g.shape[1], n)
        W += (g[start : start + step].transpose(1, 2) @ z).square().sum(dim=0).double()
    return W, g.sum(dim=1).square().sum(dim=0).double()


def choose_pool(
    space: Space,
    kept: Tensor,
    vector: Tensor,
    g: Tensor,
    h: Tensor,
    largest: int,
    extra: int,
    leaving: Tensor,
) -> Tensor:
    """`[count]` the pool: survivors, the cheapest if there are too many, and the best to return.

    Args:
        space: what is decided.
        kept: `[count]` at present.
        vector: `[count]` present values.
        g: `[count]` gradient.
        h: `[count]` Gauss-Newton diagonal.
        largest: most weights of a pool, but for those of which some must go.
        extra: how many pruned ones may return, at most.
        leaving: `[labels]` how many survivors of every label have to go in any case.
    """
    pool = torch.zeros_like(kept)
    alive, gone = (kept & space.prunable).nonzero()[:, 0], (~kept & space.prunable).nonzero()[:, 0]
    extra = min(extra, len(gone), max(0, largest - int(leaving.sum())) // 2)
    room = max(largest - extra, 0)
    if room < len(alive):
        w, labels = vector[alive], space.labels[alive]
        cost = 0.5 * h[alive] * w.square() - g[alive] * w
        forced = ranks(cost, labels) < leaving[labels]
        cost = torch.where(forced, -torch.inf, cost)
        alive = alive[cost.argsort(stable=True)[: max(room, int(forced.sum()))]]
    pool[alive] = True
    gain = g[gone].square() / (2 * h[gone])
    back = gain.argsort(descending=True, stable=True)[:extra]
    pool[gone[back[gain[back] > 0]]] = True
    return pool


def ranks(cost: Tensor, labels: Tensor) -> Tensor:
    """`[count]` the place of every entry among those of its label, the cheapest first."""
    order = cost.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    first = labels.min() if len(labels) else 0
    sizes = torch.bincount(labels - first)
    starts = sizes.cumsum(0) - sizes
    found = torch.empty_like(labels)
    found[order] = torch.arange(len(labels), device=labels.device) - starts[(labels - first)[order]]
    return found
