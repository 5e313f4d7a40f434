"""PyTorch, imported when the first tensor is made.

Importing it takes longer than everything else here together, and narrow rows, files and checks need none
of it. Modules that work on tensors write `from solvers.tensors import Tensor, torch` for `import torch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
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


def load_torch() -> None:
    """Import PyTorch now: for who is about to start a clock."""
    _ = torch.float64
