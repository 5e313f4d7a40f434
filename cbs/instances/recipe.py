"""Recipes: TOML files that say which instances a library holds.

    name = "mine"

    [[networks]]
    network = "digits"              # see cbs.zoo.trained
    layers = ["0", "2"]             # all that the literature prunes if absent
    rows = 4                        # drawn from every layer, or [0, 3, 5]
    variants = ["joint", "selection"]
    sparsities = [0.5, 0.75, 0.9]
    budgets = ["per_row", "2:4", "per_layer", "columns", "network"]
    damping = 1e-2
    seed = 0
    samples = 10000
    layer_rows = 64                 # rows of a layer's data; all if absent

`digits` and `standard` come with the package. Every setting but `network` may be absent; those of
`cbs.instances.of_network` then hold.
"""

from __future__ import annotations

import difflib
import inspect
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recipes"
"""Those that come with the package."""
KEYS = (
    "network", "layers", "rows", "variants", "sparsities", "budgets", "damping", "seed", "samples",
    "layer_rows",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """The instances of one network.

    Attributes:
        network: its name.
        settings: of `cbs.instances.of_network`, all of them.
    """

    network: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What a library holds.

    Attributes:
        name: of the recipe.
        parts: network by network.
    """

    name: str
    parts: tuple[Part, ...]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recipe(source: str | os.PathLike[str]) -> Recipe:
    """A recipe of a file, or one that comes with the package.

    Args:
        source: path of a TOML file, or a name in `recipe_names()`.

    Raises:
        ValueError: in one line, for a name or file that is none, a key that is not known, with the nearest,
            or a setting that is none.
    """
    path = Path(source)
    if path.suffix != ".toml":
        if os.fspath(source) not in recipe_names():
            near = difflib.get_close_matches(os.fspath(source), recipe_names(), n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"known: {', '.join(recipe_names())}, or a .toml file"
            )
            raise ValueError(f"unknown recipe {os.fspath(source)!r}; {hint}")
        path = FOLDER / f"{source}.toml"
    what = f"recipe {os.fspath(source)!r}"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{what} can't be read ({error.strerror})") from None
    except ValueError as error:  # of TOML or of UTF-8
        raise ValueError(f"{what} is not TOML: {' '.join(str(error).split())}") from None
    _require_known(what, found, ("name", "networks"))
    parts, name = found.get("networks"), found.get("name", path.stem)
    if not isinstance(name, str):
        raise ValueError(f"{what}: name must be a text, got {name!r}")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{what}: it needs at least one [[networks]]")
    return Recipe(name, tuple(_part(f"{what}, network {i + 1}", part) for i, part in enumerate(parts)))


def _part(what: str, part: dict[str, Any]) -> Part:
    from cbs.instances.networks import check_settings, of_network
    from cbs.zoo import names

    _require_known(what, part, KEYS)
    network = part.pop("network", None)
    if network not in names():
        near = difflib.get_close_matches(str(network), names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise ValueError(f"{what}: unknown network {network!r}; {hint}")
    parameters = inspect.signature(of_network).parameters
    settings = {key: part.get(key, parameters[key].default) for key in KEYS if key != "network"}
    if not isinstance(settings["rows"], int | list):
        raise ValueError(f"{what}: rows must be a number of rows, or list some, got {settings['rows']!r}")
    layers, seed = settings["layers"], settings["seed"]
    if layers is not None and not (isinstance(layers, list) and all(isinstance(x, str) for x in layers)):
        raise ValueError(f"{what}: layers must list names, got {layers!r}")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"{what}: seed must be a whole number from 0, got {seed!r}")
    try:
        check_settings(**{key: value for key, value in settings.items() if key not in ("layers", "seed")})
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return Part(network, settings)


def _require_known(what: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{what}: unknown key {key!r:.60}; {hint}")
