"""Cholesky factors by LAPACK without the interpreter's lock.

SciPy's wrappers hold it, so that of two threads with a row each one waits: 20 factors and inverses of 784
entries in each took 0.64 s where one thread took 0.36. Called by address, the same routines run side by side.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba.extending import get_cython_function_address

from solvers.hessian import Array

_INT = ctypes.POINTER(ctypes.c_int)


def _routine(name: str) -> ctypes._CFunctionType:
    """A routine of LAPACK that takes `uplo, n, a, lda, info`."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, _INT, ctypes.c_void_p, _INT, _INT)
    return kind(get_cython_function_address("scipy.linalg.cython_lapack", name))


_POTRF, _POTRI = _routine("dpotrf"), _routine("dpotri")


def factored(A: Array) -> Array | None:
    """`[n, n]` in Fortran's order with a symmetric A's Cholesky factor in its lower half; None without one.

    What is above the diagonal is that of A.
    """
    factor = np.array(A.T, dtype=np.float64, order="F")
    return None if _run(_POTRF, factor) else factor


def inverted(factor: Array) -> Array:
    """`[n, n]` in C's order with the inverse in its upper half, from what `factored` gave and keeps."""
    inverse = factor.copy(order="F")
    if _run(_POTRI, inverse):
        raise ValueError("a factor with a zero on its diagonal")
    return inverse.T


def _run(routine: ctypes._CFunctionType, A: Array) -> int:
    n, info = ctypes.c_int(len(A)), ctypes.c_int(0)
    routine(b"L", n, A.ctypes.data, n, info)
    return info.value
