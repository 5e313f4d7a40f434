"""What layers do when the network runs: whether it is what a Linear or Conv2d of their weights does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cbs.network.answers import raw
from cbs.network.layers import Layer, visiting

SLACK = 16
"""Rounding errors that an output may have: of the layer's type, relative to its terms, times root n."""


def misbehaving(model: nn.Module, layers: Sequence[Layer], inputs: Tensor) -> dict[str, str]:
    """Why some layers are not understood, from a run of the network: by name.

    A layer's output must be `W x + b` of the input it is given, of an Embedding the rows that this names. Its
    weight must not change while it runs, nor be used by anything else, as tied decoders and attention do.

    Args:
        model: the network, in evaluation mode.
        layers: to watch.
        inputs: a few samples.

    Raises:
        ValueError: if the model refuses the inputs.
    """
    found: dict[str, str] = {}
    by_name = {layer.name: layer for layer in layers}
    modules: dict[str, Any] = {layer.path: layer.module for layer in layers}
    before = {path: module.weight.detach().clone() for path, module in modules.items()}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        if not _computes(by_name[name], x, y):
            found.setdefault(by_name[name].path, _OFF[by_name[name].tokens])

    with torch.no_grad(), visiting(layers, visit), _Uses(modules) as uses, _inside(modules, uses):
        raw(model, inputs)
    for name, module in modules.items():
        if not torch.equal(module.weight, before[name]):
            found[name] = "its weight changes when it runs"
        elif name in uses.found:
            found[name] = "its weight is also used without running it"
    return found


def _computes(layer: Layer, x: Tensor, y: Tensor) -> bool:
    if layer.tokens:
        return torch.equal(y, F.embedding(x, layer.weight.detach()))
    W = layer.weight.detach().double().reshape(layer.shape)
    X, Y = layer.unfold(x).double(), layer.flatten(y).double()
    bias: Tensor | None = layer.own_bias
    b = W.new_zeros(len(W)) if bias is None else bias.detach().double()
    if Y.shape != (len(X), len(W)):
        return False
    unit = max(torch.finfo(t.dtype).eps for t in (x, y, layer.weight))
    if x.is_cuda:
        unit = max(unit, 2.0**-11)  # TF32 has 11 bits
    size = X.abs() @ W.abs().T + b.abs()
    off = (Y - X @ W.T - b).abs()
    return not bool((off > SLACK * math.sqrt(layer.shape[1]) * unit * size).any())  # NaN is another matter


_OFF = {
    False: "its output is not W x + b of its input, perhaps by a hook",
    True: "its output is not the rows of its weight that its input names, perhaps by a hook",
}
"""Of a layer that does not compute what is said of it: of tokens, or not."""


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which layers' weights an operation takes while the layer does not run."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owners = {m.weight.untyped_storage().data_ptr(): path for path, m in modules.items()}
        self.running: list[str] = []
        self.found: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without PyTorch's compiler, whose import takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for item in [*args, *(kwargs or {}).values()]:
            for tensor in item if isinstance(item, list | tuple) else (item,):
                if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                    name = self.owners.get(tensor.untyped_storage().data_ptr())
                    if name is not None and name not in self.running:
                        self.found.add(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _inside(modules: Mapping[str, nn.Module], uses: _Uses) -> Iterator[None]:
    """Tells `uses` which layers run."""

    def enter(name: str) -> Any:
        return lambda module, args: uses.running.append(name)

    def leave(name: str) -> Any:
        return lambda module, args, output: uses.running.remove(name)

    handles = [
        module.register_forward_pre_hook(enter(path), prepend=True) for path, module in modules.items()
    ]
    handles += [
        module.register_forward_hook(leave(path), always_call=True) for path, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
