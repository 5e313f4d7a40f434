"""Weights that were pruned before: a network that comes with masks keeps them, and is pruned further.

What a user's `torch.nn.utils.prune` mask has taken out stays out: it counts as pruned, and never moves. Zeros
without a mask are weights like any others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from cbs.network.layers import Layer
from cbs.request import Request
from solvers import Budget
from solvers.budget import Pools
from solvers.hessian import Array
from solvers.problem import Mask


def check_earlier(request: Request, layers: Sequence[Layer], earlier: Sequence[Mask]) -> None:
    """Refuse a budget that earlier masks exceed.

    Args:
        request: what is asked.
        layers: of the network.
        earlier: `[m, n]` of every layer, True where pruned before.

    Raises:
        ValueError: naming the layer, or the network.
    """
    if request.pooled:
        _require_room(
            request, "the network", _joined(request, layers), np.concatenate([*map(np.ravel, earlier)])
        )
        return
    for layer, mask in zip(layers, earlier, strict=True):
        pools, name = request.layer_budget(layer).laid_over(*layer.shape), f"layer {layer.name!r}"
        if pools.coupled and (mask.any(axis=0) != mask.all(axis=0)).any():
            raise ValueError(
                f"{name} comes with a mask that is not one of whole columns, which budget 'columns' can't "
                "keep; make it permanent first (torch.nn.utils.prune.remove)"
            )
        _require_room(request, name, pools, pools.decisions(mask))


def pruned_before(request: Request, layers: Sequence[Layer], earlier: Sequence[Mask]) -> float:
    """The fraction pruned before: of the pool of the budget where it is largest.

    Args:
        request: what is asked.
        layers: of the network.
        earlier: `[m, n]` of every layer, True where pruned before.
    """
    if request.pooled:
        return float(np.concatenate([*map(np.ravel, earlier)]).mean())
    largest = 0.0
    for layer, mask in zip(layers, earlier, strict=True):
        pools = request.layer_budget(layer).laid_over(*layer.shape)
        counts = np.bincount(pools.labels.ravel(), weights=pools.decisions(mask).ravel())
        largest = max(largest, float((counts / pools.sizes).max()))
    return largest


def _require_room(request: Request, what: str, pools: Pools, earlier: NDArray[np.bool_]) -> None:
    counts = np.bincount(pools.labels.ravel(), weights=earlier.ravel(), minlength=len(pools.prune))
    over = np.flatnonzero(counts > pools.prune)
    if len(over):
        p = over[0]
        raise ValueError(
            f"sparsity {request.fraction:g} with budget {request.budget!r} prunes {pools.prune[p]} of "
            f"{pools.sizes[p]}, but {what} comes with a mask that has {counts[p]:.0f} of them pruned; ask "
            "for more, or make the mask permanent first (torch.nn.utils.prune.remove)"
        )


def keep_out(mask: Mask, earlier: Mask, pools: Pools, W: Array) -> Mask:
    """A mask that prunes what was pruned before, in exchange for the largest weights of the same pools.

    In the joint variant that costs nothing: a weight pruned before is zero and moves nothing, and a mask that
    prunes fewer of the others never costs more.

    Args:
        mask: `[m, n]`, meets the budget.
        earlier: `[m, n]`, True where pruned before.
        pools: of the budget.
        W: `[m, n]` weights.
    """
    missing = pools.decisions(earlier & ~mask)
    if not missing.any():
        return mask
    chosen, size = pools.decisions(mask) | missing, np.square(W)
    if pools.coupled:
        size = size.sum(axis=0, keepdims=True)
    for pool in np.unique(pools.labels[missing]):
        inside = pools.labels == pool
        others = np.flatnonzero((inside & chosen & ~pools.decisions(earlier)).ravel())
        back = others[np.argsort(-size.ravel()[others], kind="stable")][: int((missing & inside).sum())]
        chosen.ravel()[back] = False
    return pools.expand(chosen, len(mask))


def staying(G: Array, H: Array, earlier: Mask) -> Array:
    """A gradient by which weights pruned before stay at zero under a curvature in which they would move.

    Without masks row r moves to `w - H^-1 g`. With `g_E = H_ES (H_SS)^-1 g_S` of the weights E that were
    pruned before, in terms of the others S, that point is zero in E and in S as if E were not there. A mask
    that prunes E then costs what it would without these weights, and any other that adds to it no less.

    Args:
        G: `[rows, columns]`; what it says of weights pruned before does not count.
        H: `[columns, columns]`, of all rows.
        earlier: `[rows, n]`, True where pruned before; further columns never are.
    """
    out = G.copy()
    gone = np.pad(earlier, ((0, 0), (0, H.shape[1] - earlier.shape[1])))
    for g, E in zip(out, gone, strict=True):
        if E.any():
            factor = scipy.linalg.cho_factor(H[np.ix_(~E, ~E)])
            g[E] = H[np.ix_(E, ~E)] @ scipy.linalg.cho_solve(factor, g[~E])
    return out


def keep_all_out(
    request: Request,
    layers: Sequence[Layer],
    masks: Sequence[Mask],
    earlier: Sequence[Mask],
    W: Sequence[Array],
) -> list[Mask]:
    """`keep_out` of layers that share one budget."""
    flat = [np.concatenate([part.ravel() for part in parts])[None, :] for parts in (masks, earlier, W)]
    found = keep_out(flat[0], flat[1], _joined(request, layers), flat[2])
    parts = np.split(found[0], np.cumsum([mask.size for mask in masks])[:-1])
    return [part.reshape(mask.shape) for part, mask in zip(parts, masks, strict=True)]


def _joined(request: Request, layers: Sequence[Layer]) -> Pools:
    return Budget.per_layer(request.network_count(layers)).laid_over(1, sum(layer.size for layer in layers))
