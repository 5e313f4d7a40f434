"""All states of small groups at once: what keeping any part of a group is worth.

A state S of a group with block D and residuals q scores `h_S - t |S|`, `h_S = 1/2 q_S' w_S`, with
`w_S = (D_SS)^-1 q_S` and t the price of keeping an entry. States are numbered by their bits; number 0
keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.kernels import open_states
from solvers.hessian import Array

Index = NDArray[np.int64]


@dataclass(frozen=True)
class States:
    """The `2^s` states of B groups of one size s.

    Attributes:
        inverse: `[B, 2^s, s, s]` of `(D_SS)^-1`, zero outside S.
        w: `[B, 2^s, s]` of `(D_SS)^-1 q_S`, zero outside S.
        h: `[B, 2^s]` of `1/2 q_S' w_S`.
        logdet: sum of `log det D` over the groups; minus infinity unless all are positive definite.
    """

    inverse: Array
    w: Array
    h: Array
    logdet: float

    @classmethod
    def of(cls, D: Array, q: Array) -> States:
        """Every state of blocks `D [B, s, s]` at residuals `q [B, s]`.

        Each entry k in turn joins the states of those before it, by the bordered inverse: with
        `x = (D_SS)^-1 D_Sk` and `r = D_kk - D_kS x`, the new inverse adds `(x, -1)(x, -1)' / r`.
        """
        B, size = q.shape
        inverse, w = np.zeros((B, 1 << size, size, size)), np.zeros((B, 1 << size, size))
        h = np.zeros((B, 1 << size))
        logdet = open_states(np.ascontiguousarray(D), np.ascontiguousarray(q), inverse, w, h)
        return cls(inverse, w, h, float(logdet))

    def at(self, q: Array) -> States:
        """The same blocks at other residuals `[B, s]`."""
        B, size = q.shape
        w = (self.inverse.reshape(B, -1, size) @ q[:, :, None]).reshape(self.w.shape)
        return States(self.inverse, w, 0.5 * (w @ q[:, :, None])[..., 0], self.logdet)


@cache
def kept_by(size: int) -> NDArray[np.bool_]:
    """`[2^s, s]` which entries every state keeps."""
    return (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(bool)


@cache
def counts(size: int) -> Array:
    """`[2^s]` entries that every state keeps."""
    return np.asarray(kept_by(size).sum(axis=1), dtype=np.float64)


@cache
def entries(size: int) -> tuple[Index, Index, Array]:
    """Rows and columns of a block's lower half, diagonal first, and 1/2 on the diagonal, else 1."""
    i, j = np.tril_indices(size, -1)
    diagonal = np.arange(size)
    half = np.where(np.arange(size + len(i)) < size, 0.5, 1.0)
    return np.concatenate([diagonal, j]), np.concatenate([diagonal, i]), half
