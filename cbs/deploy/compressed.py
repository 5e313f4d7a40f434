"""Tensors with many zeros in few bytes: their other values, and where these stand (sparse storage formats).

Three forms, of which the shortest is taken: `dense`, every value; `bitmap`, a bit for every entry and the
values that are not zero; `gaps`, a byte for every value that is not zero, which says how many zeros are
before it. The last is a compressed sparse row format with relative indices: at 95% zeros it takes a
twentieth of a byte for every entry, where a bitmap takes an eighth and 32-bit column indices a fifth.

Weights that were rounded to few bits are stored in a fourth form, `codes`: those bits and the levels they
mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbs.quantization.grid import Grid
from cbs.quantization.packing import FORMS, Bytes, PackedMask
from cbs.quantization.stored import PackedLayer

TYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip
"""Types of tensors that a file holds, by name."""
STEP = 255
"""A byte of `gaps` that stands for so many zeros and no value."""

Pieces = dict[str, Tensor]
"""What a file holds of a tensor, by the end of its name."""


def compress(tensor: Tensor, packed: PackedLayer | None = None) -> tuple[dict[str, Any], Pieces]:
    """A tensor's shortest form: a description that JSON can hold, and the pieces to store.

    A zero with a minus sign comes back without it.

    Args:
        tensor: of any shape, on any device.
        packed: the same values in few bits, taken if they are these and shorter.

    Raises:
        ValueError: for a type or layout that a file can't hold.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in TYPES or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ValueError(
            f"a tensor of {tensor.dtype}, {tensor.layout} can't be stored; make it dense and plain"
        )
    plain = tensor.detach().cpu().contiguous()
    about: dict[str, Any] = {"shape": [*plain.shape], "dtype": dtype}
    if packed is not None and torch.equal(packed.weight.to(plain.dtype), plain):
        pieces = packed.tensors
        grid = {"bits": packed.grid.bits, "mask": packed.mask.form}
        if _bytes(pieces) < plain.numel() * plain.element_size():
            return about | {"form": "codes"} | grid, pieces
    flat = plain.reshape(-1)
    kept = (flat != 0).numpy()
    values = flat[torch.from_numpy(kept)]
    forms = {
        "dense": {"values": plain.clone()},
        "bitmap": {"values": values, "mask": torch.from_numpy(np.packbits(kept))},
    }
    if 4 * len(values) < len(flat):
        forms["gaps"] = {"values": values, "gaps": torch.from_numpy(gaps_of(kept))}
    form = min(forms, key=lambda name: _bytes(forms[name]))
    return about | {"form": form}, forms[form]


def restore(about: Mapping[str, Any], pieces: Mapping[str, Tensor]) -> Tensor:
    """The tensor that was compressed.

    Raises:
        ValueError, KeyError, TypeError: if the pieces are not what the description says.
    """
    shape, dtype = tuple(int(size) for size in about["shape"]), TYPES[about["dtype"]]
    size, form = math.prod(shape), about["form"]
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {list(shape)}")
    if form == "codes":
        return _from_codes(about, pieces, shape).to(dtype)
    values = pieces["values"]
    if values.dtype != dtype:
        raise ValueError(f"values of {values.dtype} instead of {dtype}")
    if form == "dense":
        return values.reshape(shape)
    if form not in ("bitmap", "gaps"):
        raise ValueError(f"an unknown form {form!r}")
    stored = pieces["mask" if form == "bitmap" else "gaps"].numpy()
    if stored.dtype != np.uint8 or stored.ndim != 1:
        raise ValueError("places that are no bytes")
    if form == "bitmap":
        if len(stored) != math.ceil(size / 8):
            raise ValueError(f"a bitmap of {len(stored)} bytes for {size} entries")
        places = np.flatnonzero(np.unpackbits(stored, count=size))
    else:
        places = places_of(stored, size)
    if values.shape != (len(places),):
        raise ValueError(f"{list(values.shape)} values for {len(places)} places")
    flat = torch.zeros(size, dtype=dtype)
    flat[torch.from_numpy(places)] = values
    return flat.reshape(shape)


def gaps_of(kept: NDArray[np.bool_]) -> Bytes:
    """Places as bytes: the zeros before every entry that is kept and after the last, by steps of 255 at most.

    A byte below 255 is so many zeros and then a kept entry; 255 is so many zeros alone. The last byte below
    255 stands behind the end.
    """
    places = np.append(np.flatnonzero(kept), len(kept))
    gaps = np.diff(places, prepend=-1) - 1
    jumps = gaps // STEP
    ends = np.cumsum(jumps + 1) - 1
    found = np.full(int(ends[-1]) + 1, STEP, dtype=np.uint8)
    found[ends] = gaps % STEP
    return found


def places_of(gaps: Bytes, size: int) -> NDArray[np.int64]:
    """The places that `gaps_of` stored.

    Raises:
        ValueError: for bytes that are not of so many entries.
    """
    lands = gaps != STEP
    places: NDArray[np.int64] = (np.cumsum(gaps.astype(np.int64) + lands) - 1)[lands]
    if not len(places) or not lands[-1] or places[-1] != size:
        raise ValueError(f"gaps that do not lead to the end of {size} entries")
    return places[:-1]


def _from_codes(about: Mapping[str, Any], pieces: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    codes, grid, form = pieces["codes"], pieces["grid"], about["mask"]
    if form not in FORMS or grid.dtype != torch.float32 or codes.dtype != torch.uint8 or len(grid) != 2:
        raise ValueError("codes that are not as they are written")
    places = np.zeros(0, dtype=np.uint8) if form == "none" else pieces["mask"].numpy()
    low, step = grid.numpy()
    return PackedLayer(
        shape, Grid(low, step, int(about["bits"])), PackedMask(form, places), codes.numpy()
    ).weight


def _bytes(pieces: Mapping[str, Tensor]) -> int:
    return sum(piece.numel() * piece.element_size() for piece in pieces.values())
