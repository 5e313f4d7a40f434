"""One rule a module type: how diagonal second derivatives go back from a module's outputs to its inputs.

A module `y = M(x)` has inputs that are taken not to interact: of `d2E/dx_j^2` what stays is

    sum_i (dy_i/dx_j)^2 d2E/dy_i^2 + sum_i d2y_i/dx_j^2 dE/dy_i

The first term is the Levenberg-Marquardt form (Gauss-Newton of diagonals), the second that of `f''` (LeCun et
al. 1990, section 3). Every module here is of one of four kinds, by its Jacobian `dy_i/dx_j`: `elementwise`,
diagonal; `selecting`, zeros and ones with a single one a row; `averaging`, the same in all of a window;
`weighted`, its weights.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Run = Callable[[Tensor], Tensor]
INSTEAD = "take method 'obd', which needs no rules"


class NoRule(ValueError):
    """A network that the rules can't go back through: why, in words that follow a method's name."""


ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Tanh, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.BatchNorm1d, nn.BatchNorm2d,
)  # fmt: skip
"""Modules that act on every entry by itself; a normalisation does with running statistics."""
SELECTING: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
    nn.MaxPool1d, nn.MaxPool2d,
)  # fmt: skip
"""Modules each of whose outputs is one of the inputs, in evaluation mode."""
AVERAGING: tuple[type[nn.Module], ...] = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
"""Modules each of whose outputs is a mean over a window."""
WEIGHTED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Modules whose outputs are weighted sums."""

ELEMENTWISE_CALLS: tuple[Any, ...] = (
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.tanh, F.sigmoid, F.logsigmoid,
    torch.relu, torch.tanh, torch.sigmoid, operator.neg, operator.mul, operator.truediv,
    "relu", "relu_", "tanh", "sigmoid", "mul", "div", "neg",
)  # fmt: skip
"""Functions, and methods of tensors by name, that act on every entry of their one tensor by itself."""
SELECTING_CALLS: tuple[Any, ...] = (
    torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, operator.getitem,
    F.max_pool2d, torch.max_pool2d,
    "flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze", "permute", "transpose",
)  # fmt: skip
"""Likewise that select."""
SUMS: tuple[Any, ...] = (
    operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub,
    "add", "add_", "sub", "sub_",
)  # fmt: skip
"""Likewise that add two tensors, or take one from the other: residual sums."""


def elementwise(run: Run, x: Tensor, h: Tensor, g: Tensor | None) -> Tensor:
    """`f'(x)^2 h + f''(x) g`; without the second term where no `g` is given.

    Args:
        run: the function f, which may work in place.
        x: its inputs.
        h: second derivatives by its outputs.
        g: first derivatives by its outputs, or None.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(run(x.clone()).sum(), x, create_graph=g is not None)
        if h.shape != x.shape:
            sizes = f"{list(x.shape)} to {list(h.shape)}"
            raise NoRule(f"has no rule of the recursion for entries that are repeated, {sizes}; {INSTEAD}")
        found = slope.detach().square() * h
        if g is None or not slope.requires_grad:
            return found
        (bend,) = torch.autograd.grad(slope.sum(), x, allow_unused=True)
    return found if bend is None else found + bend * g


def selecting(run: Run, x: Tensor, h: Tensor, g: Tensor | None = None) -> Tensor:
    """`h` where the outputs came from, added up where one input is several outputs."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(run(x.clone()), x, h)
    return found


def averaging(run: Run, x: Tensor, h: Tensor, share: Tensor | float) -> Tensor:
    """`sum_o c_o^2 h_o` over the windows o that an input is in; `share` is `c_o`, as the outputs are."""
    return selecting(run, x, h * share)


def weighted(module: nn.Module, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """By the inputs `sum_i w_ij^2 h_i`; by the weights `sum h_i x_j^2`, over samples and places.

    Both are the gradients of the module run with squared weights on squared inputs.
    """
    with torch.enable_grad():
        squares = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
        squares["weight"] = module.get_parameter("weight").detach().square().requires_grad_()
        x = x.detach().square().requires_grad_()
        found = torch.autograd.grad(functional_call(module, squares, (x,)), [x, squares["weight"]], h)
    return found[0], found[1]


def window_shares(module: nn.Module, x: Tensor) -> Tensor:
    """What an `AVERAGING` module multiplies the entries of each window with, `[1, 1, height, width]`."""
    ones = x.new_ones(1, 1, *x.shape[-2:])
    if isinstance(module, nn.AvgPool2d):
        counts = F.avg_pool2d(
            ones, module.kernel_size, module.stride, module.padding, module.ceil_mode, divisor_override=1
        )
        return torch.as_tensor(module(ones) / counts)
    sizes = zip(x.shape[-2:], module(ones).shape[-2:], strict=True)
    rows, columns = (
        [-(-(i + 1) * size // places) - i * size // places for i in range(places)] for size, places in sizes
    )
    return 1 / torch.outer(x.new_tensor(rows), x.new_tensor(columns))[None, None]
