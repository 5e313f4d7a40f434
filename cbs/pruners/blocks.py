"""The empirical Fisher's blocks: the layers that a method treats as one row of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cbs.earlier import keep_out
from cbs.formulation import Weights, flat_budget
from cbs.network.network import Network
from cbs.request import Request
from solvers import Budget, FactorHessian, SubsetProblem
from solvers.hessian import Array
from solvers.problem import Mask

T = TypeVar("T", bound=np.generic)
Lift = Callable[[Mask], list[Mask]]


@dataclass(frozen=True)
class Block:
    """Some layers' weights as one row.

    Attributes:
        index: which layers of the network.
        w: `[p]` their weights, layer after layer, row after row.
        hessian: damped Fisher of these weights.
        shapes: (m, n) of every layer.
        earlier: `[p]`, True where pruned before.
    """

    index: range
    w: Array
    hessian: FactorHessian
    shapes: list[tuple[int, int]]
    earlier: Mask

    def split(self, flat: NDArray[T]) -> list[NDArray[T]]:
        """`[p]` values as matrices `[m, n]`, one a layer."""
        parts = np.split(flat.ravel(), np.cumsum([m * n for m, n in self.shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def damage(self, moved: Sequence[Weights]) -> float:
        """`1/2 D' F D` of a move of the weights, without damping."""
        D = np.concatenate([weights.W.ravel() for weights in moved]) - self.w
        return float(0.5 * np.square(self.hessian.image(D[None, :])).sum())


def blocks(network: Network, request: Request) -> list[Block]:
    """One block of all layers when they share one budget, else a block a layer."""
    if not request.pooled:
        return layer_blocks(network)
    w = np.concatenate([dense.W.ravel() for dense in network.dense])
    earlier = np.concatenate([mask.ravel() for mask in network.earlier])
    shapes = [dense.W.shape for dense in network.dense]
    return [Block(range(len(network.layers)), w, network.fisher, shapes, earlier)]


def layer_blocks(network: Network) -> list[Block]:
    """A block a layer."""
    return [
        Block(range(i, i + 1), dense.W.ravel(), network.fisher_block(i), [dense.W.shape], mask.ravel())
        for i, (dense, mask) in enumerate(zip(network.dense, network.earlier, strict=True))
    ]


def block_problem(
    network: Network, request: Request, block: Block, *, refit: bool
) -> tuple[SubsetProblem, Lift]:
    """A block's problem under the budget asked, and the way from its masks to the layers' `[m, n]`.

    Raises:
        ValueError: for columns with `refit`: rows that move together do not reduce to one row.
    """
    if request.pooled:
        budget = Budget.per_layer(request.network_count(network.layers))
        return SubsetProblem(block.w[None, :], block.hessian, budget, refit=refit), block.split
    layer = network.layers[block.index[0]]
    budget = request.layer_budget(layer)
    if budget.kind == "columns" and not refit:
        return _column_problem(block, budget), lambda mask: [np.repeat(mask, layer.shape[0], axis=0)]
    flat = flat_budget(budget, *layer.shape)
    return SubsetProblem(block.w[None, :], block.hessian, flat, refit=refit), block.split


def keep_out_of_block(problem: SubsetProblem, block: Block, mask: Mask) -> Mask:
    """A mask of a block's problem with what was pruned before."""
    earlier = block.earlier[None, :]
    if problem.pools.coupled:
        earlier = earlier.reshape(block.shapes[0])[:1]
    return keep_out(mask, earlier, problem.pools, problem.W)


def _column_problem(block: Block, budget: Budget) -> SubsetProblem:
    """Selection of columns: column j's weight is its norm `v_j`, its gradient `sum_r g_rj w_rj / v_j`."""
    m, n = block.shapes[0]
    W = block.w.reshape(m, n)
    v = np.linalg.norm(W, axis=0)
    X = np.einsum("srj,rj->sj", block.hessian.X.reshape(-1, m, n), W) / np.where(v > 0, v, 1.0)
    return SubsetProblem(v[None, :], FactorHessian(X, block.hessian.damping), budget, refit=False)
