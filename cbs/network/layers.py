"""The prunable layers of a network, and what flows through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.network.eligible import KINDS, module_of, survey

Matrix = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding
"""Modules that are matrices; of an `Embedding` a row is a token's vector."""
Visit = Callable[[str, Tensor, Tensor], Tensor | None]

CHUNK = 2**21
"""Largest number of unfolded inputs held in double precision; few enough to be quick."""


@dataclass(frozen=True)
class Layer:
    """A linear map or a convolution as a matrix of `m` rows (output channels) over `n` inputs.

    A convolution's inputs are the `in_channels * k1 * k2 ...` entries of an unfolded patch. A grouped
    convolution is several layers, a block a group: rows of one module's weight, which see the group's input
    channels alone. `weight` and `bias` are views of the module's parameters.

    An `Embedding` is a matrix too: its m rows are tokens, its n columns the entries of their vectors, and it
    is given places of tokens instead of numbers, see `tokens`. Nothing is unfolded then, and its Gram is what
    `cbs.curvature.counts` says.

    Attributes:
        name: of the module; of a block with its place, such as `conv[3]`.
        module: the module itself: `Linear`, or a convolution along one to three dimensions.
        fixed_bias: whether the bias, if there is one, stays as it is.
        path: of the module in the network; by default its name.
        block: which of the module's blocks it is.
        blocks: how many of them the module has.
        across: whether neighbouring columns are channels at one place of the kernel, not places of a channel.
    """

    name: str
    module: Matrix
    fixed_bias: bool = False
    path: str = None  # type: ignore[assignment]
    block: int = 0
    blocks: int = 1
    across: bool = False

    def __post_init__(self) -> None:
        if self.path is None:
            object.__setattr__(self, "path", self.name)

    def of(self, model: nn.Module) -> Layer:
        """The same layer of a copy of the network."""
        return replace(self, module=model.get_submodule(self.path))  # type: ignore[arg-type]

    @property
    def tokens(self) -> bool:
        """Whether the layer is an `Embedding`, whose inputs say which of its rows come out."""
        return isinstance(self.module, nn.Embedding)

    @property
    def parameter(self) -> Tensor:
        """The module's weight, of all its blocks."""
        return self.module.weight

    @property
    def rows(self) -> slice:
        """Which rows of the module's weight are the layer's."""
        m = self.module.weight.shape[0] // self.blocks
        return slice(self.block * m, (self.block + 1) * m)

    @property
    def weight(self) -> Tensor:
        """The weight: a view of the parameter, which reshaped to `shape` is the matrix."""
        return self.view(self.module.weight)

    def view(self, values: Tensor, over: int = 0) -> Tensor:
        """What of a tensor of the parameter's shape is the layer's, laid out as `weight` is.

        Args:
            values: of the parameter's shape, such as a mask or a gradient.
            over: how many dimensions come before those of the parameter.
        """
        if self.blocks > 1:
            values = values[(*(slice(None),) * over, self.rows)]
        return values.movedim(over + 1, -1) if self.across and self.places else values

    def matrix(self, values: Tensor) -> Tensor:
        """`view` of a tensor of the parameter's shape as a matrix `[m, n]`."""
        return self.view(values).reshape(self.shape)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The shape of the layer's rows in the parameter."""
        m, *rest = self.module.weight.shape
        return m // self.blocks, *rest

    @property
    def bias(self) -> Tensor | None:
        """The bias, if there is one that may move: a view of the parameter."""
        return None if self.fixed_bias else self.own_bias

    @property
    def own_bias(self) -> Tensor | None:
        """The bias, whether it may move or not."""
        b: Tensor | None = getattr(self.module, "bias", None)
        return b if b is None or self.blocks == 1 else b[self.rows]

    @property
    def places(self) -> int:
        """Along how many dimensions the layer is laid: 0 of a `Linear`, 2 of a `Conv2d`."""
        return self.module.weight.ndim - 2

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        m, *rest = self.module.weight.shape
        return m // self.blocks, math.prod(rest)

    @property
    def size(self) -> int:
        """Number of weights, `m * n`."""
        return self.module.weight.numel() // self.blocks

    def inputs_of(self, x: Tensor) -> Tensor:
        """What of the module's input is the layer's: of a block its group's channels."""
        return x if self.blocks == 1 else _channels(x, self.places, self.block, self.blocks)

    def outputs_of(self, y: Tensor) -> Tensor:
        """What of the module's output is the layer's: of a block its group's channels."""
        return y if self.blocks == 1 else _channels(y, self.places, self.block, self.blocks)

    def convolve(self, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        """What a block of a convolution computes by itself, with other parameters in place of its own."""
        c: Any = self.module
        W = W.movedim(-1, 1) if self.across else W
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.places - 1]
        return convolve(self.padded(x), W, b, c.stride, 0, c.dilation)

    def unfold(self, x: Tensor) -> Tensor:
        """Inputs `[N, ...]` of the layer as rows `[N * positions, n]`, one for every output position.

        An image without a batch is one sample.
        """
        assert not self.tokens, "tokens are counted, not unfolded"
        if not self.places:
            return x.reshape(-1, x.shape[-1])
        patches = self._patches(x)
        if self.across:
            patches = patches.reshape(len(patches), x.shape[-1 - self.places], -1, patches.shape[-1])
            patches = patches.transpose(1, 2).flatten(1, 2)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def energy(self, x: Tensor) -> Tensor:
        """Sum of the squares of `unfold(x)`, in double precision.

        Of tokens the sum of the curvatures of a column's entries, by the columns there are for every row.
        """
        if self.tokens:
            m, n = self.shape
            return torch.tensor(x.numel() * n / m, dtype=torch.float64, device=x.device)
        squares = x.double().square()
        if not self.places:
            return squares.sum()
        laid = squares.reshape(-1, *x.shape[-self.places :]).sum(dim=0, keepdim=True)
        return self._patches(laid[None]).sum()

    def padded(self, x: Tensor) -> Tensor:
        """Maps `[N, C, length, ...]`, or one without a batch, as a convolution pads them."""
        c: Any = self.module
        x = x.reshape(-1, *x.shape[-self.places - 1 :])
        mode = "constant" if c.padding_mode == "zeros" else c.padding_mode
        return F.pad(x, c._reversed_padding_repeated_twice, mode=mode)

    def _patches(self, x: Tensor) -> Tensor:
        """Patches of a convolution's inputs, `[N, channels * k1 * k2 ..., positions]`."""
        c: Any = self.module
        x = self.padded(x)
        if self.places == 2:
            return F.unfold(x, c.kernel_size, c.dilation, 0, c.stride)
        for i, (k, d, s) in enumerate(zip(c.kernel_size, c.dilation, c.stride, strict=True)):
            x = x.unfold(2 + i, d * (k - 1) + 1, s)[..., ::d]
        x = x.permute(0, 1, *range(2 + self.places, 2 + 2 * self.places), *range(2, 2 + self.places))
        return x.flatten(1, 1 + self.places).flatten(2)

    def augmented(self, x: Tensor) -> Tensor:
        """`unfold(x)` in double precision, with a last column of ones when there is a bias that may move."""
        X = self.unfold(x.double())
        return X if self.bias is None else F.pad(X, (0, 1), value=1.0)

    def split(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Inputs a few samples at a time; `y` is the layer's output, which tells how many."""
        if self.tokens:
            yield from torch.split(x.flatten(), max(1, CHUNK // self.shape[1]))
            return
        x = x.reshape(-1, *x.shape[-1 - self.places :])
        entries = max(1, y.numel() // self.shape[0] * self.shape[1] // max(1, len(x)))
        yield from torch.split(x, max(1, CHUNK // entries))

    def parts(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """`augmented(x)` a few samples at a time, as `split` has them."""
        for part in self.split(x, y):
            yield self.augmented(part)

    def flatten(self, y: Tensor) -> Tensor:
        """Outputs of the layer as rows `[N * positions, m]`, in the order of `unfold`."""
        if self.places:
            y = y.movedim(-1 - self.places, -1)
        return y.reshape(-1, y.shape[-1])


def row_sums(tokens: Tensor, values: Tensor, m: int) -> Tensor:
    """`[m]` for every token the sum of `values [places]` where it stands, `tokens [places]`."""
    return values.new_zeros(m).index_add_(0, tokens.flatten().long(), values)


def _channels(x: Tensor, places: int, block: int, blocks: int) -> Tensor:
    size = x.shape[-1 - places] // blocks
    return x.narrow(-1 - places, block * size, size)


def blocks_of(name: str, module: Matrix, fixed_bias: bool = False) -> list[Layer]:
    """The layers that a module is: itself, or a block for every group of a convolution."""
    count = getattr(module, "groups", 1)
    if count == 1:
        return [Layer(name, module, fixed_bias)]
    return [Layer(f"{name}[{i}]", module, fixed_bias, name, i, count) for i in range(count)]


def every_layer(model: nn.Module) -> list[Layer]:
    """Every `Linear` and convolution of a network as layers, whether they can be pruned or not."""
    found = (item for item in model.named_modules() if isinstance(item[1], KINDS))
    return [layer for name, module in found for layer in blocks_of(name, module)]


def find_layers(model: nn.Module, names: Sequence[str] | None = None) -> list[Layer]:
    """The layers to prune, in the order of `model.named_modules()`.

    Args:
        model: any module.
        names: their names; by default every `Linear` and convolution that is understood.

    Raises:
        ValueError: if there are none, a name is not that of a prunable layer, a layer's weight is computed
            or shared with another layer's, or a weight is not finite.
    """
    return named_layers(model, survey(model).choose(names))


def named_layers(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Layers by name, of a network that was surveyed: of modules, or of single blocks.

    Raises:
        ValueError: if a weight is not finite.
    """
    found: list[Layer] = []
    chosen, modules = set(names), dict(model.named_modules())
    for path in dict.fromkeys(name if name in modules else module_of(name) for name in names):
        module: Any = modules[path]
        for parameter in (module.weight, getattr(module, "bias", None)):
            if parameter is not None and not bool(torch.isfinite(parameter).all()):
                raise ValueError(f"layer {path!r} has a NaN or infinite weight; every weight must be finite")
        layers = blocks_of(path, module)
        found += layers if path in chosen else [layer for layer in layers if layer.name in chosen]
    return found


def never_ran(name: str) -> ValueError:
    """The error to raise for a layer that a pass over the data did not reach."""
    return ValueError(
        f"layer {name!r} saw no input of this data: it did not run as a module (is only its weight used, by "
        "a function or a compiled model?); leave it out with `layers`"
    )


@contextmanager
def visiting(layers: Sequence[Layer], visit: Visit) -> Iterator[None]:
    """Call `visit(name, input, output)` whenever a layer runs; a tensor it returns replaces the output.

    A block is given its group's channels of its module's input and output.
    """
    modules: dict[nn.Module, list[Layer]] = {}
    for layer in layers:
        modules.setdefault(layer.module, []).append(layer)

    def whole(layer: Layer) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]:
        return lambda module, args, kwargs, output: visit(layer.name, _given(args, kwargs), output)

    def blockwise(blocks: Sequence[Layer]) -> Callable[..., Tensor | None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
        ) -> Tensor | None:
            x, axis = _given(args, kwargs), -1 - blocks[0].places
            parts = [*y.chunk(blocks[0].blocks, axis)]
            replaced = False
            for layer in blocks:
                other = visit(layer.name, layer.inputs_of(x), parts[layer.block])
                if other is not None:
                    parts[layer.block], replaced = other, True
            return torch.cat(parts, axis) if replaced else None

        return hook

    handles = [
        module.register_forward_hook(
            whole(found[0]) if found[0].blocks == 1 else blockwise(found), with_kwargs=True
        )
        for module, found in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of a call."""
    return args[0] if args else kwargs["input"]  # type: ignore[no-any-return]
