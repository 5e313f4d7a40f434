"""Cholesky factors by LAPACK without the interpreter's lock, which SciPy keeps: threads run side by side."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from numba.extending import get_cython_function_address
from numpy.typing import NDArray

Single = NDArray[np.float32]
Double = NDArray[np.float64]


def _routine(library: str, name: str, arguments: int) -> Callable[..., None]:
    address = get_cython_function_address(f"scipy.linalg.{library}", name)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)


_spotrf = _routine("cython_lapack", "spotrf", 5)
_strsv = _routine("cython_blas", "strsv", 8)
_dposv = _routine("cython_lapack", "dposv", 8)


def factor(A: Single) -> bool:
    """Factor `A [n, n]`, C-contiguous, in place as `U'U` with U upper triangular; whether it is definite.

    Only the upper triangle is read and written.
    """
    n, info = ctypes.c_int(len(A)), ctypes.c_int()
    _spotrf(b"L", ctypes.byref(n), A.ctypes.data, ctypes.byref(n), ctypes.byref(info))
    return info.value == 0


def substitute(U: Single, b: Single) -> None:
    """Put `(U'U)^-1 b` in the place of `b [n]`, U as `factor` leaves it."""
    n, one = ctypes.c_int(len(U)), ctypes.c_int(1)
    for transposed in (b"N", b"T"):
        _strsv(
            b"L", transposed, b"N", ctypes.byref(n), U.ctypes.data, ctypes.byref(n),
            b.ctypes.data, ctypes.byref(one),
        )  # fmt: skip


def solve_definite(A: Double, B: Double) -> bool:
    """Put the solution of `A X = B` in the place of B, a factor in that of A; whether A is definite.

    Args:
        A: `[n, n]`, C-contiguous, symmetric.
        B: `[k, n]`, C-contiguous: a right-hand side a row.
    """
    n, sides, info = ctypes.c_int(len(A)), ctypes.c_int(len(B)), ctypes.c_int()
    _dposv(
        b"L", ctypes.byref(n), ctypes.byref(sides), A.ctypes.data, ctypes.byref(n),
        B.ctypes.data, ctypes.byref(n), ctypes.byref(info),
    )  # fmt: skip
    return info.value == 0
