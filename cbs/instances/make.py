"""Making a library of instances by a recipe: what is there stays, what is missing is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cbs.instances.networks import (
    LayerInstance,
    layer_entries,
    layer_instances,
    made,
    network_entries,
)
from cbs.instances.recipe import Part, Recipe
from solvers.instances.item import NETWORK
from solvers.instances.library import Library


@dataclass
class Made:
    """What was made of a recipe.

    Attributes:
        instances: added to the library.
        data: names of the data files written.
        kept: instances that were there.
        differing: names of data whose numbers are others than those of the library's index, which stays:
            made by other versions or on another machine. They are not written.
    """

    instances: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A layer that is done.

    Attributes:
        network: it is of.
        layer: its name.
        index: of the network in the recipe, from 0.
        count: networks of the recipe.
    """

    network: str
    layer: str
    index: int
    count: int


def make(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    callback: Callable[[Step], Any] | None = None,
) -> Made:
    """Make the instances of a recipe in a folder, network by network.

    A library that is there is filled up: instances and data that it has stay, data files that are missing
    are made again and compared by their digests. Whatever ends the work keeps what is done.

    Args:
        recipe: what to make.
        folder: of the library.
        data_dir: folder with the data, see `cbs.zoo.trained`.
        callback: called with every layer that is done.

    Raises:
        ValueError: in one line, if data is not there, or the library can't be read.
    """
    library = Library.start(folder)
    done = Made()
    for i, part in enumerate(recipe.parts):
        if _complete(library, part, recipe):
            done.kept += _names(library, part)
            continue
        settings = dict(part.settings)
        choice = {key: settings.pop(key) for key in ("variants", "sparsities", "budgets")}
        layers: list[LayerInstance] = []
        for layer in layer_instances(part.network, data_dir=data_dir, **settings):
            layers.append(layer)
            if _put(library, layer, done):
                _add(library, list(layer_entries(part.network, layer, **choice)), [layer], done)
            if callback is not None:
                callback(Step(part.network, layer.layer, i, len(recipe.parts)))
        if NETWORK in choice["budgets"] and not any(layer.name in done.differing for layer in layers):
            entries = list(network_entries(part.network, layers, choice["variants"], choice["sparsities"]))
            _add(library, entries, layers, done)
        _finish(library, part, layers)
    return done


def _put(library: Library, layer: LayerInstance, done: Made) -> bool:
    there = layer.name in library.index["data"] and library.data_path(layer.name).is_file()
    if there and library.index["data"][layer.name]["digest"] == layer.data.digest():
        return True
    if library.put_data(layer.name, layer.data, layer.about):
        done.data.append(layer.name)
        return True
    done.differing.append(layer.name)
    return False


def _add(library: Library, entries: list[dict[str, Any]], layers: list[LayerInstance], done: Made) -> None:
    new = {}
    for entry in entries:
        name = entry.pop("name")
        if name in library:
            done.kept.append(name)
            continue
        new[name] = {"digest": made({"name": name, **entry}, layers).digest, **entry}
    if new:
        library.add(new)
        done.instances += new


def _key(part: Part) -> dict[str, Any]:
    return {"network": part.network, **part.settings}


def _complete(library: Library, part: Part, recipe: Recipe) -> bool:
    """Whether a part was made before, and its data is there."""
    for entry in library.index.get("parts", []):
        if isinstance(entry, dict) and entry.get("settings") == _plain(_key(part)):
            return all(
                name in library.index["data"] and library.data_path(name).is_file() for name in entry["data"]
            )
    return False


def _names(library: Library, part: Part) -> list[str]:
    data = next(e["data"] for e in library.index["parts"] if e.get("settings") == _plain(_key(part)))
    return [name for name, entry in library.index["instances"].items() if set(entry["data"]) <= set(data)]


def _finish(library: Library, part: Part, layers: list[LayerInstance]) -> None:
    library.note_part(_plain(_key(part)), [layer.name for layer in layers])


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
