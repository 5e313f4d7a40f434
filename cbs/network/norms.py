"""Statistics of batch norms computed anew on calibration data: batch-norm recalibration.

A batch norm in evaluation mode subtracts the mean and divides by the deviation that its inputs had in
training. Pruning changes these inputs, most of all deep in a network, where what all layers before lost adds
up. Their true mean and variance are had without labels, by running the network.

On few samples, or samples that were augmented otherwise in training, the statistics of the dense network
itself come out different from those it was trained with, and taking them would harm it: ResNet20 falls from
91.05% to 88.10% with those of 1,000 of its training images. With the dense network at hand the difference
cancels: a norm is made to give what it gave in the dense network, on the same samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cbs.data import Samples
from cbs.network.evaluate import answer, evaluating, forward

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
STOCK = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")
"""What a norm must have from torch to compute what its kind computes."""
Statistics = tuple[Tensor, Tensor, Tensor]
"""Running mean, running variance, and the number of batches that they stand for."""


class _Enough(BaseException):
    """Ends a forward pass behind the norm that is at work; no `except Exception` in a model stops it."""


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations of every channel, in double precision, over parts.

    Parts are put together by the formula of Chan, Golub and LeVeque (1979), which loses nothing where the
    mean is large.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    @property
    def variance(self) -> Tensor:
        """Unbiased, of every channel; of two values at least."""
        return self.squares / (self.count - 1)

    def add(self, x: Tensor) -> None:
        """Take in inputs `[N, C, ...]`."""
        values = x.detach().double().transpose(0, 1).flatten(1)
        n = values.shape[1]
        if not n:
            return
        mean = values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        total, away = self.count + n, mean - self.mean
        self.squares = self.squares + squares + away.square() * (self.count * n / total)
        self.mean = self.mean + away * (n / total)
        self.count = total


def find_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms that keep running statistics, by name; those of other classes are not understood."""
    found = {}
    for name, module in model.named_modules():
        kind = next((kind for kind in KINDS if isinstance(module, kind)), None)
        if kind is None or getattr(module, "running_mean", None) is None:
            continue
        own = any(key in vars(module) for key in STOCK)
        if not own and all(getattr(type(module), key) is getattr(kind, key) for key in STOCK):
            found[name] = module
    return found


def recompute_norms(
    model: nn.Module, samples: Samples, dense: nn.Module | None = None, *, until: float = math.inf
) -> list[str]:
    """Give batch norms the statistics of their inputs on some samples, in place.

    Norm by norm in running order, each with those before it right already, from the mean `m` and the unbiased
    variance `v`, over samples and positions, of what it is given in evaluation mode. So they do not depend on
    how the samples are split into batches. Without a dense network the running statistics become `m` and `v`.
    With one, whose norm has running statistics `m_0` and `v_0` and inputs of mean `m_d` and variance `v_d`,

        running variance  (v_0 + eps) v / v_d - eps, or 0 if that is less
        running mean      m + (m_0 - m_d) sqrt((new variance + eps) / (v_0 + eps))

    so that what the norm gives has the mean and the variance that it has in the dense network; a network in
    which nothing changed keeps its statistics. Where `v_d` is 0 the variance stays.

    It takes a pass for every norm, as far as that norm. A norm that runs several times in a pass gets the
    statistics of all its inputs together, with its old ones in that pass.

    Left as they are: norms without running statistics, of classes other than torch's own, that do not run,
    that see a single value a channel, or whose inputs are not finite. Modes, momentum, weights and biases do
    not change, and `num_batches_tracked` becomes the number of batches. Whatever ends it early, Ctrl-C too,
    leaves all statistics as they were, and so does the end of the time.

    Args:
        model: the network.
        samples: inputs; targets are not looked at.
        dense: the network as it was before, with norms of the same names; None if there is none.
        until: when to end, by `time.perf_counter`; asked before every norm.

    Returns:
        Names of the norms that have new statistics, in running order.
    """
    norms = find_norms(model)
    if not norms:
        return []
    kept = read_statistics(model)
    count = sum(1 for _ in samples.batches())
    before = {} if dense is None else _before(dense, samples)
    done: list[str] = []
    try:
        with evaluating(model):
            for name, calls in _calls(model, norms, samples).items():
                if time.perf_counter() >= until:
                    put_statistics(model, kept)
                    return []
                moments = _moments(model, norms[name], calls, samples)
                if moments.count > 1 and _set(norms[name], _wanted(moments, before.get(name)), count):
                    done.append(name)
    except BaseException:
        put_statistics(model, kept)
        raise
    return done


def read_statistics(model: nn.Module) -> dict[str, Statistics]:
    """Copies of the statistics of a network's norms, by name."""
    return {name: _statistics(norm) for name, norm in find_norms(model).items()}


def put_statistics(model: nn.Module, kept: Mapping[str, Statistics]) -> None:
    """Put statistics that were read back, in place."""
    norms = find_norms(model)
    for name, statistics in kept.items():
        _put(norms[name], statistics)


def _calls(model: nn.Module, norms: dict[str, _BatchNorm], samples: Samples) -> dict[str, int]:
    """How often every norm runs in a pass, in the order in which they first run."""
    found: dict[str, int] = {}

    def hook(name: str) -> Any:
        def count(module: nn.Module, args: Any) -> None:
            found[name] = found.get(name, 0) + 1

        return count

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in norms.items()]
    try:
        forward(model, samples.first(samples.batch))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _moments(model: nn.Module, norm: _BatchNorm, calls: int, samples: Samples) -> _Moments:
    """Of a norm's inputs, over all samples."""
    moments, seen = _Moments(), 0

    def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal seen
        moments.add(args[0] if args else kwargs["input"])
        seen += 1
        if seen == calls:
            raise _Enough

    handle = norm.register_forward_pre_hook(take, with_kwargs=True)
    try:
        for inputs, _ in samples.batches():
            seen = 0
            with _until_enough():
                answer(model, inputs)
    finally:
        handle.remove()
    return moments


@contextmanager
def _until_enough() -> Iterator[None]:
    try:
        yield
    except _Enough:
        pass


def _before(dense: nn.Module, samples: Samples) -> dict[str, tuple[_BatchNorm, _Moments]]:
    """The norms of the dense network that run, and the moments of their inputs, in a single pass."""
    norms = find_norms(dense)
    found = {name: _Moments() for name in norms}

    def hook(name: str) -> Any:
        return lambda module, args, kwargs: found[name].add(args[0] if args else kwargs["input"])

    handles = [norm.register_forward_pre_hook(hook(name), with_kwargs=True) for name, norm in norms.items()]
    try:
        with evaluating(dense):
            for inputs, _ in samples.batches():
                forward(dense, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (norms[name], moments) for name, moments in found.items() if moments.count > 1}


def _wanted(moments: _Moments, before: tuple[_BatchNorm, _Moments] | None) -> tuple[Tensor, Tensor]:
    """The running mean and variance that a norm should have; see `recompute_norms`."""
    mean, variance = moments.mean, moments.variance
    if before is None:
        return mean, variance
    norm, dense = before
    mean_then, variance_then, _ = (buffer.double() for buffer in _statistics(norm))
    old = variance_then + norm.eps
    new = (torch.where(dense.variance > 0, variance / dense.variance, 1.0) * old).clamp(norm.eps)
    return mean + (mean_then - dense.mean) * (new / old).sqrt(), new - norm.eps


def _set(norm: _BatchNorm, wanted: tuple[Tensor, Tensor], count: int) -> bool:
    """Write statistics into a norm, if they are finite."""
    old = _statistics(norm)
    _put(norm, (*wanted, torch.tensor(count)))
    if not all(bool(torch.isfinite(buffer).all()) for buffer in _statistics(norm)):
        _put(norm, old)
        return False
    return True


def _statistics(norm: _BatchNorm) -> Statistics:
    """Copies of a norm's running statistics."""
    return tuple(buffer.clone() for buffer in _buffers(norm))  # type: ignore[return-value]


def _put(norm: _BatchNorm, statistics: Statistics) -> None:
    with torch.no_grad():
        for buffer, values in zip(_buffers(norm), statistics, strict=True):
            buffer.copy_(values)


def _buffers(norm: _BatchNorm) -> Statistics:
    return norm.running_mean, norm.running_var, norm.num_batches_tracked  # type: ignore[return-value]
