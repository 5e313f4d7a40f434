"""Inputs and targets of several tensors in a structure of tuples, lists and mappings: a pytree.

What a network is called with need not be one tensor: a tuple holds its positional arguments, a mapping its
keyword arguments, and both may hold others. `Nested` keeps the tensors whose first dimension counts the
samples, and beside them the structure, with whatever is the same for all samples; taking samples out of it,
batching and `torch.func.vmap` see the tensors alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from cbs.data.words import first_line, kind

PLAIN = (str, bytes, int, float, bool, type(None))
"""Values that a structure may hold beside tensors: the same for all samples."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A value that is the same for all samples, such as a causal mask `[T, T]` or a table of positions.

    Attributes:
        value: a tensor or an array, given to the network as it is with every batch.
    """

    value: Any


@dataclass(frozen=True)
class _Slot:
    """The place of a tensor in a structure."""

    index: int


@dataclass(frozen=True, eq=False)
class _Form:
    """A structure with slots in place of its tensors.

    Attributes:
        template: the structure.
        ways: by which of the possible calls networks of a class were found to take it.
        padding: which entry says what is padding, see `cbs.network.padding`.
        mute: whether outputs at places that are padding are looked at as zeros.
    """

    template: Any
    ways: dict[type, int] = field(default_factory=dict)
    padding: str | None = None
    mute: bool = False


class Nested:
    """Tensors `[N, ...]` of N samples in a structure.

    Args:
        tensors: with the samples first.
        form: the structure they are in.
    """

    def __init__(self, tensors: Sequence[Tensor], form: _Form) -> None:
        self.tensors, self.form = tuple(tensors), form

    @classmethod
    def of(cls, values: Any, count: int | None = None, what: str = "inputs") -> Nested:
        """A structure's tensors, told apart.

        A tensor or array belongs to the samples if its first dimension has their number. What else may stand
        there is the same for all samples: numbers, words, None, a tensor without dimensions or with a single
        entry in the first one, and what is marked as `Shared`.

        Args:
            values: tuples, lists and mappings of tensors and arrays.
            count: number of samples; None for that of the first tensor that has a dimension.
            what: it is, for messages.

        Raises:
            ValueError: for a tensor of another number of samples, or what is no tensor or number.
        """
        tensors: list[Tensor] = []

        def convert(node: Any, where: str) -> Any:
            nonlocal count
            if isinstance(node, Shared):
                return _Fixed(_tensor(node.value, f"{what}{where}"))
            if isinstance(node, PackedSequence):
                raise ValueError(
                    f"data: {what}{where} is a PackedSequence, whose samples can't be told apart; give a "
                    "padded tensor (pad_packed_sequence with batch_first=True) and have the model pack it"
                )
            if isinstance(node, Tensor | np.ndarray):
                tensor = _tensor(node, f"{what}{where}")
                if not tensor.ndim:
                    return _Fixed(tensor)
                if count is None:
                    count = len(tensor)
                if len(tensor) == count:
                    tensors.append(tensor)
                    return _Slot(len(tensors) - 1)
                if len(tensor) == 1:
                    return _Fixed(tensor)
                raise ValueError(
                    f"data: {what}{where} {list(tensor.shape)} is not of {count} samples like the rest; give "
                    "as many, samples first, or cbs.Shared(it) for what is the same for all of them"
                )
            if isinstance(node, Mapping):
                return {key: convert(value, f"{where}[{key!r}]") for key, value in node.items()}
            if isinstance(node, tuple) and hasattr(node, "_fields"):
                parts = zip(node._fields, node, strict=True)
                return type(node)(*(convert(value, f"{where}.{key}") for key, value in parts))
            if isinstance(node, tuple | list):
                return type(node)(convert(value, f"{where}[{i}]") for i, value in enumerate(node))
            if isinstance(node, PLAIN):
                return node
            raise ValueError(f"data: {what}{where} are {kind(node)}; give tensors or arrays")

        template = convert(values, "")
        if not tensors:
            raise ValueError(
                f"data: {what} are {kind(values)} without a tensor of samples; give one at least"
            )
        return cls(tensors, _Form(template))

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __repr__(self) -> str:
        return self.describe()

    def __getitem__(self, index: Any) -> Nested:
        return self.map(lambda tensor: tensor[index])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.tensors[0].device

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N,)`: what all its tensors have in common."""
        return (len(self),)

    def map(self, change: Callable[[Tensor], Tensor]) -> Nested:
        """With every tensor of samples changed, and what they share as it is."""
        return Nested([change(tensor) for tensor in self.tensors], self.form)

    def map_all(self, change: Callable[[Tensor], Tensor]) -> Nested:
        """With every tensor changed, shared ones too, as by a move to a device."""

        def walk(node: Any) -> Any:
            return _Fixed(change(node.value)) if isinstance(node, _Fixed) else _over(node, walk)

        form = replace(self.form, template=walk(self.form.template))
        return Nested([change(tensor) for tensor in self.tensors], form)

    def told(self, **about: Any) -> Nested:
        """With more said of its structure: `padding`, `mute`."""
        return Nested(self.tensors, replace(self.form, **about))

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of samples that a mapping has under a name, if there is one."""
        slot = self.form.template.get(name) if isinstance(self.form.template, dict) else None
        return self.tensors[slot.index] if isinstance(slot, _Slot) else None

    @property
    def traced(self) -> bool:
        """Whether its tensors are those of a transformation, such as `vmap`, which has no values."""
        return any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in self.tensors)

    def clone(self) -> Nested:
        """A copy of its tensors."""
        return self.map(Tensor.clone)

    def to(self, device: str | torch.device) -> Nested:
        """On a torch device."""
        return self.map_all(lambda tensor: tensor.to(device))

    def split(self, size: int) -> Iterator[Nested]:
        """Some samples at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def repeat(self, count: int) -> Nested:
        """The samples `count` times, one time after the other."""
        return self.map(lambda tensor: tensor.repeat(count, *[1] * (tensor.ndim - 1)))

    def like(self, other: Any) -> bool:
        """Whether another has the same structure, and tensors that can be put beneath these."""
        return (
            isinstance(other, Nested)
            and _words(self.form.template) == _words(other.form.template)
            and all(_fits(a, b) for a, b in zip(self.tensors, other.tensors, strict=True))
        )

    def given(self) -> Any:
        """The structure as the user gave it, with these tensors in it; shared ones are copies."""

        def walk(node: Any) -> Any:
            if isinstance(node, _Slot):
                return self.tensors[node.index]
            return node.value.clone() if isinstance(node, _Fixed) else _over(node, walk)

        return walk(self.form.template)

    def describe(self) -> str:
        """Structure, shapes and types, for a message."""

        def walk(node: Any) -> str:
            if isinstance(node, _Slot | _Fixed):
                tensor = self.tensors[node.index] if isinstance(node, _Slot) else node.value
                return f"{list(tensor.shape)} {tensor.dtype}".replace("torch.", "")
            if isinstance(node, dict):
                return "{" + ", ".join(f"{key}: {walk(value)}" for key, value in node.items()) + "}"
            if isinstance(node, tuple | list):
                return "(" + ", ".join(map(walk, node)) + ")"
            return repr(node)

        return walk(self.form.template)

    def arguments(self, model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of a call, as `call` found them to be taken."""
        ways = self._ways(model)
        return ways[min(self.form.ways.get(type(model), 0), len(ways) - 1)]

    def call(self, model: nn.Module) -> Any:
        """What a network answers.

        The entries of a mapping are keyword arguments where the model's `forward` takes all of them by name,
        and those of a tuple or list positional ones where it takes as many; else the structure itself is the
        one argument. Where the signature allows both (`**kwargs`, `*args`), the first that the model does not
        refuse is taken, and kept for this data.

        Raises:
            TypeError: if the model's `forward` takes it in no way.
        """
        ways = self._ways(model)
        known = self.form.ways.get(type(model))
        if known is not None or len(ways) == 1:
            args, kwargs = ways[known or 0] if (known or 0) < len(ways) else ways[0]
            return model(*args, **kwargs)
        first: Exception | None = None
        for i in range(len(ways)):
            args, kwargs = self._ways(model)[i]  # a refused call may have changed its arguments
            try:
                outputs = model(*args, **kwargs)
            except Exception as error:
                first = first or error
                continue
            self.form.ways[type(model)] = i
            return outputs
        assert first is not None
        raise first

    def _ways(self, model: nn.Module) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        given = self.given()
        ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((given,), {})]
        if isinstance(given, dict) and all(isinstance(key, str) for key in given):
            ways.insert(0, ((), given))
        elif isinstance(given, tuple | list):
            ways.insert(0, (tuple(given), {}))
        try:
            signature = inspect.signature(model.forward)
        except (TypeError, ValueError):
            return ways
        fitting = []
        why = None
        for args, kwargs in ways:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                why = why or error
                continue
            fitting.append((args, kwargs))
        if not fitting:
            assert why is not None
            raise why
        return fitting


@dataclass(frozen=True, eq=False)
class _Fixed:
    """A tensor that all samples share."""

    value: Tensor


def _over(node: Any, change: Callable[[Any], Any]) -> Any:
    """A container with its entries changed; anything else as it is."""
    if isinstance(node, dict):
        return {key: change(value) for key, value in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*map(change, node))
    if isinstance(node, tuple | list):
        return type(node)(map(change, node))
    return node


def _words(template: Any) -> Any:
    """A structure that can be compared: tensors that all samples share by their values."""
    if isinstance(template, _Fixed):
        return "fixed", tuple(template.value.shape), template.value.detach().cpu().flatten().tolist()
    return _over(template, _words)


def _fits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape[1:] == b.shape[1:]


def _tensor(values: Any, what: str) -> Tensor:
    """A tensor or array as a tensor of dense, real, finite numbers, without history."""
    try:
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"data: {what} are {kind(values)} ({first_line(error)}); give numbers") from None
    return tensor


def joined(parts: Sequence[Any]) -> Any:
    """Tensors, or nested ones, of some samples after the other.

    Raises:
        RuntimeError: if their shapes differ.
    """
    if not isinstance(parts[0], Nested):
        return torch.cat(list(parts))
    if not all(parts[0].like(part) for part in parts[1:]):
        raise RuntimeError(f"{parts[0].describe()} and others")
    tensors = zip(*(part.tensors for part in parts), strict=True)
    return Nested([torch.cat(each) for each in tensors], parts[0].form)


def pieces(values: Any, size: int) -> Iterator[Any]:
    """Tensors, or nested ones, some samples at a time."""
    yield from values.split(size) if isinstance(values, Nested) else torch.split(values, size)


def repeated(values: Any, count: int) -> Any:
    """Tensors, or nested ones, `count` times, one time after the other."""
    if isinstance(values, Nested):
        return values.repeat(count)
    return values.repeat(count, *[1] * (values.ndim - 1))


def same(a: Any, b: Any) -> bool:
    """Whether two tensors, or nested ones, have the same values."""
    if isinstance(a, Nested) and isinstance(b, Nested):
        pairs = zip(a.tensors, b.tensors, strict=True)
        return len(a.tensors) == len(b.tensors) and all(torch.equal(x, y) for x, y in pairs)
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


def cast(values: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    """Inputs with their tensors of real numbers converted, such as by `Tensor.double`; whole numbers stay."""

    def one(tensor: Tensor) -> Tensor:
        return convert(tensor) if tensor.is_floating_point() else tensor

    return values.map_all(one) if isinstance(values, Nested) else one(values)


def tensors_of(values: Any) -> tuple[Tensor, ...]:
    """The tensors of samples in inputs or targets, in their order; none of None."""
    if values is None:
        return ()
    return values.tensors if isinstance(values, Nested) else (values,)


def shared_words(values: Any) -> str:
    """The structure of inputs, and what their samples share, in words that tell them apart."""
    return f" in {_words(values.form.template)}" if isinstance(values, Nested) else ""


def as_given(values: Any) -> Any:
    """Targets as the loss takes them."""
    return values.given() if isinstance(values, Nested) else values


def describe(values: Any) -> str:
    """Shape and type of inputs or targets, for a message."""
    return values.describe() if isinstance(values, Nested) else f"{list(values.shape)} {values.dtype}"


pytree.register_pytree_node(
    Nested,
    lambda values: (list(values.tensors), values.form),
    lambda tensors, form: Nested(tuple(tensors), form),
    serialized_type_name="cbs.data.nested.Nested",
)
