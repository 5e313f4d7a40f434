"""Codes and masks as bytes: a code takes as many bits as it has, and a mask the shorter of two forms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbs.quantization.grid import Codes
from solvers.problem import Mask

Bytes = NDArray[np.uint8]
WIDTHS = (1, 2, 4, 8)
"""Bytes of an index."""
FORMS = ("none", "bitmap", "kept", "pruned")


def pack(codes: Codes, bits: int) -> Bytes:
    """Codes one after another, `bits` each, the highest bit first: `ceil(len(codes) * bits / 8)` bytes."""
    wide = np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(wide.ravel())


def unpack(packed: Bytes, bits: int, count: int) -> Codes:
    """The `count` codes that were packed."""
    wide = np.zeros((count, 8), dtype=np.uint8)
    wide[:, 8 - bits :] = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return np.packbits(wide, axis=1).ravel()


@dataclass(frozen=True)
class PackedMask:
    """A mask as bytes.

    Attributes:
        form: `none` where nothing is pruned; `bitmap`, a bit for every weight, 1 where pruned; or the places
            of the weights `kept` or `pruned`, whichever are fewer, in as few bytes each as hold the last
            place.
        data: the bytes.
    """

    form: str
    data: Bytes


def pack_mask(pruned: Mask) -> PackedMask:
    """The shortest form of a mask `[m, n]`."""
    flat = pruned.ravel()
    if not flat.any():
        return PackedMask("none", np.zeros(0, dtype=np.uint8))
    bitmap = np.packbits(flat)
    fewer = "pruned" if 2 * flat.sum() <= flat.size else "kept"
    places = np.flatnonzero(flat if fewer == "pruned" else ~flat)
    width = _width(flat.size)
    if len(places) * width < len(bitmap):
        return PackedMask(fewer, places.astype(f"<u{width}").view(np.uint8))
    return PackedMask("bitmap", bitmap)


def unpack_mask(packed: PackedMask, shape: tuple[int, int]) -> Mask:
    """The mask `[m, n]` that was packed.

    Raises:
        ValueError: for bytes that are no such mask.
    """
    size = math.prod(shape)
    if packed.form == "none":
        return np.zeros(shape, dtype=bool)
    if packed.form == "bitmap":
        if len(packed.data) != math.ceil(size / 8):
            raise ValueError(f"a mask of {size} weights takes {math.ceil(size / 8)} bytes")
        return np.unpackbits(packed.data, count=size).astype(bool).reshape(shape)
    places = np.ascontiguousarray(packed.data).view(f"<u{_width(size)}")
    if len(places) and int(places.max()) >= size:
        raise ValueError(f"a mask of {size} weights has no place {int(places.max())}")
    flat = np.full(size, packed.form == "kept")
    flat[places] = packed.form == "pruned"
    return flat.reshape(shape)


def _width(size: int) -> int:
    """Bytes of an index into so many places."""
    return next(width for width in WIDTHS if size <= 256**width)
