"""The two relaxations of a block as saddle functions of (z, d): values and derivatives, compiled.

Both are convex in the relaxed indicators `z` and concave in the split `d`; their saddle value is the
semidefinite bound.

Joint (perspective relaxation), `z` the share kept, `M = H + diag(d (1/z - 1))`, `b = H w`:

    phi(z, d) = 1/2 w'Hw - 1/2 b' M^-1 b

Selection (convexified quadratic), `z` the share pruned, `A = diag(w) H diag(w)`:

    phi(z, d) = 1/2 z'Az - c'z + 1/2 sum_i d_i z_i (1 - z_i)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds import stand_ins
from solvers.bounds.cholesky import factorise, inverse
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit


class Data(NamedTuple):
    """A block of one curvature, in units in which everything is of order one.

    Attributes:
        refit: joint, or selection.
        H: `[n, n]`.
        B: `[n, c]`.
        constant: as in `solvers.form.blocks.Block`.
        labels: `[n]` pool of every entry, never falling.
        counts: `[pools]` sums of z, the shares kept (joint) or pruned (selection).
    """

    refit: bool
    H: Array
    B: Array
    constant: float
    labels: NDArray[np.int64]
    counts: Array


class Derivatives(NamedTuple):
    """Of phi at a point: `[n]` gradients in z and d, `[n, n]` second derivatives; `dd` is minus phi_dd.

    Selection has a diagonal `zd`; the rest of it is left alone.
    """

    z: Array
    d: Array
    zz: Array
    zd: Array
    dd: Array


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.joint)
def joint(data, z, d, out):
    """The value of the joint phi, with the costs of the columns of B added up; derivatives into out."""
    n = len(z)
    M = data.H.copy()
    for i in range(n):
        M[i, i] += d[i] * (1.0 / z[i] - 1.0)
    factorise(M, n)
    N = inverse(M, n)
    V = N @ data.B
    P = V @ V.T
    value = data.constant
    for i in range(n):
        for c in range(V.shape[1]):
            value -= 0.5 * data.B[i, c] * V[i, c]
        steep, y = d[i] / (z[i] * z[i]), 1.0 / z[i] - 1.0
        for j in range(n):
            Q, other = N[i, j] * P[i, j], 1.0 / z[j] - 1.0
            out.zz[i, j] = -steep * d[j] / (z[j] * z[j]) * Q
            out.zd[i, j] = steep * other * Q
            out.dd[i, j] = y * other * Q
        out.zz[i, i] += P[i, i] * steep / z[i]
        out.zd[i, i] -= 0.5 * P[i, i] / (z[i] * z[i])
        out.z[i] = -0.5 * P[i, i] * steep
        out.d[i] = 0.5 * P[i, i] * y
    return value


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.selection)
def selection(data, z, d, out):
    """The value of the selection phi; derivatives into out."""
    n, A, c = len(z), data.H, data.B
    value = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += A[i, j] * z[j]
            out.zz[i, j] = A[i, j]
            out.dd[i, j] = 0.0
        out.zz[i, i] -= d[i]
        out.zd[i, i] = 0.5 - z[i]
        out.z[i] = total - c[i, 0] + d[i] * (0.5 - z[i])
        out.d[i] = 0.5 * z[i] * (1.0 - z[i])
        value += z[i] * (0.5 * total - c[i, 0]) + d[i] * out.d[i]
    return value
