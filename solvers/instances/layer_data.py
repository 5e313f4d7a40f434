"""Numbers of a layer that many instances share: rows of weights, and the curvature of their inputs.

Both are kept on the grid of single precision, the curvature as its lower triangle, so that a library is
small; problems are made of them in double precision, exactly. A digest of the numbers, not of the file's
bytes, says whether data that was made again is the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.checker.archive import Shaped, read_archive
from solvers.hessian import Array
from solvers.runtime.writing import replacing


@dataclass(frozen=True, eq=False)
class LayerData:
    """Rows of a layer and their curvature.

    Attributes:
        weights: `[m, n]` rows.
        hessian: `[n, n]` symmetric.
        rows: `[m]` which rows of the layer they are.
    """

    weights: Array = field(repr=False)
    hessian: Array = field(repr=False)
    rows: NDArray[np.int64]

    @classmethod
    def rounded(cls, weights: ArrayLike, hessian: ArrayLike, rows: ArrayLike) -> LayerData:
        """Weights and curvature, rounded to single precision.

        Raises:
            ValueError: if the curvature is not `[n, n]`, or a number is too large for single precision.
        """
        W, H = (np.asarray(A, dtype=np.float64) for A in (weights, hessian))
        with np.errstate(over="ignore"):
            W, H = (A.astype(np.float32).astype(np.float64) for A in (W, np.tril(H) + np.tril(H, -1).T))
        if H.shape != (W.shape[1],) * 2:
            raise ValueError(f"hessian has shape {H.shape}, the weights {W.shape}; it must be [n, n]")
        if not (np.isfinite(W).all() and np.isfinite(H).all()):
            raise ValueError("weights or hessian hold numbers that are not finite in single precision")
        return cls(W, H, np.asarray(rows, dtype=np.int64))

    def digest(self) -> str:
        """SHA-256 of the numbers, in hexadecimal."""
        state = hashlib.sha256(b"cbs layer data 1\n")
        for name, array in self._arrays().items():
            data = np.ascontiguousarray(array, dtype="<f4" if array.dtype.kind == "f" else "<i8")
            state.update(f"{name} {list(data.shape)}\n".encode())
            state.update(data.tobytes())
        return state.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a data file, whole or not at all.

        Raises:
            OSError: if it can't be written.
        """
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LayerData:
        """Read a data file.

        Raises:
            ValueError: in one line, if it can't be read or holds something else.
        """
        arrays = read_archive(path, "data file", _expected)
        W = arrays["weights"].astype(np.float64)
        n = W.shape[1]
        H = np.zeros((n, n))
        H[np.tril_indices(n)] = arrays["hessian"]
        if not (np.isfinite(W).all() and np.isfinite(H).all()):
            raise ValueError(f"data file {os.fspath(path)!r} holds numbers that are not finite")
        return cls(W, H + np.tril(H, -1).T, arrays["rows"].astype(np.int64))

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "weights": self.weights.astype(np.float32),
            "hessian": self.hessian[np.tril_indices(len(self.hessian))].astype(np.float32),
            "rows": self.rows,
        }


def _expected(declared: Mapping[str, Shaped]) -> None:
    wanted = {"weights": ("f", 2), "hessian": ("f", 1), "rows": ("i", 1)}
    for name, (kind, axes) in wanted.items():
        if name not in declared:
            raise ValueError(f"no array {name!r}; it must hold weights, hessian and rows")
        found = declared[name]
        if found.dtype.kind != kind or len(found.shape) != axes:
            raise ValueError(f"array {name!r} has shape {found.shape} of {found.dtype}")
    m, n = declared["weights"].shape
    if declared["hessian"].shape != (n * (n + 1) // 2,) or declared["rows"].shape != (m,):
        raise ValueError(
            f"hessian {declared['hessian'].shape} and rows {declared['rows'].shape} do not go with weights "
            f"{(m, n)}: they must be the lower triangle [n (n + 1) / 2] and [m]"
        )
