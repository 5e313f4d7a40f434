"""Losses of sequences, a label for every place: outputs `[N, T, classes]` as language models give them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""The label of a place that does not count, such as padding."""


def token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy of a sequence's places, of every sequence by itself.

    `L_s = 1/|C_s| sum_{t in C_s} -log softmax(o_st)[y_st]`, `C_s` the places whose label is not -100; 0 where
    there are none. A sequence counts as much as any other, whatever its length, so that losses add up over
    samples.

    Args:
        outputs: `[N, T, classes]` logits.
        targets: `[N, T]` whole numbers.

    Returns:
        `[N]`.

    Raises:
        ValueError: if the shapes are others.
    """
    if outputs.ndim != 3 or targets.shape != outputs.shape[:2]:
        raise ValueError(
            f"token losses take outputs [N, T, classes] and targets [N, T], got {list(outputs.shape)} and "
            f"{list(targets.shape)}"
        )
    losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    counts = targets.ne(IGNORED).sum(dim=1).clamp(min=1)
    return losses.reshape(targets.shape).sum(dim=1) / counts


def next_token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """`token_cross_entropy` of every place's output against the next label, as of causal language models.

    Args:
        outputs: `[N, T, classes]` logits.
        targets: `[N, T]`, the tokens themselves, -100 where they do not count.

    Returns:
        `[N]`.
    """
    if outputs.ndim != 3 or outputs.shape[1] < 2:
        raise ValueError(
            f"next_token_cross_entropy takes outputs [N, T, classes], T > 1, got {list(outputs.shape)}"
        )
    return token_cross_entropy(outputs[:, :-1], targets[:, 1:])


TOKENS = {"token_cross_entropy": token_cross_entropy, "next_token_cross_entropy": next_token_cross_entropy}
"""Losses of sequences by name."""


def places_and_classes(loss: object, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs `[N, classes, T]` and labels as a loss of tokens compares them; of other losses as they are."""
    if loss is token_cross_entropy:
        return outputs.movedim(-1, 1), targets
    if loss is next_token_cross_entropy:
        return outputs[:, :-1].movedim(-1, 1), targets[:, 1:]
    return outputs, targets
