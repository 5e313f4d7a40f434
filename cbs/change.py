"""A layer's parameters as matrices of numbers, and what a pruning makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from cbs.network.layers import Layer
    from solvers.hessian import Array
    from solvers.problem import Mask


@dataclass(frozen=True)
class Weights:
    """A layer's parameters as solvers see them: `W [m, n]` and `bias [m]` or None, double precision."""

    W: Array
    bias: Array | None

    @property
    def augmented(self) -> Array:
        """`[m, n]`, or `[m, n + 1]` with the bias as the last column."""
        return self.W if self.bias is None else np.column_stack([self.W, self.bias])


@dataclass(frozen=True)
class Change:
    """What becomes of a layer: a mask `[m, n]`, True where pruned, and the parameters after pruning."""

    mask: Mask
    weights: Weights


def array(values: Tensor) -> Array:
    """A tensor as a double-precision array of its own."""
    return np.array(values.detach().cpu().double().numpy())


def layer_weights(layer: Layer) -> Weights:
    """A layer's present parameters; no bias where it stays as it is."""
    bias = layer.bias
    return Weights(array(layer.weight).reshape(layer.shape), None if bias is None else array(bias))
