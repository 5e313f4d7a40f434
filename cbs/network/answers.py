"""What a network answers: a call with any inputs, and the one tensor of its outputs that is looked at."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from cbs.data import Nested, first_line
from cbs.data.nested import describe
from cbs.network.padding import padded, silent

Output = int | str | Callable[[Any], Tensor]
"""Which of a network's outputs: a place in a tuple, a name in a mapping or object, or a function of all."""
CHOICE = "_cbs_output"
"""Attribute of a network, and of its copies, that says which of its outputs is looked at."""
NAMED = "logits"
"""The output that is looked at, of several with names, where nobody says which."""


def answer(model: nn.Module, inputs: Any) -> Tensor:
    """The output that is looked at, as `forward` has it, but for checks, and with the model's own errors."""
    with padded(inputs):
        outputs = inputs.call(model) if isinstance(inputs, Nested) else model(inputs)
    return chosen(model, outputs, inputs)


def functional(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Any) -> Tensor:
    """`answer` with other parameters and buffers: `torch.func.functional_call`.

    Args:
        model: the network.
        tensors: that stand in for its own, by name.
        inputs: of a batch, see `cbs.data.Samples.batches`.
    """
    args, kwargs = inputs.arguments(model) if isinstance(inputs, Nested) else ((inputs,), {})
    with padded(inputs):
        outputs = functional_call(model, dict(tensors), args, kwargs)
    return chosen(model, outputs, inputs)


def forward(model: nn.Module, inputs: Any) -> Tensor:
    """The model's output: of several the one that is looked at.

    A tensor is the output. Of a mapping, a tuple, a list or an object with fields it is what the network was
    told (`choose_output`), else the one named `logits`, else the first tensor of real numbers with the
    samples in its first dimension, in the order in which the model gives them.

    Args:
        model: the network.
        inputs: of a batch: a tensor `[N, ...]` or `Nested`, see `cbs.data.Samples.batches`.

    Raises:
        ValueError: if the model refuses the inputs, or has no such output.
    """
    outputs = raw(model, inputs)
    found = chosen(model, outputs, inputs)
    if found.shape[:1] != inputs.shape[:1]:
        raise ValueError(
            f"model must answer a batch of {len(inputs)} with as many outputs, got {list(found.shape)}; wrap "
            "one that answers otherwise, so that it gives one tensor, a sample in each entry of its first "
            "dimension"
        )
    if not found.is_floating_point():
        raise ValueError(f"model answers with {found.dtype}; it must give real numbers, such as logits")
    return found


def raw(model: nn.Module, inputs: Any) -> Any:
    """All that a model answers.

    Raises:
        ValueError: if the model refuses the inputs.
    """
    try:
        with padded(inputs):
            return inputs.call(model) if isinstance(inputs, Nested) else model(inputs)
    except Exception as error:
        raise ValueError(
            f"data: the model refuses {told(inputs)} ({first_line(error)}){_taken(model, inputs)}"
        ) from error


def _taken(model: nn.Module, inputs: Any) -> str:
    """What a model takes, where it was given a structure."""
    if not isinstance(inputs, Nested):
        return ""
    try:
        return f"; its forward takes {', '.join(inspect.signature(model.forward).parameters)}"
    except (TypeError, ValueError):
        return ""


class OutputChosen(UserWarning):
    """A model gives several outputs, of which one is looked at that nobody named."""


def tell_choice(outputs: Any, count: int) -> None:
    """Warn where the rule of `forward` chooses among several outputs of which none is called `logits`."""
    if isinstance(outputs, Tensor):
        return
    named = dict(_parts(outputs))
    able = [name for name, part in named.items() if _fits(part, count)]
    if len(able) > 1 and NAMED not in named:
        warnings.warn(
            f"model answers with {_shapes(outputs)}: of these {able[0]!r} is looked at; say which with "
            "output=",
            OutputChosen,
            stacklevel=5,
        )


def told(inputs: Any) -> str:
    """What inputs are, in words."""
    if isinstance(inputs, Nested):
        return f"inputs {describe(inputs)}"
    return f"inputs of shape {list(inputs.shape)} and type {inputs.dtype}"


def twice() -> AbstractContextManager[None]:
    """Attention by plain operations, which have second and forward derivatives; the fused ones have none."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    found: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


def choose_output(model: nn.Module, output: Output | None) -> None:
    """Have a network, in place, and all its copies answer with this one of its outputs; None for the rule.

    Raises:
        ValueError: for what names no output.
    """
    able = isinstance(output, int | str) or callable(output)
    if output is not None and (isinstance(output, bool) or not able):
        raise ValueError(f"output must be a place or name, or a function of the outputs, got {output!r}")
    if output is None:
        vars(model).pop(CHOICE, None)
    else:
        vars(model)[CHOICE] = output


def chosen(model: nn.Module, outputs: Any, inputs: Any) -> Tensor:
    """The one of a network's outputs that is looked at, see `forward`.

    Args:
        model: the network, which may have been told.
        outputs: all of them.
        inputs: of the batch.

    Raises:
        ValueError: if there is none.
    """
    found = pick(getattr(model, CHOICE, None), outputs, len(inputs))
    if isinstance(inputs, Nested) and inputs.form.mute:
        return silent(found, inputs)
    return found


def count_of(arguments: Any) -> int:
    """How many samples the arguments of a call have: the length of the first tensor among them."""
    found = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.ndim]
    return len(found[0]) if found else 0


def pick(output: Output | None, outputs: Any, count: int) -> Tensor:
    """The one of some outputs that was chosen, or is looked at by the rule, see `chosen`."""
    if output is None:
        if isinstance(outputs, Tensor):
            return outputs
        return _by_rule(outputs, count)
    try:
        found = output(outputs) if callable(output) else _part(outputs, output)
    except Exception as error:
        raise ValueError(
            f"output {output!r} is none of the model's, which are {_shapes(outputs)} ({first_line(error)})"
        ) from error
    if not isinstance(found, Tensor):
        raise ValueError(f"output {output!r} of the model is {type(found).__name__}; it must be one tensor")
    return found


def _part(outputs: Any, output: int | str) -> Any:
    if isinstance(output, str) and isinstance(outputs, tuple | list) and output.lstrip("-").isdigit():
        return outputs[int(output)]  # as it is given in a shell
    if isinstance(output, str) and not isinstance(outputs, Mapping):
        return getattr(outputs, output)
    return outputs[output]


def _by_rule(outputs: Any, count: int) -> Tensor:
    named = dict(_parts(outputs))
    found = named.get(NAMED)
    if isinstance(found, Tensor):
        return found
    for tensor in named.values():
        if _fits(tensor, count):
            return tensor  # type: ignore[no-any-return]
    inside = [part for value in named.values() if (part := _inner(value, count)) is not None]
    if inside:
        return inside[0]
    raise ValueError(
        f"model must answer with a tensor of real numbers, {count} samples first, but gives "
        f"{_shapes(outputs)}; say which with output=, a place, a name or a function of the outputs"
    )


def _inner(value: Any, count: int) -> Tensor | None:
    for _, part in _parts(value):
        if _fits(part, count):
            return part  # type: ignore[no-any-return]
    return None


def _fits(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape[:1] == (count,)


def _parts(outputs: Any) -> Iterator[tuple[Any, Any]]:
    """Names or places, and what is there, of the outputs that are containers."""
    if isinstance(outputs, Mapping):
        yield from outputs.items()
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        yield from zip(outputs._fields, outputs, strict=True)
    elif isinstance(outputs, tuple | list):
        yield from enumerate(outputs)
    elif dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        yield from ((field.name, getattr(outputs, field.name)) for field in dataclasses.fields(outputs))


def tensors_in(outputs: Any) -> list[Tensor]:
    """All tensors of an answer, in order: of containers and dataclasses; of attributes if there are none."""
    return _inside(outputs, False, []) or _inside(outputs, True, [])


def _inside(outputs: Any, attributes: bool, done: list[Any]) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = [part for _, part in _parts(outputs)]
    if not parts and not isinstance(outputs, Mapping | tuple | list):
        parts = [leaf for leaf in pytree.tree_leaves(outputs) if leaf is not outputs]
        own = getattr(outputs, "__dict__", {})
        if not parts and attributes and own and not isinstance(outputs, nn.Module | type):
            if any(outputs is other for other in done):
                return []  # objects may have each other
            done.append(outputs)
            parts = [*own.values()]
    return [tensor for part in parts for tensor in _inside(part, attributes, done)]


def _shapes(outputs: Any) -> str:
    parts = [
        f"{name}: {list(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for name, value in _parts(outputs)
    ]
    return f"{type(outputs).__name__} of {', '.join(parts)}" if parts else type(outputs).__name__
