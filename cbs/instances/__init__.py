"""Instances of networks: rows, layers and whole networks as problems, and libraries of them."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.instances.make import make
    from cbs.instances.networks import of_network
    from cbs.instances.recipe import Part, Recipe, read_recipe
    from solvers.instances.item import Item

__all__ = ["Item", "Part", "Recipe", "make", "of_network", "read_recipe"]

_export(
    __name__,
    {
        "make": ["make"],
        "networks": ["Item", "of_network"],
        "recipe": ["Part", "Recipe", "read_recipe"],
    },
)
