"""Two zeros among every four neighbours, on the sparse tensor cores of NVIDIA's GPUs (2:4 sparsity).

PyTorch keeps such a matrix as half of its values and two bits for the place of each, and multiplies with it
by CUTLASS or cuSPARSELt: `torch.sparse.to_sparse_semi_structured`. The hardware takes float16, bfloat16 and
int8, and sizes that are multiples of what its tiles are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import first_line
from cbs.network.surgery import clone

CAPABILITY = (8, 0)
"""Of the first GPUs with sparse tensor cores (Ampere)."""
TYPES = (torch.float16, torch.bfloat16)
ROWS, COLUMNS = 32, 64
"""Of which a matrix must have whole multiples: PyTorch's smallest shapes for these types."""


def conforms(weight: Tensor) -> bool:
    """Whether at most two of every four neighbours in a row of `[m, n]` are not zero."""
    if weight.ndim != 2 or weight.shape[1] % 4:
        return False
    return bool((weight.detach().reshape(-1, 4).ne(0).sum(dim=1) <= 2).all())


def why_not(layer: nn.Module) -> str | None:
    """Why a layer can't go to the sparse tensor cores; None if it can, on a GPU that has some."""
    if type(layer) is not nn.Linear:
        return "it is no Linear"
    m, n = layer.weight.shape
    if layer.weight.dtype not in TYPES:
        return f"its type is {layer.weight.dtype}; cast the network by .half() or .bfloat16()"
    if m % ROWS or n % COLUMNS:
        return f"its shape [{m}, {n}] is no multiple of [{ROWS}, {COLUMNS}]"
    if not conforms(layer.weight):
        return "more than two of some four neighbours are not zero; prune with budget '2:4'"
    return None


def semi_structured(model: nn.Module, device: str | torch.device = "cuda") -> nn.Module:
    """A copy of a network on a GPU, whose 2:4 linear layers are multiplied by sparse tensor cores.

    For inference. Layers that don't conform stay as they are; if none conforms that is an error, which says
    why.

    Args:
        model: with plain weights in float16 or bfloat16.
        device: of a CUDA GPU.

    Raises:
        ValueError: in one line, if no layer conforms, or there is no such GPU.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    reasons = {name: why_not(module) for name, module in layers.items()}
    fit = [name for name, why in reasons.items() if why is None]
    if not fit:
        name, why = next(iter(reasons.items()), ("", "there is none"))
        raise ValueError(f"no linear layer has 2:4 zeros that a GPU can use ({name!r}: {why})")
    if torch.device(device).type != "cuda":
        raise ValueError(f"device must be 'cpu' or 'cuda', got {str(device)!r}")
    if not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} needs CUDA, which is not available here; use device='cpu'")
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        raise ValueError(
            f"device {str(device)!r} has no sparse tensor cores (compute capability 8.0 and later have)"
        )
    found = clone(model).to(device).eval()
    for name in fit:
        layer: Any = found.get_submodule(name)
        try:
            values = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ValueError(
                f"layer {name!r} is not taken by PyTorch's 2:4 kernels ({first_line(error)})"
            ) from None
        layer.weight = nn.Parameter(values, requires_grad=False)
    return found
