"""All outputs of a network at once, for a loss that sees them as the model gives them.

A function of one's own is given what the model answers, be it a tuple, a mapping or an object, as in a
training loop. Curvatures, though, are of one tensor, so the outputs' numbers are laid side by side in one
tensor `[N, all]`, and laid out again for the loss: what is differentiated is then the loss of all outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cbs.data import first_line
from cbs.network.answers import pick


class Everything:
    """Lays the outputs of a network side by side, and back; copies of a network share it."""

    def __init__(self) -> None:
        self.layouts: dict[tuple[int, ...], tuple[Any, tuple[tuple[int, ...], ...]]] = {}

    def __deepcopy__(self, memo: Any) -> Everything:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Everything, ()

    def __call__(self, outputs: Any) -> Tensor:
        """All tensors of real numbers with the samples first, `[N, all]`; a single one of them as it is.

        Raises:
            ValueError: if there are none, or two answers can't be told apart by their size.
        """
        tensors: list[Tensor] = []

        def take(node: Any) -> Any:
            if isinstance(node, Tensor):
                if node.ndim and node.is_floating_point() and (not tensors or len(node) == len(tensors[0])):
                    tensors.append(node)
                    return _Place(len(tensors) - 1)
                return None
            return _over(node, take)

        template = take(outputs)
        if not tensors:
            raise ValueError(f"model answers with {type(outputs).__name__} without a tensor of real numbers")
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors)
        flat = (
            tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
        )
        known = self.layouts.setdefault(tuple(flat.shape[1:]), (template, shapes))
        if known[1] != shapes:
            raise ValueError(
                "batches differ in their outputs' shapes, but not in their size; name one with output="
            )
        return flat

    def back(self, flat: Tensor) -> Any:
        """The outputs that were laid into a tensor; what was none of its numbers is None.

        Raises:
            ValueError: for a tensor of another size.
        """
        if tuple(flat.shape[1:]) not in self.layouts:
            raise ValueError(f"outputs of shape {list(flat.shape)} are not all that the model answers")
        template, shapes = self.layouts[tuple(flat.shape[1:])]
        parts: list[Tensor] = [flat]
        if len(shapes) > 1:
            sizes = [math.prod(shape) for shape in shapes]
            split = torch.split(flat, sizes, dim=1)
            parts = [part.reshape(len(flat), *shape) for part, shape in zip(split, shapes, strict=True)]

        def put(node: Any) -> Any:
            return parts[node.index] if isinstance(node, _Place) else _over(node, put)

        return put(template)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor stood."""

    index: int


class WholeLoss:
    """A loss of one's own, of all outputs of a network, as one of the tensor that they are laid in.

    Args:
        loss: of outputs as the model gives them, and targets.
        outputs: lays them out.
    """

    def __init__(self, loss: Any, outputs: Everything) -> None:
        self.loss, self.outputs = loss, outputs
        self.__name__ = getattr(loss, "__name__", type(loss).__name__)

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss of a batch."""
        try:
            return self.loss(self.outputs.back(outputs), targets)  # type: ignore[no-any-return]
        except Exception as error:
            raise ValueError(
                f"{first_line(error)}; a function is given all outputs as the model gives them, "
                f"{type(self.outputs.back(outputs)).__name__}, unless output= names one"
            ) from error

    @property
    def several(self) -> bool:
        """Whether there is more than one tensor of outputs."""
        return any(len(shapes) > 1 for _, shapes in self.outputs.layouts.values())

    def shown(self, outputs: Tensor) -> Tensor:
        """The output that is looked at where classes are counted."""
        return pick(None, self.outputs.back(outputs), len(outputs))


def _over(node: Any, change: Any) -> Any:
    """A container with its parts changed; None for anything else."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type | _Place):
        names = [field.name for field in dataclasses.fields(node)]
        return dataclasses.replace(node, **{name: change(getattr(node, name)) for name in names})
    if isinstance(node, Mapping):
        return {key: change(value) for key, value in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*map(change, node))
    if isinstance(node, tuple | list):
        return type(node)(map(change, node))
    return None
