"""Losses as they are given: what one sample's loss is, and whether a batch's is the mean or sum of those."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.data import first_line
from cbs.data.nested import Nested, as_given, describe, pieces
from cbs.names import check_name
from cbs.network.tokens import TOKENS

Loss = Callable[[Any, Any], Tensor]
"""A loss of (outputs, targets): the mean or the sum over a batch's samples, or a value for each of them."""
LOSSES = (
    "cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "nll_loss", "poisson_nll_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "multi_margin_loss", "soft_margin_loss",
    "multilabel_margin_loss", "kl_div", *TOKENS,
)  # fmt: skip
"""Losses that can be named: of `torch.nn.functional`, and of sequences."""
LOW = (torch.float16, torch.bfloat16)
"""Types whose losses and curvatures are computed in single precision."""
ADDITIVE = "give one that adds up over samples, such as the same with reduction='sum'"
INSTEAD = (
    "for regression give loss=torch.nn.functional.mse_loss (--loss mse_loss), for several labels a sample "
    "binary_cross_entropy_with_logits"
)
"""What to give instead of a loss that does not fit the targets."""


def named_loss(loss: str | Loss) -> Loss:
    """A loss by its name in `torch.nn.functional`, or as it is given.

    Raises:
        ValueError: for an unknown name, or what can't be called.
    """
    if isinstance(loss, str):
        check_name("loss", loss, LOSSES)
        return TOKENS.get(loss) or getattr(F, loss)
    if not callable(loss):
        raise ValueError(f"loss must be a name or be called with outputs and targets, got {loss!r}")
    return loss


@overload
def wide(values: Tensor) -> Tensor: ...
@overload
def wide(values: Nested) -> Nested: ...
def wide(values: Any) -> Any:
    """The values, in single precision if they are in half precision or bfloat16."""
    if isinstance(values, Nested):
        return values.map_all(wide)
    return values.float() if values.dtype in LOW else values


def wide_loss(loss: Loss) -> Loss:
    """The loss; a copy in single precision if it is a module that holds tensors of less."""
    if isinstance(loss, nn.Module) and any(t.dtype in LOW for t in (*loss.parameters(), *loss.buffers())):
        return copy.deepcopy(loss).float()
    return loss


def batch_loss(loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
    """What the loss says of a batch; it is given copies, which it may change in place.

    Raises:
        ValueError: if it refuses them, or answers with neither one value nor one for every sample.
    """
    try:
        found = loss(wide(outputs).clone(), as_given(wide(targets).clone()))
    except Exception as error:
        hint = _hint(loss, outputs, targets)
        raise ValueError(
            f"loss refuses outputs of shape {list(outputs.shape)} with {_told(targets)} "
            f"({first_line(error)}){hint}"
        ) from error
    if not isinstance(found, Tensor) or (found.numel() != 1 and found.shape != outputs.shape[:1]):
        what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"loss must give one value for a batch of {len(outputs)}, or one a sample, but gives {what}; "
            "give one with reduction='mean' or 'sum'"
        )
    return found


def single_loss(loss: Loss, output: Tensor, target: Any) -> Tensor:
    """The loss of one sample, output and target `[1, ...]`, as a scalar; it is given copies."""
    return loss(wide(output).clone(), as_given(wide(target).clone())).reshape(())


def sample_losses(loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
    """`[N]` loss of every sample by itself, differentiable.

    By `torch.func.vmap`, or one by one where the loss does what that can't follow.
    """
    try:
        losses: Tensor = torch.func.vmap(lambda o, t: single_loss(loss, o[None], t[None]))(outputs, targets)
    except Exception:
        pairs = zip(torch.split(outputs, 1), pieces(targets, 1), strict=True)
        losses = torch.stack([single_loss(loss, output, target) for output, target in pairs])
    return losses


def require_additive(whole: Tensor, losses: Tensor, outputs: Tensor, targets: Any) -> None:
    """Refuse a loss of a batch that is neither the mean nor the sum over its samples.

    Such are class weights that a mean is divided by, ignored labels of which samples have unequally
    many, and statistics of the batch. Methods see samples one by one, and so would minimise another loss.

    Args:
        whole: what `batch_loss` gave.
        losses: `[N]` what `sample_losses` gave.
        outputs: what the loss was given.
        targets: what the loss was given.

    Raises:
        ValueError: with a loss that can be given instead.
    """
    whole, losses = whole.detach().double(), losses.detach().double()
    if not bool(torch.isfinite(whole).all()):
        return  # nothing to compare with
    if not bool(torch.isfinite(losses).all()):
        worst = int((~torch.isfinite(losses)).nonzero()[0])
        raise ValueError(
            f"loss of a sample by itself is {float(losses[worst])} where that of its batch is finite, as "
            f"when none of its labels counts; {ADDITIVE}"
        )
    size = outputs.detach().double().nan_to_num(posinf=0.0, neginf=0.0).abs().mean()
    slack = 100 * torch.finfo(wide(outputs).dtype).eps * (losses.abs() + size)
    if whole.numel() > 1:
        if not bool(((whole - losses).abs() <= slack).all()):
            raise ValueError(
                "loss gives every sample another value in a batch than alone, as statistics of the batch "
                "do; give a loss that is a mean or a sum over samples"
            )
        return
    value, mean, total = float(whole.reshape(())), float(losses.mean()), float(losses.sum())
    if abs(value - mean) > float(slack.mean()) and abs(value - total) > float(slack.sum()):
        if isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape != outputs.shape:
            raise ValueError(
                f"loss takes outputs {list(outputs.shape)} and targets {list(targets.shape)} of a batch for "
                "more than its samples' losses, as when shapes broadcast; give targets of the outputs' shape"
            )
        raise ValueError(
            f"loss of a batch of {len(losses)} is {value:.6g}, neither the mean ({mean:.6g}) nor the sum "
            f"({total:.6g}) of its samples' losses, as with class weights or unequally many ignored "
            f"labels; {ADDITIVE}"
        )


def gradient(loss: Loss, outputs: Tensor, targets: Any) -> Tensor | None:
    """The gradient of a batch's loss by the outputs, or None if they have no part in it."""
    with torch.enable_grad():
        point = wide(outputs).detach().clone().requires_grad_()
        whole = batch_loss(loss, point, targets).sum()
        if not whole.requires_grad:
            return None
        (found,) = torch.autograd.grad(whole, point, allow_unused=True)
    return found


def counted(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Which class labels the loss counts: where all outputs are equal, it would have them changed.

    `F.cross_entropy` ignores labels of -100, or of another `ignore_index`.

    Args:
        loss: of outputs and targets.
        outputs: `[N, C, ...]`.
        targets: `[N, ...]` class labels.

    Returns:
        Bool, of the targets' shape.
    """
    even = torch.full_like(outputs, 1 / outputs.shape[1])
    slope = gradient(loss, even, targets)
    return torch.ones_like(targets, dtype=torch.bool) if slope is None else slope.ne(0).any(dim=1)


def require_probabilities(loss: Loss, targets: Any) -> None:
    """Refuse a cross entropy of numbers that are no class probabilities.

    Raises:
        ValueError: with the losses that can be given instead.
    """
    if not (_is_regression(loss, targets) and targets.ndim > 1):
        return
    sums = targets.double().sum(dim=1)
    if bool((targets < 0).any()) or bool(((sums - 1).abs() > 1e-2).any()):
        raise ValueError(
            f"loss cross_entropy takes class labels or probabilities, but targets are {targets.dtype} of "
            f"shape {list(targets.shape)} that do not sum to 1; {INSTEAD}"
        )


def _is_regression(loss: Any, targets: Any) -> bool:
    return isinstance(targets, Tensor) and _is_cross_entropy(loss) and targets.is_floating_point()


def _told(targets: Any) -> str:
    if isinstance(targets, Nested):
        return f"targets {describe(targets)}"
    return f"targets of shape {list(targets.shape)} and type {targets.dtype}"


def is_known(loss: Any) -> bool:
    """Whether a loss is one of PyTorch's or of this package's, which take one tensor of outputs."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    known = (getattr(F, name, None) for name in LOSSES)
    return (
        any(loss is other for other in (*known, *TOKENS.values()))
        or (isinstance(loss, nn.Module) and type(loss).__module__ == "torch.nn.modules.loss")
        or getattr(loss, "__module__", None) == "torch.nn.functional"
    )


def _is_cross_entropy(loss: Any) -> bool:
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss is F.cross_entropy or isinstance(loss, nn.CrossEntropyLoss)


def _hint(loss: Any, outputs: Tensor, targets: Any) -> str:
    """What would be right where a loss refuses outputs and targets, for losses that are known."""
    if not isinstance(targets, Tensor):
        return "; give a function of (outputs, targets)" if _is_cross_entropy(loss) else ""
    if _is_cross_entropy(loss) and outputs.ndim == 3 and targets.shape == outputs.shape[:2]:
        return (
            "; for outputs [N, T, classes] give loss 'token_cross_entropy', or 'next_token_cross_entropy' "
            "where every place tells the next label"
        )
    if _is_regression(loss, targets):
        return f"; class labels must be integers, {INSTEAD}"
    if _is_cross_entropy(loss) and outputs.ndim > 1:
        shape = [len(outputs), *outputs.shape[2:]]
        return f"; class labels must have shape {shape} and lie in 0 to {outputs.shape[1] - 1}, or be ignored"
    if loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        return "; targets must have the shape of the outputs"
    return ""
