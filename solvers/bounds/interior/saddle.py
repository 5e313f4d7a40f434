"""The two relaxations as saddle functions of (z, d): values and derivatives, batched over rows.

Both are convex in the relaxed indicators `z` and concave in the split `d`; their saddle value is the
semidefinite bound.

Joint, `z` the share kept, `M = H + diag(d (1/z - 1))`, `b = H w`:

    phi(z, d) = 1/2 w'Hw - 1/2 b' M^-1 b

Selection, `z` the share pruned, `A = diag(w) H diag(w)`:

    phi(z, d) = 1/2 z'Az - c'z + 1/2 sum_i d_i z_i (1 - z_i)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from solvers.runtime.tensors import Tensor, torch


@dataclass(frozen=True)
class Derivatives:
    """Of phi at a point: `[B]` value, `[B, n]` gradients, `[B, n, n]` second derivatives."""

    value: Tensor
    z: Tensor
    d: Tensor
    zz: Tensor
    zd: Tensor
    dd: Tensor


Saddle = Callable[[Tensor, Tensor], Derivatives]


def joint(H: Tensor, B: Tensor, constant: Tensor) -> Saddle:
    """The perspective relaxation's saddle function.

    Args:
        H: `[B, n, n]` curvature.
        B: `[B, n, c]` right-hand sides `H w`; c = 1, or all the rows that share one mask and one d.
        constant: `[B]`, `1/2 w'Hw`.
    """

    def derivatives(z: Tensor, d: Tensor) -> Derivatives:
        y = 1.0 / z - 1.0
        inverse = torch.linalg.inv(H + torch.diag_embed(d * y))
        inverse = 0.5 * (inverse + inverse.mT)
        V = inverse @ B
        Q = inverse * (V @ V.mT)
        square = (V * V).sum(-1)
        slope = -d / z**2
        zz = -slope[:, :, None] * Q * slope[:, None, :] + torch.diag_embed(square * d / z**3)
        zd = -slope[:, :, None] * Q * y[:, None, :] + torch.diag_embed(-0.5 * square / z**2)
        dd = -y[:, :, None] * Q * y[:, None, :]
        value = constant - 0.5 * (B * V).sum((-2, -1))
        return Derivatives(value, 0.5 * square * slope, 0.5 * square * y, zz, zd, dd)

    return derivatives


def selection(A: Tensor, c: Tensor) -> Saddle:
    """The selection relaxation's saddle function; `A [B, n, n]`, `c [B, n]`."""

    def derivatives(z: Tensor, d: Tensor) -> Derivatives:
        Az = (A @ z[:, :, None])[:, :, 0]
        spread = z * (1.0 - z)
        value = 0.5 * (z * Az).sum(-1) - (c * z).sum(-1) + 0.5 * (d * spread).sum(-1)
        return Derivatives(
            value,
            Az - c + d * (0.5 - z),
            0.5 * spread,
            A - torch.diag_embed(d),
            torch.diag_embed(0.5 - z),
            torch.zeros_like(A),
        )

    return derivatives
