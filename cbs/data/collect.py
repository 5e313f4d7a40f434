"""Calibration data in the forms that users have it, collected into `Samples`."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from cbs.data.nested import Nested
from cbs.data.samples import BATCH, Samples, together
from cbs.data.words import first_line, kind

LABELS = ("labels", "label", "label_ids", "targets", "target")
"""Entries of a mapping that are targets, unless the model can't be called without them."""
SPANS = ("start_positions", "end_positions")
"""The two that are, together, the targets of a model that marks an answer in a text."""
FORMS = (
    "give (inputs, targets), (inputs,) or inputs alone; several inputs as a tuple or dict in inputs' place"
)


def gather(data: Any, samples: int | None = None, seed: int = 0, model: nn.Module | None = None) -> Samples:
    """Calibration data as `Samples`, whose `batch` is the largest batch that the data came in, if any.

    A batch is `(inputs, targets)`, `(inputs,)`, or inputs alone. Inputs are a tensor or array, a tuple or
    list of positional arguments, or a mapping of keyword arguments, out of which targets are taken by their
    names (`LABELS`). A list or tuple of two with a tensor in it is always one `(inputs, targets)`. Batches
    that can't be put beneath each other, as text of differing length, are kept as they came.

    Args:
        data: `Samples`; one such batch; a torch `Dataset` or `DataLoader`; or an iterable of batches.
        samples: how many to take, or None for all. Drawn at random where the data can be indexed
            (one batch, map-style data set), the first ones otherwise: of endless data it must be given.
        seed: of the draw, and of PyTorch's, NumPy's and Python's global generators while the data is read,
            so that a loader that shuffles gives the same samples every time; they are then put back.
        model: that will be called with the inputs: what its `forward` demands by name is no target.

    Raises:
        ValueError: if the data has none of these forms, no samples, or values that are not finite.
    """
    if isinstance(data, Samples):
        return data.choose(samples, seed)
    needed = _demanded(model)
    if _is_batch(data):
        return Samples(*_parts(data, needed)).choose(samples, seed)
    with _seeded(seed):
        if isinstance(data, Dataset):
            if not isinstance(data, IterableDataset):
                count = len(data)  # type: ignore[arg-type]
                index = np.arange(count)
                if samples is not None and samples < count:
                    index = np.sort(np.random.default_rng(seed).choice(count, size=samples, replace=False))
                data = torch.utils.data.Subset(data, index.tolist())
            return replace(_collect(DataLoader(data, batch_size=256), samples, needed), batch=BATCH)
        if not isinstance(data, Iterable) or isinstance(data, str | bytes):
            raise ValueError(
                f"data must be a batch, a Dataset, a DataLoader or an iterable of batches, not {kind(data)}"
            )
        return _collect(data, samples, needed)


def _demanded(model: nn.Module | None) -> frozenset[str]:
    """What a model can't be called without, by name."""
    try:
        parameters = {} if model is None else inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        parameters = {}
    return frozenset(
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    )


def _is_batch(data: Any) -> bool:
    """Whether data is one batch, well formed or not, rather than several."""
    if isinstance(data, Tensor | np.ndarray | Mapping):
        return True
    if isinstance(data, tuple) and len(data) == 1:
        return True
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    mappings = isinstance(data, tuple) and all(isinstance(part, Mapping) for part in data)
    return mappings or any(isinstance(part, Tensor | np.ndarray) for part in data)


def _parts(batch: Any, needed: frozenset[str] = frozenset()) -> tuple[Any, Any]:
    """A batch's inputs and its targets, or None; a ValueError says what else it is."""
    if isinstance(batch, tuple | list) and len(batch) == 1:
        batch = batch[0]
        if isinstance(batch, tuple | list):
            return _values("inputs", batch), None
    if isinstance(batch, Mapping):
        inputs, targets = _without_labels(batch, needed)
        return _values("inputs", inputs), None if targets is None else _values("targets", targets)
    if isinstance(batch, Tensor | np.ndarray):
        return _values("inputs", batch), None
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"data: a batch is {kind(batch)}; {FORMS}")
    inputs, targets = batch
    return _values("inputs", inputs), None if targets is None else _values("targets", targets)


def _without_labels(batch: Mapping[str, Any], needed: frozenset[str]) -> tuple[dict[str, Any], Any]:
    """A mapping's inputs, and the targets that were among them."""
    named = [name for name in LABELS if name in batch and name not in needed and batch[name] is not None]
    spans = [name for name in SPANS if name in batch and name not in needed]
    if len(named) > 1:
        raise ValueError(
            f"data: a batch has targets under {' and '.join(map(repr, named))}; give one of them"
        )
    taken = [name for name in LABELS if name in batch and name not in needed] + spans
    inputs = {name: value for name, value in batch.items() if name not in taken}
    if named:
        return inputs, batch[named[0]]
    return inputs, {name: batch[name] for name in spans} if spans else None


def _values(name: str, values: Any) -> Any:
    """Inputs or targets: a tensor, or what will be a structure of tensors."""
    if isinstance(values, Tensor | np.ndarray):
        try:
            return torch.as_tensor(values).detach()
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: {name} are {kind(values)} ({first_line(error)}); give numbers") from None
    if isinstance(values, Mapping | tuple | list | Nested):
        return values
    raise ValueError(
        f"data: {name} are {kind(values)}, but must be a tensor or array, or a tuple or dict of them"
    )


def _collect(batches: Iterable[Any], samples: int | None, needed: frozenset[str]) -> Samples:
    found: list[tuple[Any, Any]] = []
    stream, count, largest = _read(batches), 0, 0
    while samples is None or count < samples:
        try:
            batch = next(stream)
        except StopIteration:
            break
        except Exception as error:
            hint = ""
            if "stack" in str(error) or "equal size" in str(error):
                hint = "; give a DataLoader whose collate_fn pads"
            raise ValueError(
                f"data can't be read ({type(error).__name__}: {first_line(error)}){hint}"
            ) from error
        part = Samples(*_parts(batch, needed))
        largest = max(largest, len(part))
        if samples is not None and count + len(part) > samples:
            part = part.few(samples - count)
        count += len(part)
        # a loader may fill one buffer again and again
        found.append((part.inputs.clone(), None if part.targets is None else part.targets.clone()))
    if not found:
        raise ValueError("data holds no samples; give at least one")
    return together(found, largest)


def _read(batches: Iterable[Any]) -> Iterator[Any]:
    yield from batches


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators as a seed sets them, and afterwards as they were."""
    torch_state, state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(state)
