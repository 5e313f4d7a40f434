"""Samples: inputs and targets in batches, of one shape or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbs.data.nested import Nested, cast, describe, joined, pieces
from cbs.data.words import kind

BATCH = 500
"""Samples that a network is given at once, unless the data comes in batches of its own."""


class Ragged(tuple[Any, ...]):
    """Inputs or targets whose shapes differ from batch to batch, as of texts: a part for each."""

    __slots__ = ()


@dataclass(frozen=True)
class Samples:
    """Inputs and targets of N samples.

    Attributes:
        inputs: of the network: a tensor `[N, ...]`, or a structure of those (`cbs.data.nested`), with the
            samples in the first dimension; `Ragged` parts of either where shapes differ.
        targets: of the loss, the same; None where there are none.
        batch: most samples that the network is given at once.

    Raises:
        ValueError: if the two disagree in number, there are none, or one is complex or not finite.
    """

    inputs: Any
    targets: Any = None
    batch: int = BATCH

    def __post_init__(self) -> None:
        if isinstance(self.inputs, Ragged):
            for inputs, targets in self.groups():
                Samples(inputs, targets)
            return
        inputs, targets = self.inputs, self.targets
        count = len(targets) if isinstance(targets, Tensor) and targets.ndim else None
        if not isinstance(inputs, Tensor | Nested):
            inputs = Nested.of(inputs, count)
            object.__setattr__(self, "inputs", inputs)
        if targets is not None and not isinstance(targets, Tensor | Nested):
            targets = Nested.of(targets, len(inputs), "targets")
            object.__setattr__(self, "targets", targets)
        shapes = [list(part.shape) for part in (inputs, targets) if part is not None]
        if not all(shapes) or shapes[0][0] != shapes[-1][0]:
            raise ValueError(
                f"data: inputs {shapes[0]} and targets {shapes[-1]} must have as "
                "many samples in their first dimension (a DataLoader needs a batch_size for that)"
            )
        if not shapes[0][0]:
            raise ValueError("data holds no samples; give at least one")
        for name, values in (("inputs", inputs), ("targets", targets)):
            for tensor in values.tensors if isinstance(values, Nested) else (values,):
                if tensor is not None:
                    _check(name, tensor)

    def __repr__(self) -> str:
        if isinstance(self.inputs, Ragged):
            return f"Samples({len(self)} in {len(self.inputs)} parts of differing shapes)"
        shapes = [
            list(part.shape) if isinstance(part, Tensor) else "none" if part is None else part.describe()
            for part in (self.inputs, self.targets)
        ]
        return f"Samples({len(self)}: inputs {shapes[0]}, targets {shapes[1]})"

    def __len__(self) -> int:
        return sum(map(len, self.inputs)) if isinstance(self.inputs, Ragged) else len(self.inputs)

    @property
    def labelled(self) -> bool:
        """Whether there are targets."""
        return self.targets is not None

    @property
    def ragged(self) -> bool:
        """Whether shapes differ from batch to batch."""
        return isinstance(self.inputs, Ragged)

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        first: torch.device = next(self.groups())[0].device
        return first

    def groups(self) -> Iterator[tuple[Any, Any]]:
        """Inputs and targets (or None), once for every shape that there is, without copying them."""
        if not isinstance(self.inputs, Ragged):
            yield self.inputs, self.targets
            return
        yield from zip(self.inputs, self.targets or [None] * len(self.inputs), strict=True)

    def batches(self, size: int = BATCH) -> Iterator[tuple[Any, Any]]:
        """Copies of the samples in order, `size` at a time and never more than `batch`.

        A network or a loss that changes what it is given in place changes nothing for later passes. Inputs
        are what `cbs.network.evaluate.forward` takes; targets are None where there are none.
        """
        size = min(size, self.batch)
        for inputs, targets in self.groups():
            parts = pieces(inputs, size)
            known = [None] * -(-len(inputs) // size) if targets is None else pieces(targets, size)
            for x, y in zip(parts, known, strict=True):
                yield x.clone(), None if y is None else y.clone()

    def first(self, count: int) -> Any:
        """A copy of the inputs of the first `count` samples, or of one batch if that is smaller."""
        return next(self.batches(count))[0]

    def few(self, count: int) -> Samples:
        """The first `count` samples, or all if there are fewer."""
        return self.take(np.arange(min(count, len(self))))

    def take(self, index: Any) -> Samples:
        """These samples, in this order.

        Args:
            index: whole numbers from 0, or a bool for every sample, in a tensor, an array or a list.
        """
        at = torch.as_tensor(index)
        at = at.nonzero()[:, 0] if at.dtype == torch.bool else at
        if not isinstance(self.inputs, Ragged):
            at = at.to(self.device)
            return replace(
                self, inputs=self.inputs[at], targets=None if self.targets is None else self.targets[at]
            )
        starts = np.cumsum([0, *map(len, self.inputs)])
        numbers = at.cpu().numpy()
        owners = np.searchsorted(starts, numbers, side="right") - 1
        ends = [*(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        groups, found, start = [*self.groups()], list[tuple[Any, Any]](), 0
        for end in ends if len(owners) else ():
            inputs, targets = groups[int(owners[start])]
            own = torch.from_numpy(numbers[start:end] - starts[owners[start]]).to(inputs.device)
            found.append((inputs[own], None if targets is None else targets[own]))
            start = end
        return together(found, self.batch)

    def choose(self, count: int | None, seed: int = 0) -> Samples:
        """`count` samples drawn without replacement, in their order; all when there are no more."""
        if count is None or count >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=count, replace=False)
        return self.take(np.sort(drawn))

    def to(self, device: str | torch.device) -> Samples:
        """The samples on a torch device."""
        return self._changed(lambda values: values.to(device))

    def cast(self, convert: Callable[[Tensor], Tensor], targets: bool = False) -> Samples:
        """The samples with their floating inputs converted, such as by `Tensor.double`; others stay.

        Args:
            convert: a tensor to one of another type.
            targets: convert floating targets too.
        """
        return self._changed(lambda values: cast(values, convert), targets)

    def answered(self, answer: Callable[[Any], Tensor]) -> Samples:
        """The samples with other targets: what `answer` says of the inputs, batch by batch."""
        found = []
        for inputs, _ in self.groups():
            parts = [answer(x.clone()) for x in pieces(inputs, min(BATCH, self.batch))]
            found.append(torch.cat(parts))
        return replace(self, targets=Ragged(found) if self.ragged else found[0])

    def aligned(self, other: Samples) -> Samples:
        """The samples with the targets of others, which are the same but for types."""
        return replace(self, targets=other.targets)

    def with_padding(self, name: str | None) -> Samples:
        """The samples with the entry named that says which places are real, see `cbs.network.padding`."""
        return self._told(padding=name)

    def muted(self) -> Samples:
        """The samples, of which outputs at places that are padding are looked at as zeros."""
        return self._told(mute=True)

    def _told(self, **about: Any) -> Samples:
        def change(values: Any) -> Any:
            return values.told(**about) if isinstance(values, Nested) else values

        if self.ragged:
            return replace(self, inputs=Ragged(map(change, self.inputs)))
        return replace(self, inputs=change(self.inputs))

    def _changed(self, change: Callable[[Any], Any], targets: bool = True) -> Samples:
        def each(values: Any) -> Any:
            return Ragged(map(change, values)) if isinstance(values, Ragged) else change(values)

        known = each(self.targets) if targets and self.targets is not None else self.targets
        return replace(self, inputs=each(self.inputs), targets=known)


def together(parts: Sequence[tuple[Any, Any]], batch: int) -> Samples:
    """Samples of parts: of one shape if these can be put beneath each other, else of several.

    Args:
        parts: inputs and targets (or None) of some samples each, in order; one at least.
        batch: most samples that the network is given at once.

    Raises:
        ValueError: if some parts have targets and others have none, or their structures differ.
    """
    if len({targets is None for _, targets in parts}) > 1:
        raise ValueError("data: some batches have targets and others have none; give all of one kind")
    groups: list[list[tuple[Any, Any]]] = []
    for part in parts:
        if groups and stackable(groups[-1][-1], part):
            groups[-1].append(part)
        else:
            groups.append([part])
    inputs, targets = [], []
    for group in groups:
        inputs.append(joined([x for x, _ in group]))
        targets.append(None if group[0][1] is None else joined([y for _, y in group]))
    if len(groups) == 1:
        return Samples(inputs[0], targets[0], batch)
    first = parts[0]
    for part in parts[1:]:
        for name, a, b in zip(("inputs", "targets"), first, part, strict=True):
            if a is not None and not _alike(a, b):
                raise ValueError(f"data: {name} of batches differ: {describe(a)} and {describe(b)}")
    return Samples(Ragged(inputs), None if targets[0] is None else Ragged(targets), batch)


def stackable(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether inputs and targets of some samples can be put beneath those of others."""
    return all(_stack(a, b) for a, b in zip(one, other, strict=True))


def _stack(a: Any, b: Any) -> bool:
    """Whether tensors can be put beneath each other."""
    if a is None or b is None:
        return a is b
    if isinstance(a, Nested):
        return a.like(b)
    return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape[1:] == b.shape[1:]


def _alike(a: Any, b: Any) -> bool:
    """Whether two parts are the same but for lengths: structure, types and numbers of dimensions."""
    if isinstance(a, Nested):
        pairs = isinstance(b, Nested) and len(a.tensors) == len(b.tensors)
        return pairs and all(_alike(s, t) for s, t in zip(a.tensors, b.tensors, strict=True))
    return isinstance(b, Tensor) and a.dtype == b.dtype and a.ndim == b.ndim


def _check(name: str, values: Tensor) -> None:
    if values.layout != torch.strided or values.is_quantized or values.is_complex():
        raise ValueError(f"data: {name} are {kind(values)}; give a dense tensor of real numbers")
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise ValueError(f"data: {name} hold NaN or infinite values; every entry must be finite")


@dataclass(frozen=True)
class Split:
    """A data set in two parts: one to train and calibrate on, one to test with."""

    train: Samples
    test: Samples
