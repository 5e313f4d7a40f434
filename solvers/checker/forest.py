"""Trees whose nodes have splits in groups: every split is verified once, then serves all its leaves.

A proof's first split encloses values, too, and its D has to be positive definite; that of others need not be
on sets that no budget allows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.checker.claims import Claim
from solvers.checker.grouped import Unfit, groups_of
from solvers.checker.leaves import complete
from solvers.checker.piece import Piece
from solvers.checker.rounding import Array
from solvers.checker.states import grouped_bounds


def grouped_leaves(
    piece: Piece, proof: Claim, vectors: NDArray[np.int64], fixings: NDArray[np.int8], *, every: bool
) -> tuple[Array, Array, Array | None]:
    """What no mask with a leaf's fixings costs less than, by splits in groups.

    Args:
        piece: the decisions.
        proof: what is claimed.
        vectors: `[L]` of every leaf, -1 for none.
        fixings: `[L, n]`, which have what the leaf's split assumes.
        every: bounds for all pruned counts are asked for too, of a tree that is a single leaf with a vector.

    Returns:
        `[L]` bounds, infinite where there is no mask; `[1, n]` a diagonal split; `[n + 1]` bounds for every
        pruned count, or None.

    Raises:
        Unfit: if a split is none, or a price not finite.
    """
    if not np.isfinite(proof.price).all():
        raise Unfit("has a price that is not finite")
    ends = np.append(0, np.cumsum(proof.crossing))
    free = piece.sizes - (fixings != 0) @ _pools(piece)
    left = piece.keep - (fixings > 0) @ _pools(piece)
    possible = ((left >= 0) & (left <= free)).all(axis=1)
    found = np.where(possible, -np.inf, np.inf)
    diagonal, curve = np.empty((1, piece.n)), None
    owners = np.append(proof.split, -1)[vectors]
    order = np.argsort(owners, kind="stable")
    first = np.searchsorted(owners[order], np.arange(len(proof.d) + 1))
    for k, (d, root) in enumerate(zip(proof.d[:, 0], proof.root, strict=True)):
        pairs = slice(ends[k], ends[k + 1])
        try:
            grouped, D = groups_of(piece, d, proof.pair[pairs], proof.cross[pairs], root, whole=k > 0)
        except Unfit as error:
            raise Unfit(f"{error} (split {k})" if k else str(error)) from None
        for group in grouped if not k else ():
            diagonal[0, group.members] = group.least
        mine = order[first[k] : first[k + 1]]
        if not len(mine):
            continue
        used, at = np.unique(vectors[mine], return_inverse=True)
        u = np.where(root == 0, proof.u[used, 0, :, 0], 0.0).astype(np.float64)[:, None, :, None]
        complete(piece, root[None], np.zeros(len(used), np.int64), u)
        u, price = u[:, 0, :, 0], proof.price[used]
        found[mine] = grouped_bounds(piece, grouped, D, u, price, at, fixings[mine], piece.keep[None])
        if every and len(vectors) == 1:
            keep, none = np.arange(piece.n, -1, -1)[:, None], np.zeros(piece.n + 1, np.int64)
            curve = grouped_bounds(piece, grouped, D, u, price, none, fixings[none], keep)
    return found, diagonal, curve


def _pools(piece: Piece) -> NDArray[np.int64]:
    """`[n, pools]` 1 where an entry is in a pool."""
    return np.repeat(np.eye(len(piece.sizes), dtype=np.int64), piece.sizes, axis=0)
