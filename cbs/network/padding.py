"""Padding: places of a sequence that are there for the shape only, and count for nothing.

Texts of a batch are padded to the longest, and a mask says which places are real. What stands at the others
is no input that the network will be judged by, so it has no part in a layer's Gram, its output's change, or
the distance of outputs. Where a batch has such a mask, `forward` and its kin tell of it, and `real` leaves
places out of what a layer is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from cbs.data import Nested, Samples
from cbs.data.nested import describe

REAL = ("attention_mask", "decoder_attention_mask", "encoder_attention_mask", "input_mask")
"""Entries of a batch that are nonzero where a place is real."""
PADDED = ("key_padding_mask", "src_key_padding_mask", "tgt_key_padding_mask", "memory_key_padding_mask")
"""Entries of a batch that are True where a place is padding, as modules of `torch.nn` have it."""

DECODED = {
    "decoder_input_ids": "decoder_attention_mask",
    "decoder_inputs_embeds": "decoder_attention_mask",
    "tgt": "tgt_key_padding_mask",
}
"""Second sequences of a batch, all of whose places are real where their own mask is absent."""

_present: ContextVar[tuple[Tensor, ...]] = ContextVar("present", default=())


def masks_of(inputs: Any) -> tuple[Tensor, ...]:
    """Masks `[N, T]` of a batch, True where a place is real; none where they leave nothing out.

    One that leaves nothing out is among them beside another of its shape, which would else be taken for
    that of its places, too; so is that of a decoder's sequence without a mask. They are the entries of a
    mapping that are named as in `REAL` and `PADDED`, or as the data was told (`Samples.with_padding`), and
    are `[N, T]` of two values.
    """
    if not isinstance(inputs, Nested):
        return ()
    given = inputs.form.template
    if not isinstance(given, Mapping):
        return ()
    named = inputs.form.padding
    names = (named.removeprefix("~"),) if named else (*REAL, *PADDED)
    padded = PADDED if not named else names if named.startswith("~") else ()
    found = []
    for name in names:
        mask = inputs.tensor(name)
        if mask is None or mask.ndim != 2:
            continue
        if mask.is_floating_point() and not bool(((mask == 0) | (mask == 1)).all()):
            continue  # added to scores
        found.append(mask == 0 if name in padded else mask != 0)
    for name, own in DECODED.items() if not named else ():
        sequence = inputs.tensor(name)
        if sequence is not None and sequence.ndim >= 2 and inputs.tensor(own) is None:
            found.append(sequence.new_ones(sequence.shape[:2], dtype=torch.bool))
    wanting = {mask.shape for mask in found if not bool(mask.all())}
    return tuple(mask for mask in found if mask.shape in wanting)


def require_named(samples: Samples, name: str | None) -> None:
    """Refuse the name of an entry that the data's batches have not.

    Raises:
        ValueError: in one line.
    """
    if name is None:
        return
    inputs, _ = next(samples.groups())
    mask = inputs.tensor(name.removeprefix("~")) if isinstance(inputs, Nested) else None
    if mask is None or mask.ndim != 2:
        has = "no mapping" if not isinstance(inputs, Nested) else describe(inputs)
        raise ValueError(f"padding {name!r} must name an entry [N, T] of a batch, which is {has}")


@contextmanager
def padded(inputs: Any) -> Iterator[None]:
    """Tells `real` of a batch's masks while a network runs on it."""
    if not isinstance(inputs, Nested) or inputs.traced:
        yield
        return
    token = _present.set(masks_of(inputs))
    try:
        yield
    finally:
        _present.reset(token)


def real(x: Tensor, masks: tuple[Tensor, ...] | None = None) -> Tensor | None:
    """Which places of a tensor `[N, T, ...]` are real, or None if all are, or nothing is known of them.

    A tensor `[T, N, ...]` or `[N * T, features]` of the same places is told by its shape. A place is real
    if any mask of its shape says so.

    Args:
        x: features last.
        masks: `[N, T]`; None for those of the batch that is running.

    Returns:
        Bool, of the shape of x's dimensions before the features, or of the first two.
    """
    found: Tensor | None = None
    for mask in _present.get() if masks is None else masks:
        N, T = mask.shape
        if x.ndim >= 3 and x.shape[:2] == (N, T):
            own = mask
        elif x.ndim >= 3 and x.shape[:2] == (T, N):
            own = mask.T
        elif x.ndim == 2 and len(x) == N * T:
            own = mask.flatten()
        else:
            continue
        found = own if found is None else found | own
    return found


def only(x: Tensor, places: Tensor | None) -> Tensor:
    """A tensor's real places, one after the other, `[places, ...]`; all of it for None."""
    return x if places is None else x[places]


def silent(outputs: Tensor, inputs: Any) -> Tensor:
    """Outputs `[N, T, ...]`, zero where the places of a batch are padding."""
    places = real(outputs, masks_of(inputs)) if outputs.ndim >= 3 else None
    if places is None or outputs.shape[:2] != places.shape:
        return outputs
    return torch.where(places.reshape(*places.shape, *[1] * (outputs.ndim - 2)), outputs, 0.0)


def real_places(layer: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a layer that runs, without the places that are padding.

    Args:
        layer: of inputs and outputs with features last; of others all places stay.
        x: its input.
        y: its output, of the same places.
    """
    places = places_of(layer, y)
    if places is None or x.shape[: places.ndim] != places.shape:
        return x, y
    return x[places], y[places]


def places_of(layer: Any, y: Tensor) -> Tensor | None:
    """The real places of a layer's output while it runs, see `real`; None for a convolution's."""
    return None if layer.places else real(y)
