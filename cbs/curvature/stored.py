"""Layer Grams of networks whose Grams do not all fit into memory: some layers at a time, kept on disk.

A pass over the data gives the second moments of as many layers as fit; they go to a file each, and a layer's
model is read again wherever it is used. So at any time there is the curvature of one layer in memory, however
many there are. The files lie in a temporary folder, which goes with the last model.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from cbs.curvature.gram import gram_bytes, layer_grams, layer_quadratic
from cbs.network.layers import never_ran
from cbs.quadratic import Quadratic

if TYPE_CHECKING:
    from cbs.network.network import Network


class OneByOne(Sequence[Quadratic]):
    """Layers' models that are made whenever one is asked for, and not kept.

    Who goes through them must let go of one before taking the next: see `cbs.runner`.

    Args:
        count: how many.
        make: the model of a layer's place.
    """

    def __init__(self, count: int, make: Callable[[int], Quadratic]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Quadratic: ...
    @overload
    def __getitem__(self, index: slice) -> OneByOne: ...
    def __getitem__(self, index: int | slice) -> Quadratic | OneByOne:
        """A layer's model, made anew; of a slice those that it names, one by one."""
        if isinstance(index, slice):
            places = range(self._count)[index]
            return OneByOne(len(places), lambda i: self._make(places[i]))
        return self._make(range(self._count)[index])

    def map(self, change: Callable[[int, Quadratic], Quadratic]) -> OneByOne:
        """These models, each changed as it is made."""
        return OneByOne(self._count, lambda i: change(i, self._make(i)))


def stored_quadratics(network: Network, damping: float, room: float) -> OneByOne:
    """Every layer's model of its damped Gram, as `cbs.curvature.gram.gram_quadratics` has them, from disk.

    Args:
        network: the dense network.
        damping: relative, see `layer_quadratic`.
        room: bytes that the Grams of one pass over the data may take.

    Raises:
        ValueError: if a layer does not run.
    """
    path = Path(tempfile.mkdtemp(prefix="cbs-grams-"))

    def make(i: int) -> Quadratic:
        gram = torch.from_numpy(np.load(path / f"{i}.npy"))
        return layer_quadratic(i, network.layers[i], gram, damping, network.earlier[i])

    weakref.finalize(make, shutil.rmtree, path, ignore_errors=True)
    for block in blocks([gram_bytes(layer) for layer in network.layers], room):
        layers = [network.layers[i] for i in block]
        grams = layer_grams(network.model, layers, network.samples)
        for i, layer in zip(block, layers, strict=True):
            if layer.name not in grams:
                raise never_ran(layer.name)
            np.save(path / f"{i}.npy", grams.pop(layer.name).cpu().numpy())

    return OneByOne(len(network.layers), make)


def blocks(sizes: Sequence[float], room: float) -> Iterator[list[int]]:
    """Places of neighbours that fit together into `room`; one alone where even that is too much."""
    block: list[int] = []
    used = 0.0
    for i, size in enumerate(sizes):
        if block and used + size > room:
            yield block
            block, used = [], 0.0
        block.append(i)
        used += size
    if block:
        yield block
