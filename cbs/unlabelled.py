"""Calibration data without labels: a network draws them itself, and its Fisher is then the true one.

What compares rows and layers, `E[(dL/da_r)^2]`, and the loss that is reported want targets. Drawn from the
network's own outputs they give, in expectation, the Fisher information and no empirical one (Kunstner et al.
2019, "Limitations of the empirical Fisher approximation"), which is the Gauss-Newton matrix of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.data import Samples, gather
from cbs.network.answers import Output, choose_output
from cbs.network.evaluate import evaluating, forward
from cbs.network.losses import Loss, named_loss, wide
from cbs.network.surgery import clone
from cbs.network.tokens import token_cross_entropy

Draw = Callable[[Tensor, torch.Generator], Tensor]


def unlabelled(
    model: nn.Module,
    inputs: Any,
    *,
    loss: str | Loss = "cross_entropy",
    output: Output | None = None,
    seed: int = 0,
) -> Samples:
    """Inputs with targets drawn from what a network says of them, for `cbs.prune` without labels.

    Of `cross_entropy` and `nll_loss` classes are drawn from the network's probabilities, of
    `binary_cross_entropy_with_logits` every label by itself, and of `mse_loss` the targets are the outputs
    with a standard normal error. The loss and the accuracy that a pruning then reports are those on these
    targets: the accuracy says how often the network agrees with its own draw, not how often it is right.

    Args:
        model: the trained network.
        inputs: a tensor or array `[N, ...]`, or data in any form that `cbs.prune` takes, whose targets are
            not looked at.
        loss: that `cbs.prune` will be given.
        output: which of the model's outputs it is of, as `cbs.prune` will be given it.
        seed: of the draw.

    Raises:
        ValueError: in one line, for a loss that is no likelihood of those, or outputs that it does not take.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a whole number >= 0, got {seed!r}")
    chosen = named_loss(loss)
    draw = DRAWS.get(chosen)
    if draw is None:
        known = ", ".join(each.__name__ for each in DRAWS)
        raise ValueError(
            f"loss {getattr(chosen, '__name__', type(chosen).__name__)} is no likelihood to draw targets "
            f"from; known: {known}"
        )
    samples, model = gather(inputs, seed=int(seed), model=model), clone(model)
    choose_output(model, output)
    where = next(model.parameters(), torch.empty(0)).device
    generator = torch.Generator().manual_seed(int(seed))
    with evaluating(model):
        return samples.answered(lambda x: draw(wide(forward(model, x.to(where))).cpu(), generator))


def _classes(outputs: Tensor, generator: torch.Generator) -> Tensor:
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"model answers with {list(outputs.shape)}; classes are drawn from outputs [N, classes, ...] of "
            "two or more"
        )
    p = outputs.double().softmax(dim=1).movedim(1, -1)
    return torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator).reshape(p.shape[:-1])


def _tokens(outputs: Tensor, generator: torch.Generator) -> Tensor:
    if outputs.ndim != 3:
        raise ValueError(f"model answers with {list(outputs.shape)}; tokens are drawn from [N, T, classes]")
    return _classes(outputs.movedim(-1, 1), generator)


def _labels(outputs: Tensor, generator: torch.Generator) -> Tensor:
    return torch.bernoulli(outputs.sigmoid(), generator=generator)


def _numbers(outputs: Tensor, generator: torch.Generator) -> Tensor:
    return outputs + torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)


DRAWS: dict[Callable[..., Tensor], Draw] = {
    F.cross_entropy: _classes,
    F.nll_loss: _classes,
    token_cross_entropy: _tokens,
    F.binary_cross_entropy_with_logits: _labels,
    F.mse_loss: _numbers,
}
"""How targets are drawn for a loss."""
