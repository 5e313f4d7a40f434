"""Transposed convolutions, and HuggingFace's `Conv1D`: matrices that are stored otherwise.

A transposed convolution is a convolution of its input with zeros between the entries, by the flipped kernel.
`Conv1D` is a `Linear` whose weight is transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cbs.network.kinds.registry import Slot

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class OpenTransposed(nn.Module):
    """A transposed convolution as a plain one over its input with zeros put in: its part is `conv`.

    Args:
        module: `nn.ConvTranspose1d`, `2d` or `3d`, whose sizes and settings are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.places = module.weight.ndim - 2
        self.kernel_size, self.stride, self.dilation = module.kernel_size, module.stride, module.dilation
        self.padding, self.output_padding = module.padding, module.output_padding
        self.conv: Any = CONVOLUTIONS[self.places - 1](
            module.in_channels, module.out_channels, module.kernel_size, dilation=module.dilation,
            groups=module.groups, bias=module.bias is not None,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """As `nn.ConvTranspose2d.forward` and its kin."""
        more = self.output_padding
        if output_size is not None:
            more = nn.ConvTranspose2d._output_padding(
                self.conv, input, list(output_size), self.stride, self.padding, self.kernel_size, self.places,
                self.dilation,
            )  # fmt: skip
        x = input
        for i in range(self.places):
            x = _spread(x, i - self.places, self.stride[i])
        pads: list[int] = []
        for i in reversed(range(self.places)):
            edge = self.dilation[i] * (self.kernel_size[i] - 1) - self.padding[i]
            pads += [edge, edge + more[i]]
        return self.conv(F.pad(x, pads))  # type: ignore[no-any-return]


def _spread(x: Tensor, axis: int, stride: int) -> Tensor:
    """`stride - 1` zeros between neighbours along an axis."""
    if stride == 1:
        return x
    x = x.movedim(axis, -1)
    count = x.shape[-1]
    x = F.pad(x.unsqueeze(-1), (0, stride - 1)).flatten(-2)[..., : (count - 1) * stride + 1]
    return x.movedim(-1, axis)


def open_transposed(module: nn.Module) -> tuple[nn.Module, Sequence[Slot]]:
    """A transposed convolution rewritten, and where its parameters are."""
    assert isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    groups = module.groups

    def take(W: Tensor) -> Tensor:
        """`[C_in, C_out / g, ...]` as a convolution's `[C_out, C_in / g, ...]`."""
        flipped = W.flip([*range(2, W.ndim)]) if W.ndim > 2 else W
        return flipped.reshape(groups, -1, *W.shape[1:]).transpose(1, 2).flatten(0, 1)

    slots = [Slot("conv.weight", "weight", take)]
    if module.bias is not None:
        slots.append(Slot("conv.bias", "bias"))
    return OpenTransposed(module), slots


def open_conv1d(module: nn.Module) -> tuple[nn.Module, Sequence[Slot]]:
    """HuggingFace's `Conv1D`, `x W + b` with `W [inputs, outputs]`, as a `Linear`."""
    W: Any = module.weight
    bias = getattr(module, "bias", None)
    slots = [Slot("weight", "weight", lambda values: values.T)]
    if bias is not None:
        slots.append(Slot("bias", "bias"))
    return nn.Linear(W.shape[0], W.shape[1], bias=bias is not None), slots
