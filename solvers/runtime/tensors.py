"""PyTorch, imported when the first tensor is made.

Importing it takes longer than everything else here together, and narrow rows, files and checks need none
of it. Modules that work on tensors write `from solvers.runtime.tensors import Tensor, torch` for
`import torch`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor

    from solvers.problem import SubsetProblem
else:
    Tensor = Any  # stands in annotations only, which are not evaluated

    class _Torch:
        """The module by its attributes; each is kept once it was asked for."""

        def __getattr__(self, name: str) -> Any:
            import torch

            value = getattr(torch, name)
            setattr(self, name, value)
            return value

    torch = _Torch()


def _work_alone() -> None:
    """Keep PyTorch to the one thread that a forked process has.

    The threads of OpenMP are not there after a fork; a parallel region would wait for them for ever.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_work_alone)


NARROW = 128
"""Inputs up to which rows are searched and bounded one by one, in NumPy and compiled code alone."""


def on_cpu(device: str) -> bool:
    """Whether a torch device's name is that of the CPU."""
    return str(device).partition(":")[0] == "cpu"


def tensors_help(problem: SubsetProblem, device: str) -> bool:
    """Whether work on a problem may make tensors: on another device than the CPU, and of wide rows."""
    return problem.n > NARROW or not on_cpu(device)


def load_torch() -> None:
    """Import PyTorch now: for who is about to start a clock.

    Raises:
        ImportError: in one line, if it is not installed.
    """
    try:
        _ = torch.float64
    except ImportError as error:
        raise ImportError(
            f"rows of more than {NARROW} inputs, and devices, need PyTorch: pip install torch"
        ) from error
