"""Derivatives sample by sample: all of a batch at once by `torch.func.vmap`, or one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples, first_line
from cbs.data.nested import pieces
from cbs.network.answers import answer, twice

Derivative = Callable[[Any, Any], Tensor]

ALIKE = 1e-3
"""Largest difference of a sample's answers alone and in a batch, relative to the largest output."""
WITHOUT = "take scope 'row' or 'layer' with method 'magnitude' or 'joint'"
"""What to do where there are no gradients."""


class Each:
    """A derivative of every sample of a batch, stacked.

    What `vmap` can't follow (recurrent modules, values taken out of tensors, checkpoints, autograd functions
    of one's own) is done one sample at a time: slower, but right.

    Args:
        together: the derivatives of inputs `[B, ...]` and targets `[B, ...]`, by `vmap`.
        alone: that of one sample, inputs `[1, ...]` and targets `[1, ...]`, by plain autograd.
    """

    def __init__(self, together: Derivative, alone: Derivative) -> None:
        self.together: Derivative | None = together
        self.alone = alone

    def __call__(self, inputs: Any, targets: Any) -> Tensor:
        """`[B, ...]`.

        Raises:
            ValueError: if a sample has no derivative.
        """
        if self.together is not None:
            try:
                with torch.no_grad(), _quietly():
                    return self.together(inputs.clone(), targets.clone())
            except Exception:
                self.together = None
        pairs = zip(pieces(inputs, 1), pieces(targets, 1), strict=True)
        with differentiating(), torch.enable_grad():
            return torch.stack([self.alone(x.clone(), y.clone()).detach() for x, y in pairs])


@contextmanager
def differentiating() -> Iterator[None]:
    """Say in one line that there are no gradients, as of a network that overwrites what they need.

    Raises:
        ValueError: instead of autograd's error.
    """
    try:
        with twice():
            yield
    except Exception as error:
        raise ValueError(f"model or loss can't be differentiated ({first_line(error)}); {WITHOUT}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without `vmap`'s remark, once for every operation, that it takes the samples of a batch in turn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because we have not yet implemented")
        yield


def gradients(output: Tensor, parameters: list[Tensor], by: Tensor | None = None) -> list[Tensor]:
    """The gradient of `output`, weighted with `by`, for each of the parameters; zeros where it has none."""
    if not output.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(output, parameters, by, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def require_apart(model: nn.Module, samples: Samples) -> None:
    """Refuse a model whose answer to a sample depends on the others in its batch.

    Raises:
        ValueError: if the first sample has another answer, or none, when it is alone.
    """
    with torch.no_grad():
        together = answer(model, samples.first(8))[:1]
        try:
            alone = answer(model, samples.first(1))
            same = torch.allclose(alone, together, rtol=0, atol=ALIKE * float(together.abs().max()))
        except Exception:
            same = False
    if not same:
        raise ValueError(
            "model answers a sample otherwise in a batch than alone, as BatchNorm without running statistics "
            f"does, so samples have no gradients of their own; {WITHOUT}"
        )
