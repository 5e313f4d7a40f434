"""What makes conjugate gradients fast: the layers' Gram factors, restricted to every row's survivors.

A row's block of the Gauss-Newton matrix is taken as `E[g_r^2] E[z z']`, `z` the layer's inputs with a one for
the bias, `g_r` the derivative of the outputs by the row's sum, times a root of the divergence's curvature:
the diagonal of Kronecker factors (Martens & Grosse 2015), without what was pruned. Everything else has its
diagonal.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.layers import Layer, visiting
from cbs.refit.movable import Part
from cbs.refit.normal_equations import FLOOR
from cbs.refit.passes import Passes

FACTORS = 2**27
"""Most entries of all factors together: 1 GiB."""
WORK = 2**40
"""Most multiplications of all their decompositions together."""
PROBES = 16
"""Fewest batches from whose gradients the diagonal is estimated, if there are as many samples."""


@dataclass(frozen=True)
class Factors:
    """Estimates of the Gauss-Newton matrix: row blocks, and the diagonal.

    Attributes:
        diagonal: `[p]` of the matrix, with a floor.
        damped: `[p]` what lambda multiplies, the diagonal and its mean: what few samples hardly see would
            move far without the mean.
        blocks: for every set of rows that are as long: their places `[rows, count]` in the vector, and
            blocks `[rows, count, count]` of the matrix.
    """

    diagonal: Tensor
    damped: Tensor
    blocks: tuple[tuple[Tensor, Tensor], ...]

    def inverse(self, damping: float) -> Inverse:
        """Of the blocks with `damping` times `damped` added to the diagonal."""
        found = []
        for places, blocks in self.blocks:
            damped = blocks + torch.diag_embed(damping * self.damped[places])
            L, info = torch.linalg.cholesky_ex(damped)
            if bool(info.any()):  # rounding: an entry at a time instead
                continue
            found.append((places, L))
        return Inverse(self.diagonal + damping * self.damped, tuple(found))


@dataclass(frozen=True)
class Inverse:
    """The inverse of damped factors, to multiply with."""

    diagonal: Tensor
    factors: tuple[tuple[Tensor, Tensor], ...]

    def __call__(self, v: Tensor) -> Tensor:
        """`M^-1 v`."""
        found = v / self.diagonal
        for places, L in self.factors:
            found[places] = torch.cholesky_solve(v[places][:, :, None], L)[:, :, 0]
        return found


def factors(passes: Passes, vector: Tensor, samples: Samples, seed: int) -> Factors:
    """Estimate blocks and diagonal in one pass, forward and back.

    The gradients of `sum_s z_s' R_s' o_s` for random signs `z` have the matrix as their covariance.

    Args:
        passes: of the network.
        vector: where.
        samples: to estimate from.
        seed: of the signs.
    """
    parts = {part.name: part for part in passes.movable.parts}
    layers = [
        Layer(name, module)
        for name, module in passes.model.named_modules()
        if (f"{name}." if name else "") + "weight" in parts and _is_plain(module)
    ]
    grams: dict[str, Tensor] = {}
    slopes: dict[str, Tensor] = {}
    counts: dict[str, int] = defaultdict(int)
    seen: dict[str, list[Tensor]] = defaultdict(list)

    def visit(name: str, inputs: Tensor, outputs: Tensor) -> Tensor:
        layer = by_name[name]
        z = inputs.detach()
        for part in layer.split(z, outputs):
            Z = layer.unfold(part)
            if layer.module.bias is not None:
                Z = torch.cat([Z, torch.ones_like(Z[:, :1])], dim=1)
            grams[name] = grams.get(name, 0.0) + (Z.T @ Z).double()
            counts[name] += len(Z)
        seen[name].append(outputs)
        return outputs.clone()

    wide = [layer for layer in layers if _affordable(passes, layers)]
    by_name = {layer.name: layer for layer in wide}
    squares = torch.zeros_like(vector)
    signs = torch.Generator().manual_seed(seed)
    small = max(1, min(samples.batch, len(samples) // PROBES))
    for x, known in passes.batches(replace(samples, batch=small)):
        seen.clear()
        with visiting(wide, visit):
            outputs, leaves = passes.run(vector, x)
        with torch.no_grad():
            z = torch.randint(2, outputs.shape, generator=signs).to(outputs) * 2 - 1
            column = passes.divergence.rooted(outputs.detach(), known, z)
        sums = [y for ys in seen.values() for y in ys]
        found = torch.autograd.grad(outputs, [*leaves.values(), *sums], column, allow_unused=True)
        whole = {
            name: torch.zeros_like(leaf) if g is None else g
            for (name, leaf), g in zip(leaves.items(), found, strict=False)
        }
        squares += passes.movable.vector(whole).square()
        rest = iter(found[len(leaves) :])
        for name, ys in seen.items():
            for _ in ys:
                g = next(rest)
                if g is not None:
                    rows = by_name[name].flatten(g).double().square().sum(dim=0)
                    slopes[name] = slopes.get(name, 0.0) + rows
    N = len(samples)
    diagonal = squares / N
    blocks: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for layer in wide:
        if layer.name not in slopes:
            continue
        A, scale = grams[layer.name] / N, slopes[layer.name] / counts[layer.name]
        dot = f"{layer.name}." if layer.name else ""
        for row, index, places in _rows(layer, parts[f"{dot}weight"], parts.get(f"{dot}bias")):
            block = float(scale[row]) * A[index[:, None], index[None, :]]
            diagonal[places] = block.diagonal()
            blocks[len(places)].append((places, block))
    floor = FLOOR * float(diagonal.mean())
    diagonal = diagonal + (floor if floor > 0 else 1.0)
    stacked = tuple(
        (torch.stack([places for places, _ in found]), torch.stack([block for _, block in found]))
        for count, found in sorted(blocks.items())
    )
    return Factors(diagonal, diagonal + diagonal.mean(), stacked)


def _is_plain(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    return isinstance(module, nn.Conv2d) and module.groups == 1 and type(module).forward is nn.Conv2d.forward


def _affordable(passes: Passes, layers: list[Layer]) -> bool:
    entries, work = 0, 0
    parts = {part.name: part for part in passes.movable.parts}
    for layer in layers:
        part = parts[(f"{layer.name}." if layer.name else "") + "weight"]
        counts = torch.bincount(part.index // layer.shape[1]) + 1
        entries += int((counts**2).sum())
        work += int((counts**3).sum()) // 3
    return 2 * entries <= FACTORS and work <= WORK


def _rows(layer: Layer, weight: Part, bias: Part | None) -> list[tuple[int, Tensor, Tensor]]:
    """For every row of which something moves: it, its inputs, and their places in the vector."""
    m, n = layer.shape
    counts = torch.bincount(weight.index // n, minlength=m).tolist()
    ends, found, own = torch.split(torch.arange(weight.count, device=weight.index.device), counts), [], None
    if bias is not None:
        own = torch.full((m,), -1, dtype=torch.long, device=weight.index.device)
        own[bias.index] = bias.start + torch.arange(bias.count, device=weight.index.device)
    for row, inside in enumerate(ends):
        index, places = weight.index[inside] % n, weight.start + inside
        if own is not None and own[row] >= 0:
            index = torch.cat([index, index.new_tensor([n])])
            places = torch.cat([places, own[row : row + 1]])
        if len(places):
            found.append((row, index, places))
    return found
