"""All states of small groups at once: what keeping any part of a group is worth, and its derivatives.

A state S of a group with block D and residuals q scores `h_S - t |S|`, `h_S = 1/2 q_S' w_S`, with
`w_S = (D_SS)^-1 q_S` and t the price of keeping an entry. States are numbered by their bits; number 0
keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

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
        inverse, w, h = np.zeros((B, 1, size, size)), np.zeros((B, 1, size)), np.zeros((B, 1))
        logdet = 0.0
        for k in range(size):
            x = np.matmul(inverse, D[:, None, :, k, None])[..., 0]
            r = D[:, k, k, None] - np.einsum("bmi,bi->bm", x, D[:, :, k])
            if not (r > 0.0).all():
                return cls(inverse, w, h, -np.inf)
            logdet += float(np.log(r[:, -1]).sum())
            pull = (q[:, k, None] - np.einsum("bmi,bi->bm", x, q)) / r
            x[:, :, k] = -1.0
            joined = inverse + x[:, :, :, None] * (x / r[:, :, None])[:, :, None, :]
            inverse = np.concatenate([inverse, joined], axis=1)
            w = np.concatenate([w, w - pull[:, :, None] * x], axis=1)
            h = np.concatenate([h, h + 0.5 * pull * pull * r], axis=1)
        return cls(inverse, w, h, logdet)

    def at(self, q: Array) -> States:
        """The same blocks at other residuals `[B, s]`."""
        B, size = q.shape
        w = (self.inverse.reshape(B, -1, size) @ q[:, :, None]).reshape(self.w.shape)
        return States(self.inverse, w, 0.5 * (w @ q[:, :, None])[..., 0], self.logdet)

    def slopes(self) -> Array:
        """`[B, 2^s, v]` gradients of the scores in `q_1 .., D_11, D_12 .., t`.

        `h_S` has the slope w in q and `-1/2 w_i w_j` in every entry of D, so `-w_i w_j` in a pair of them.
        """
        size = self.w.shape[2]
        i, j, half = entries(size)
        kept = np.broadcast_to(counts(size), self.h.shape)[:, :, None]
        return np.concatenate([self.w, -half * self.w[:, :, i] * self.w[:, :, j], -kept], axis=2)

    def curvature(self, p: Array) -> Array:
        """`[B, v - 1, v - 1]` the scores' second derivatives in q and D, weighted by `p [B, 2^s]`.

        With `A = (D_SS)^-1` and a direction E of D: `A` in q, `-A E w` across, and `w' E A E' w`.
        """
        B, states, size = self.w.shape
        i, j, half = entries(size)
        v = size + len(i)
        weighted = (p[:, :, None, None] * self.inverse).reshape(B, states, -1).transpose(0, 2, 1)
        out = np.empty((B, v, v))
        out[:, :size, :size] = weighted.sum(axis=2).reshape(B, size, size)
        across = (weighted @ self.w).reshape(B, size, size, size)
        out[:, size:, :size] = -half[:, None] * (across[:, i, :, j] + across[:, j, :, i]).transpose(1, 0, 2)
        out[:, :size, size:] = out[:, size:, :size].transpose(0, 2, 1)
        pairs = (self.w[:, :, :, None] * self.w[:, :, None, :]).reshape(B, states, -1)
        both = (weighted @ pairs).reshape(B, size, size, size, size)
        a, b = np.ix_(range(len(i)), range(len(i)))
        corner = both[:, i[a], i[b], j[a], j[b]] + both[:, i[a], j[b], j[a], i[b]]
        corner += both[:, j[a], i[b], i[a], j[b]] + both[:, j[a], j[b], i[a], i[b]]
        out[:, size:, size:] = half[:, None] * half * corner
        return out


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
