"""Arrays as bytes and back: archives of NumPy's, never pickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers import Progress

Arrays = Mapping[str, NDArray[np.generic]]


def packed(arrays: Arrays) -> bytes:
    """Arrays as the bytes of a compressed `.npz` archive; none as no bytes.

    Raises:
        ValueError: for an array of objects, which could only be pickled.
    """
    if not arrays:
        return b""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"array {name!r} holds objects; give numbers")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # savez would not take every name
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
    return file.getvalue()


def unpacked(data: bytes | None) -> dict[str, NDArray[np.generic]]:
    """The arrays of `packed`."""
    if not data:
        return {}
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive.items())


def mask_arrays(mask: NDArray[np.bool_], name: str = "mask") -> dict[str, NDArray[np.generic]]:
    """A mask as packed bits `NAME`, and its shape `NAME_shape`."""
    return {name: np.packbits(mask), f"{name}_shape": np.array(mask.shape, dtype=np.int64)}


def mask_of(arrays: Arrays, name: str = "mask") -> NDArray[np.bool_]:
    """The mask that `mask_arrays` packed."""
    shape = tuple(int(size) for size in np.asarray(arrays[f"{name}_shape"]))
    bits = np.unpackbits(np.asarray(arrays[name], dtype=np.uint8), count=int(np.prod(shape)))
    return bits.astype(bool).reshape(shape)


def trace_arrays(trace: Sequence[Progress]) -> dict[str, NDArray[np.generic]]:
    """A search's history: seconds since its start, incumbent, bound, and nodes at those times."""
    if not trace:
        return {}
    return {
        "trace_seconds": np.array([step.seconds for step in trace]),
        "trace_value": np.array([step.bounds.upper for step in trace]),
        "trace_bound": np.array([step.bounds.lower for step in trace]),
        "trace_nodes": np.array([step.nodes for step in trace], dtype=np.int64),
    }
