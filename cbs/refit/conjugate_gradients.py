"""Preconditioned conjugate gradients on a quadratic model that is known by its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PROGRESS = 5e-4
"""Relative decrease of the model a product at which it ends (Martens 2010, section 4.4)."""
LOOK_BACK = 10
"""Fewest products over which that is measured."""


@dataclass(frozen=True)
class Minimum:
    """Where conjugate gradients ended.

    Attributes:
        x: the point.
        value: `1/2 x'Ax + g'x` there, at most 0.
        Ax: the product there.
        products: how many were taken.
    """

    x: Tensor
    value: float
    Ax: Tensor
    products: int


def minimise(
    product: Callable[[Tensor], Tensor],
    g: Tensor,
    precondition: Callable[[Tensor], Tensor],
    most: int,
    enough: Callable[[], bool] = lambda: False,
) -> Minimum:
    """The least of `q(x) = 1/2 x'Ax + g'x`, from 0; it ends early when the last products brought little.

    After i products it ends if `q(x_i) < 0` and `(q(x_i) - q(x_{i-k})) / q(x_i) < k * 5e-4` with
    `k = max(10, i / 10)` (Martens 2010, "Deep learning via Hessian-free optimization", section 4.4), at a
    direction of no or negative curvature, or where a product is not finite.

    Args:
        product: `A v`, positive semidefinite.
        g: the linear part.
        precondition: `M^-1 v`, of a positive definite `M` near `A`.
        most: products.
        enough: asked after every product whether to end.
    """
    x, Ax, r = torch.zeros_like(g), torch.zeros_like(g), g.clone()
    y = precondition(r)
    d, ry = -y, float(r @ y)
    values, products = [0.0], 0
    while products < most and ry > 0:
        Ad = product(d)
        products += 1
        bend = float(d @ Ad)
        if not 0 < bend < float("inf"):
            break
        alpha = ry / bend
        x, Ax = x + alpha * d, Ax + alpha * Ad
        r = r + alpha * Ad
        y = precondition(r)
        before, ry = ry, float(r @ y)
        d = -y + (ry / before) * d
        values.append(0.5 * float(x @ (r + g)))
        k = max(LOOK_BACK, products // 10)
        if enough():
            break
        if products > k and values[-1] < 0 and (values[-1] - values[-1 - k]) / values[-1] < k * PROGRESS:
            break
    return Minimum(x, values[-1], Ax, products)
