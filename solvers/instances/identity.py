"""Digests: what an instance is, in 64 hexadecimal digits, so that results of two machines can be joined."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from solvers.budget import UNITS
from solvers.certificate.original import stored
from solvers.problem import SubsetProblem


def digest(problem: SubsetProblem) -> str:
    """SHA-256 of a problem's numbers, variant and budget; that of a certificate about it.

    Two problems have the same digest exactly if their instance files say the same, whatever the types their
    numbers are stored in (`solvers.checker.problem.Problem.digest`). A budget of units, which is not
    certified, is digested as columns with their width.

    Returns:
        64 hexadecimal digits.
    """
    if problem.budget.kind != UNITS:
        return stored(problem).digest
    state = hashlib.sha256(b"cbs problem of units 1\n")
    for name, value in problem.describe().items():
        array: Any = np.asarray(value)
        if array.dtype.kind == "U":
            state.update(f"{name} {array.item()}\n".encode())
            continue
        data = np.ascontiguousarray(array, dtype="<f8" if array.dtype.kind == "f" else "<i8")
        state.update(f"{name} {data.dtype.str} {list(data.shape)}\n".encode())
        state.update(data.tobytes())
    return state.hexdigest()


def digest_together(problems: Sequence[SubsetProblem]) -> str:
    """SHA-256 of several problems that share one budget, in their order; of one problem its own `digest`."""
    if len(problems) == 1:
        return digest(problems[0])
    parts = "\n".join(digest(problem) for problem in problems)
    return hashlib.sha256(f"cbs problems together 1\n{parts}\n".encode()).hexdigest()
