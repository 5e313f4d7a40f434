"""From a network to operations (graph lowering): traced, batch norms folded, activations fused.

What is understood: Linear, Conv1d and Conv2d (strides, groups, dilation, zero padding), batch norms, sums of
two maps, max and average pooling, means over all places, flattening, dropout, and ReLU, tanh, sigmoid, GELU,
SiLU.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from cbs.data import first_line
from cbs.deploy import kernels as k
from cbs.deploy.program import Operation, Program, Value, planned

ACTIVATIONS: dict[Any, int] = {
    nn.ReLU: k.RELU, F.relu: k.RELU, torch.relu: k.RELU, torch.relu_: k.RELU, "relu": k.RELU, "relu_": k.RELU,
    nn.Tanh: k.TANH, torch.tanh: k.TANH, F.tanh: k.TANH, "tanh": k.TANH,
    nn.Sigmoid: k.SIGMOID, torch.sigmoid: k.SIGMOID, F.sigmoid: k.SIGMOID, "sigmoid": k.SIGMOID,
    nn.ReLU6: k.RELU6, F.relu6: k.RELU6, nn.SiLU: k.SILU, F.silu: k.SILU, nn.GELU: k.GELU, F.gelu: k.GELU,
}  # fmt: skip
IDLE: tuple[Any, ...] = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    F.dropout,
    "contiguous",
    "clone",
)
"""What changes nothing in evaluation mode."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
CONVS = (nn.Conv1d, nn.Conv2d)
LARGEST: dict[str, Any] = {"dilation": 1, "ceil_mode": False, "return_indices": False}
MEANS: dict[str, Any] = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
"""Further arguments of pools, in their order, at the values that are understood."""


class NotLowered(ValueError):
    """A network has what no operation computes."""


def lower(model: nn.Module, shape: Sequence[int]) -> Program:
    """The program of a network for samples of a shape.

    Args:
        model: in evaluation mode, with plain weights in single precision; called with one tensor.
        shape: of one sample, without the batch. Of one number it stands for the last dimension of whatever
            comes, and only linear layers and activations are understood.

    Raises:
        NotLowered: in one line, for what is not understood.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise NotLowered(
                f"{name!r} is {tensor.dtype} on {tensor.device}; float32 on the CPU is understood"
            )
    if _Tracer().is_leaf_module(model, "") and not any(model.children()):
        model = nn.Sequential(model)  # a module of torch's is traced as one step where it is inside another
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever tracing meets
        raise NotLowered(f"it can't be traced ({first_line(error)})") from None
    lowering = _Lowering(model, graph, tuple(int(size) for size in shape))
    try:
        result = lowering.walk()
    except NotLowered:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise NotLowered(f"{type(error).__name__}: {first_line(error)}") from None
    return planned(lowering.ops, lowering.input, result, not lowering.normed)


class _Tracer(fx.Tracer):
    """Takes modules of torch's, and the transposed linear layer of transformers, as one step each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See torch.fx."""
        return _is_transposed(m) or super().is_leaf_module(m, module_qualified_name)


def _is_transposed(module: Any) -> bool:
    cls = type(module)
    return cls.__name__ == "Conv1D" and cls.__module__.startswith("transformers.")


class _Lowering:
    """A graph on its way to operations."""

    def __init__(self, model: nn.Module, graph: fx.Graph, shape: tuple[int, ...]) -> None:
        self.model, self.graph, self.input = model, graph, Value(shape)
        self.modules = dict(model.named_modules())
        self.values: dict[fx.Node, Value] = {}
        self.ops: list[Operation] = []
        self.normed = False  # by a batch norm, which takes the dimension behind the first one for channels

    def walk(self) -> Value:
        """Every node in turn; the value that is the output."""
        given = [node for node in self.graph.nodes if node.op == "placeholder"]
        if len(given) != 1 or given[0].args:
            raise NotLowered("it does not take one tensor")
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.input
            elif node.op == "output":
                if not isinstance(node.args[0], fx.Node) or node.args[0] not in self.values:
                    raise NotLowered("it does not give one tensor")
                result = self.values[node.args[0]]
                if result.made is None:
                    raise NotLowered("nothing is computed")
                return result
            elif not self._is_size(node):
                self.values[node] = self._lowered(node)
        raise NotLowered("it has no output")

    def _lowered(self, node: fx.Node) -> Value:
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        what: Any = type(module) if module is not None else node.target
        if module is not None and (module._forward_hooks or module._forward_pre_hooks):
            raise NotLowered(f"module {node.target!r} has hooks")
        x = self._value(node.args[0])
        self._require_unread(node, module)
        if what in IDLE:
            return x
        if what in ACTIVATIONS:
            if getattr(module, "approximate", node.kwargs.get("approximate", "none")) != "none":
                raise NotLowered("GELU by an approximation")
            return self._activate(node, x, ACTIVATIONS[what])
        if what is nn.Linear or _is_transposed(module):
            return self._linear(module, x)
        if len(x.shape) == 1 and what not in SUMS and what is not nn.BatchNorm1d:
            raise NotLowered(f"{_name(what)} of a vector")
        if what in CONVS:
            return self._conv(module, x)
        if what in NORMS:
            return self._norm(node, module, x)
        if what in SUMS:
            return self._add(node, x)
        if what in (nn.Flatten, torch.flatten, "flatten", "view", "reshape", torch.reshape):
            return self._flat(node, module, x)
        return self._pooled(node, module, what, x)

    def _linear(self, module: Any, x: Value) -> Value:
        W = _numpy(module.weight.T if _is_transposed(module) else module.weight)
        if x.shape != W.shape[1:]:
            raise NotLowered(f"a linear layer on samples of shape {list(x.shape)}")
        op = Operation(k.LINEAR, [x], Value((len(W),)), W, _bias(module, len(W)))
        return self._add_op(op)

    def _conv(self, module: Any, x: Value) -> Value:
        if module.padding_mode != "zeros":
            raise NotLowered(f"padding by {module.padding_mode}")
        W = _numpy(module.weight)
        flat = W.ndim == 3
        if flat:
            W = W[:, :, None, :]
        channels, height, width = (x.shape[0], 1, x.shape[1]) if flat else x.shape
        pairs = [_pair(getattr(module, name), flat) for name in ("stride", "dilation")]
        if isinstance(module.padding, str):
            reverse = [*module._reversed_padding_repeated_twice]
            left, right, top, bottom = [*reverse, 0, 0][:4]
        else:
            vertical, left = _pair(module.padding, flat, 0)
            top, bottom, right = vertical, vertical, left
        whole = np.zeros((len(W), channels, *W.shape[2:]), dtype=np.float32)
        per, out = W.shape[1], len(W) // module.groups
        for g in range(module.groups):
            whole[g * out : (g + 1) * out, g * per : (g + 1) * per] = W[g * out : (g + 1) * out]
        if channels != per * module.groups:
            raise NotLowered(f"a convolution on {channels} channels")
        (sh, sw), (dh, dw) = pairs
        high = (height + top + bottom - dh * (W.shape[2] - 1) - 1) // sh + 1
        wide = (width + left + right - dw * (W.shape[3] - 1) - 1) // sw + 1
        if high < 1 or wide < 1:
            raise NotLowered("an image that is smaller than the kernel")
        shape = (len(W), wide) if flat else (len(W), high, wide)
        op = Operation(
            k.CONV, [x], Value(shape), whole, _bias(module, len(W)), stride=(sh, sw), dilation=(dh, dw),
            padding=(top, bottom, left, right),
            fields={k.C: channels, k.H: height, k.W: width, k.OUT: len(W), k.HO: high, k.WO: wide},
        )  # fmt: skip
        return self._add_op(op)

    def _norm(self, node: fx.Node, module: Any, x: Value) -> Value:
        """A batch norm, into the layer before it where nothing else reads that."""
        if module.running_mean is None:
            raise NotLowered("a batch norm without running statistics")
        if x.shape[0] != module.num_features:
            raise NotLowered(f"a batch norm on samples of shape {list(x.shape)}")
        self.normed = True
        mean, var = module.running_mean.double(), module.running_var.double()
        scale = (var + module.eps).rsqrt()
        if module.weight is not None:
            scale = scale * module.weight.detach().double()
        shift = -mean * scale + (0 if module.bias is None else module.bias.detach().double())
        a, b = scale.numpy(), shift.numpy()
        made = x.made
        if made is not None and made.W is not None and made.act == k.KEEP and self._alone(node):
            W = made.W.astype(np.float64) * a.reshape(-1, *[1] * (made.W.ndim - 1))
            assert made.b is not None
            made.W, made.b = W.astype(np.float32), (made.b * a + b).astype(np.float32)
            return x
        both = np.stack([a, b], axis=1).astype(np.float32)
        fields = {k.CHANNELS: x.shape[0], k.PLACES: x.size // x.shape[0]}
        return self._add_op(Operation(k.AFFINE, [x], Value(x.shape), None, both, fields))

    def _activate(self, node: fx.Node, x: Value, act: int) -> Value:
        if x.made is not None and x.made.act == k.KEEP and self._alone(node):
            x.made.act = act
            return x
        channels = x.shape[0]
        unit = np.tile(np.array([1, 0], dtype=np.float32), (channels, 1))
        fields = {k.CHANNELS: channels, k.PLACES: x.size // channels}
        return self._add_op(Operation(k.AFFINE, [x], Value(x.shape), None, unit, fields, act))

    def _add(self, node: fx.Node, x: Value) -> Value:
        other = self._value(node.args[1])
        if other.shape != x.shape or node.kwargs:
            raise NotLowered("a sum of two shapes")
        return self._add_op(Operation(k.ADD, [x, other], Value(x.shape), fields={k.SIZE: x.size}))

    def _flat(self, node: fx.Node, module: Any, x: Value) -> Value:
        given = [*node.args[1:], *node.kwargs.values()]
        if isinstance(module, nn.Flatten):
            given = [module.start_dim, module.end_dim]
        elif node.target in ("view", "reshape", torch.reshape):
            sizes = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
            batch = isinstance(sizes[0], fx.Node) and self._is_size(sizes[0])
            if len(sizes) != 2 or not (
                (batch and sizes[1] in (-1, x.size)) or (sizes[0] == -1 and sizes[1] == x.size)
            ):
                raise NotLowered("a view that is more than flattening")
            given = [1, -1]
        if given not in ([1], [1, -1]):
            raise NotLowered(f"flattening of dimensions {given}")
        return Value((x.size,), x.made, x)

    def _pooled(self, node: fx.Node, module: Any, what: Any, x: Value) -> Value:
        """Pools, and means over all places."""
        if len(x.shape) != 3:
            raise NotLowered(f"{_name(what)} on samples of shape {list(x.shape)}")
        channels, height, width = x.shape
        given = [*node.args[1:]]
        if what in (torch.mean, "mean"):
            where = given[0] if given else node.kwargs.get("dim")
            keep = bool(node.kwargs.get("keepdim", given[1] if len(given) > 1 else False))
            if not isinstance(where, tuple | list) or sorted(d % 4 for d in where) != [2, 3]:
                raise NotLowered("a mean over other dimensions than the places")
            return self._pool(
                x, (height, width), (1, 1), (0, 0), False, (channels, 1, 1) if keep else (channels,)
            )
        if what in (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d):
            size = (
                module.output_size if module is not None else (given or [node.kwargs.get("output_size")])[0]
            )
            if size not in (1, (1, 1), [1, 1]):
                raise NotLowered(f"adaptive pooling to {size}")
            return self._pool(x, (height, width), (1, 1), (0, 0), False, (channels, 1, 1))
        if what in (nn.MaxPool2d, nn.AvgPool2d):
            if module.ceil_mode or getattr(module, "dilation", 1) not in (1, (1, 1)):
                raise NotLowered("a pool of other windows")
            mean = what is nn.AvgPool2d
            if mean and (module.divisor_override or not module.count_include_pad):
                raise NotLowered("a mean that counts otherwise")
            if getattr(module, "return_indices", False):
                raise NotLowered("a pool that gives places")
            settings = module.kernel_size, module.stride, module.padding
        elif what in (F.max_pool2d, F.avg_pool2d):
            mean = what is F.avg_pool2d
            usual = MEANS if mean else LARGEST
            asked = dict(zip(("kernel_size", "stride", "padding", *usual), given, strict=False)) | node.kwargs
            if any(asked.get(name, value) not in (value, (value, value)) for name, value in usual.items()):
                raise NotLowered("a pool of other windows")
            settings = asked["kernel_size"], asked.get("stride"), asked.get("padding", 0)
        else:
            raise NotLowered(f"{_name(what)} is not understood")
        window = _pair(settings[0])
        stride = window if settings[1] in (None, (), []) else _pair(settings[1])
        return self._pool(x, window, stride, _pair(settings[2]), not mean)

    def _pool(
        self,
        x: Value,
        window: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        largest: bool,
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        channels, height, width = x.shape
        high, wide = (
            (size + 2 * p - w) // s + 1
            for size, p, w, s in zip((height, width), padding, window, stride, strict=True)
        )
        if high < 1 or wide < 1:
            raise NotLowered("an image that is smaller than the window")
        fields = {
            k.C: channels, k.H: height, k.W: width, k.OUT: channels, k.HO: high, k.WO: wide, k.SH: stride[0],
            k.SW: stride[1], k.PT: padding[0], k.PL: padding[1], k.KH: window[0], k.KW: window[1],
            k.LARGEST: int(largest),
        }  # fmt: skip
        result = Value((channels, high, wide) if shape is None else shape)
        return self._add_op(Operation(k.POOL, [x], result, fields=fields))

    def _add_op(self, op: Operation) -> Value:
        op.result.made = op
        self.ops.append(op)
        return op.result

    def _value(self, node: Any) -> Value:
        if not isinstance(node, fx.Node) or node not in self.values:
            raise NotLowered("an operation on what is no tensor of the network")
        return self.values[node]

    def _alone(self, node: fx.Node) -> bool:
        """Whether a node is all that reads what is before it."""
        before = node.args[0]
        while isinstance(before, fx.Node):
            if len(before.users) != 1:
                return False
            module = self.modules.get(str(before.target)) if before.op == "call_module" else None
            if (type(module) if module is not None else before.target) not in IDLE:
                return True
            before = before.args[0]
        return False

    def _require_unread(self, node: fx.Node, module: Any) -> None:
        """Refuse what changes in place a tensor that others read later."""
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        written = name == "iadd" or (module is None and name.endswith("_"))
        if not (written or node.kwargs.get("inplace") or getattr(module, "inplace", False)):
            return
        order = {each: i for i, each in enumerate(self.graph.nodes)}
        before = node.args[0]
        while isinstance(before, fx.Node):
            if any(order[user] > order[node] for user in before.users):
                raise NotLowered(f"{name!r} changes in place what is read later")
            if before not in self.values or not before.args or not isinstance(before.args[0], fx.Node):
                return
            same = self.values.get(before.args[0])
            value = self.values[before]
            if same is None or (value is not same and value.same is not same):
                return
            before = before.args[0]

    def _is_size(self, node: fx.Node) -> bool:
        """Whether a node is the number of samples."""
        if node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
            return node.args[0] in self.values
        if node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",):
            return node.args[0] in self.values
        if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
            return isinstance(node.args[0], fx.Node) and self._is_size(node.args[0])
        return False


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().numpy().astype(np.float32)


def _bias(module: Any, count: int) -> NDArray[np.float32]:
    return np.zeros(count, dtype=np.float32) if module.bias is None else _numpy(module.bias)


def _pair(value: Any, flat: bool = False, other: int = 1) -> tuple[int, int]:
    """A setting in both directions; of one direction for what is flat."""
    if isinstance(value, tuple | list):
        return (other, int(value[0])) if flat else (int(value[0]), int(value[1]))
    return (other, int(value)) if flat else (int(value), int(value))


def _name(what: Any) -> str:
    return what if isinstance(what, str) else getattr(what, "__name__", str(what))
