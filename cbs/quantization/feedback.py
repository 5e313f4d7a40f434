"""Rounding with error feedback on the layer Gram: GPTQ, which is Optimal Brain Quantization in a fixed order.

Weights are rounded one column after another, and what rounding one of them moves the layer's output by, those
that are still free make up for as well as they can (Frantar and Alistarh 2022; Frantar et al. 2023). With `U`
upper triangular and `U'U = H^-1`, rounding column `j` to `q` moves the later ones by `-(w_j - q) U_j,> /
U_jj`.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from cbs.quantization.grid import Codes, Grid
from solvers.hessian import Array
from solvers.problem import Mask


def round_with_feedback(
    W: Array, bias: Array | None, H: Array, pruned: Mask, grid: Grid
) -> tuple[Codes, Array | None]:
    """Codes `[m, n]` of a layer's weights, and its bias, which is not rounded and makes up for the rest.

    Columns go in the order of falling `H_jj`: the largest first, while many are free to make up for them.
    Pruned weights are zero and take no part: rows with masks of their own have inverses of their own,
    `O(k^3)` for the `k` weights that they keep.

    Args:
        W: `[m, n]` weights.
        bias: `[m]`, or None if it does not move.
        H: `[n, n]` curvature, or `[n + 1, n + 1]` with a bias as its last column.
        pruned: `[m, n]`, True where pruned.
        grid: to round to.

    Raises:
        ValueError: if `H` is singular.
    """
    m, n = W.shape
    codes = np.zeros((m, n), dtype=np.uint8)
    moved = None if bias is None else bias.copy()
    order = np.argsort(-np.diagonal(H)[:n], kind="stable")
    supports, which = np.unique(pruned, axis=0, return_inverse=True)
    for g, mask in enumerate(supports):
        rows, kept = np.flatnonzero(which.ravel() == g), order[~mask[order]]
        if not len(kept):
            continue
        used = kept if bias is None else np.append(kept, n)
        V = W[rows][:, kept] if bias is None else np.column_stack([W[rows][:, kept], bias[rows]])
        own = grid if len(grid.low) == 1 else Grid(grid.low[rows], grid.step[rows], grid.bits)
        codes[np.ix_(rows, kept)] = _rounded(V, _factor(H[np.ix_(used, used)]), len(kept), own)
        if moved is not None:
            moved[rows] = V[:, -1]
    return codes, moved


def _factor(H: Array) -> Array:
    """`U`, upper triangular with `U'U = H^-1`.

    Raises:
        ValueError: if `H` is singular.
    """
    try:
        L = scipy.linalg.cholesky(H[::-1, ::-1], lower=True)
    except np.linalg.LinAlgError:
        raise ValueError("damping must be positive for rounding 'feedback' on a singular Gram") from None
    # H = R R' with R = (L reversed) upper triangular, so H^-1 = R^-T R^-1, and U = R^-1
    R = np.ascontiguousarray(L[::-1, ::-1])
    return np.asarray(scipy.linalg.solve_triangular(R, np.eye(len(R)), lower=False))


def _rounded(V: Array, U: Array, count: int, grid: Grid) -> Codes:
    """Codes of the first `count` columns of `V [rows, columns]`, in place: the other columns have moved."""
    codes = np.zeros((len(V), count), dtype=np.uint8)
    levels = np.broadcast_to(grid.levels, (len(V), 2**grid.bits))
    rows = np.arange(len(V))
    for j in range(count):
        codes[:, j] = grid.nearest(V[:, j : j + 1])[:, 0]
        error = (V[:, j] - levels[rows, codes[:, j]]) / U[j, j]
        V[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
    return codes
