"""`sparse()`: a network for inference that makes use of its zeros, on CPUs and on GPUs.

On CPUs a network, or whatever parts of it are understood, becomes one compiled call (see
`cbs.deploy.program`). What is used where is decided by measurement on this machine: a part stays as PyTorch
runs it where that is faster. On GPUs linear layers with two zeros among every four neighbours go to the
sparse tensor cores.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.deploy.batch import Batch, call, difference
from cbs.deploy.export import example_of, slimmed
from cbs.deploy.lowering import NotLowered, lower
from cbs.deploy.program import Program
from cbs.deploy.timing import interleaved
from cbs.result import PruneResult

SAME = 1e-4
"""Largest difference of an output from PyTorch's, relative to the largest output."""
GAIN = 1.05
"""How many times faster a compiled part must be to be taken."""
SECONDS = 0.06
"""For measuring one part."""
CHOICES = "_cbs_choices"


@dataclass(frozen=True)
class Choice:
    """What became of a part of a network.

    Attributes:
        name: of the module; empty for the whole network.
        used: `compiled`, or `torch`.
        reason: why it stays with torch; None for what is compiled.
        dense: seconds of PyTorch, median; None where nothing was measured.
        compiled: the same of the compiled part.
    """

    name: str
    used: str
    reason: str | None
    dense: float | None = None
    compiled: float | None = None


class Compiled(nn.Module):
    """A network, or a part of one, as one call: on the CPU, in single precision, without gradients.

    It takes any number of samples of the shape it was made for, releases the interpreter's lock while it
    computes, and may be called from several threads at once; a call takes one thread.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        from cbs.deploy.kernels import run

        self.program = program
        self._run = run
        self._arenas: deque[tuple[Any, int]] = deque()
        self._known: tuple[torch.Size, torch.Size, int] | None = None
        p = program
        self._tables = (
            p.ops.ctypes.data, len(p.ops), p.index.ctypes.data, len(p.index), p.values.ctypes.data,
            len(p.values),
        )  # fmt: skip
        self._sizes = math.prod(p.inside), math.prod(p.outside), p.last, p.together

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of inputs `[N, ...]`.

        Raises:
            ValueError: for inputs of another shape or type, or that need gradients.
        """
        shape = x.shape
        if self._known is None or shape != self._known[0]:
            self._known = self._measured(shape)
        if not x.is_cpu or x.dtype is not torch.float32 or (x.requires_grad and torch.is_grad_enabled()):
            raise ValueError(
                f"inputs must be float32 on the CPU without gradients, got {x.dtype} on {x.device}"
                f"{' with gradients' if x.requires_grad else ''}; train the network that was compiled"
            )
        if not x.is_contiguous():
            x = x.contiguous()
        _, outside, count = self._known
        y = torch.empty(outside, dtype=torch.float32)
        try:
            arena, place = self._arenas.pop()
        except IndexError:
            arena = np.zeros(self.program.room, dtype=np.float32)
            place = arena.ctypes.data
        self._run(*self._tables, place, len(arena), x.data_ptr(), y.data_ptr(), count, *self._sizes)
        self._arenas.append((arena, place))
        return y

    def _measured(self, shape: torch.Size) -> tuple[torch.Size, torch.Size, int]:
        """The shape of inputs, of their outputs, and the number of samples.

        Raises:
            ValueError: if it is not that of samples that the program takes.
        """
        inside = self.program.inside
        leading = shape[: len(shape) - len(inside)]
        if shape[len(leading) :] != inside or (len(leading) != 1 and not self.program.rows):
            raise ValueError(
                f"inputs must be samples of shape {list(inside)}, got {list(shape)}; compile for those"
            )
        return shape, leading + self.program.outside, math.prod(leading)

    def extra_repr(self) -> str:
        """What it computes."""
        p = self.program
        shapes = f"{list(p.inside)} -> {list(p.outside)}"
        return f"{shapes}, {len(p.ops)} steps, {p.multiplications:,} multiplications"

    def __reduce__(self) -> Any:
        return Compiled, (self.program,)


def sparse(
    model: nn.Module | PruneResult, inputs: Any = None, *, device: str | torch.device = "cpu"
) -> nn.Module:
    """A copy of a network that makes use of its zeros, for inference.

    On the CPU parts of the network are compiled and kept where they are faster on this machine, with as many
    threads as PyTorch has now, on a batch of this size; `choices(...)` tells what became of which. On CUDA
    see `cbs.deploy.semi_structured`.

    Args:
        model: a network or a result of `prune`; it is not changed.
        inputs: a batch of inputs, of the size that matters (one sample for latency); by default the first
            calibration sample of a result, or a random one for a network that begins with a linear layer.
        device: `cpu` or `cuda`.

    Raises:
        ValueError: in one line, for what is no network, if inputs are needed, or if there is no such device.
    """
    if torch.device(device).type != "cpu":
        from cbs.deploy.semi_structured import semi_structured

        return semi_structured(slimmed(model, inputs)[1], device)
    given = example_of(model, inputs)
    network = slimmed(model, inputs)[1].cpu()
    batch = given if inputs is not None or given is None else given[:1]
    batch = _guessed(network) if batch is None else batch.to("cpu")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        wanted = call(network, batch)
        seen = _seen(network, batch)
        made: list[Choice] = []
        found = _best(network, "", seen, made)
        try:
            off = difference(call(found, batch), wanted)
        except Exception:  # whatever a network raises that looks into a part that was replaced
            off = float("inf")
        if not off <= SAME:
            found, made = (
                network,
                [Choice("", "torch", "it does not run, or gives other outputs, with parts compiled")],
            )
    vars(found)[CHOICES] = made
    return found


def choices(model: nn.Module) -> list[Choice]:
    """What became of the parts of a network that `sparse` made, in the order of its modules.

    Raises:
        ValueError: for a network that it did not make.
    """
    found = vars(model).get(CHOICES)
    if found is None:
        raise ValueError("model was not made by cbs.sparse")
    return list(found)


def compiled(model: nn.Module, x: Tensor) -> Compiled:
    """A network, or a part, as one program, tried on inputs; whether that is faster is not asked.

    Args:
        model: in evaluation mode.
        x: inputs `[N, ...]`.

    Raises:
        NotLowered: in one line, if it is not understood or gives other outputs.
    """
    reasons = []
    for shape in [x.shape[1:]] + ([x.shape[-1:]] if x.ndim != 2 else []):
        try:
            found = Compiled(lower(model, shape))
            off = difference(found(x), model(x.clone()))
            if off <= SAME:
                return found
            reasons.append(f"outputs differ by {off:.1e} of the largest")
        except ValueError as error:
            reasons.append(str(error))
    raise NotLowered(reasons[0])


def _best(module: nn.Module, name: str, seen: dict[str, Tensor | None], made: list[Choice]) -> nn.Module:
    """The fastest of a module: as it is, with parts compiled, or compiled as a whole."""
    inner: list[Choice] = []
    mixed = module
    if any(module.children()) and not isinstance(module, nn.MultiheadAttention):
        replaced = {
            key: _best(child, f"{name}.{key}" if name else key, seen, inner)
            for key, child in module._modules.items()
            if child is not None
        }
        if any(replaced[key] is not child for key, child in module.named_children()):
            mixed = copy.copy(module)
            mixed._modules = {**module._modules, **replaced}
            if (x := seen.get(name)) is not None and not _agree(mixed, module, x):
                mixed, inner = (
                    module,
                    [Choice(name, "torch", "it looks into the parts that would be compiled")],
                )
    x = seen.get(name)
    if x is None:
        made += inner or [Choice(name, "torch", "it does not run, or not with one tensor of one shape")]
        return mixed
    try:
        whole = compiled(module, x)
    except NotLowered as error:
        if inner:
            made += inner
        elif any(True for _ in module.parameters()):
            made.append(Choice(name, "torch", str(error)))
        return mixed
    ways = [lambda: module(x), lambda: whole(x)] + ([lambda: mixed(x)] if mixed is not module else [])
    times = [t.median for t in interleaved(ways, seconds=SECONDS)]
    if times[1] * GAIN <= times[0] and times[1] <= min(times):
        made.append(Choice(name, "compiled", None, times[0], times[1]))
        return whole
    if inner and mixed is not module:
        made += inner
    elif any(True for _ in module.parameters()):
        made.append(Choice(name, "torch", "it is faster", times[0], times[1]))
    return mixed


def _agree(module: nn.Module, plain: nn.Module, x: Tensor) -> bool:
    """Whether a module still runs, and gives the same, with its parts compiled."""
    try:
        return difference(module(x.clone()), plain(x.clone())) <= SAME
    except Exception:  # whatever it raises that looks into a part that was replaced
        return False


def _seen(network: nn.Module, batch: Batch) -> dict[str, Tensor | None]:
    """For every module the tensor that it is given; None where that is not one of one shape."""
    found: dict[str, Tensor | None] = {}

    def hook(name: str) -> Any:
        def look(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
            x = args[0] if len(args) == 1 and not kwargs and isinstance(output, Tensor) else None
            if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.ndim < 2:
                found[name] = None
                return
            before = found.get(name, x)
            found[name] = x.clone() if before is not None and before.shape == x.shape else None

        return look

    handles = [m.register_forward_hook(hook(n), with_kwargs=True) for n, m in network.named_modules()]
    try:
        call(network, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _guessed(network: nn.Module) -> Batch:
    """A random sample for a network whose first layer is linear.

    Raises:
        ValueError: for any other.
    """
    layers = [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))]
    if layers and isinstance(layers[0], nn.Linear):
        x = torch.randn(1, layers[0].in_features, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                network(x.clone())
            return x
        except Exception:  # whatever the network raises
            pass
    raise ValueError(
        "inputs are missing: what is faster is measured on them; give a batch of the size that matters"
    )
