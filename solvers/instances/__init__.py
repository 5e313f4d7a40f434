"""Instances of the subset-selection problem: files in and out, generators, libraries of instances."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from solvers.instances.files import load, save
    from solvers.instances.generators import Planted, planted, random_problem
    from solvers.instances.identity import digest
    from solvers.instances.item import Item
    from solvers.instances.library import Library
    from solvers.instances.mixed_programme import MixedProgramme
    from solvers.instances.model_files import export
    from solvers.instances.qplib import read_qplib, write_qplib
    from solvers.instances.read import read_problem, read_programme
    from solvers.instances.solu import Solu, read_solu, write_solu

__all__ = [
    "Item",
    "Library",
    "MixedProgramme",
    "Planted",
    "Solu",
    "digest",
    "export",
    "load",
    "planted",
    "random_problem",
    "read_problem",
    "read_programme",
    "read_qplib",
    "read_solu",
    "save",
    "write_qplib",
    "write_solu",
]

_export(
    __name__,
    {
        "files": ["load", "save"],
        "generators": ["Planted", "planted", "random_problem"],
        "identity": ["digest"],
        "item": ["Item"],
        "library": ["Library"],
        "mixed_programme": ["MixedProgramme"],
        "model_files": ["export"],
        "qplib": ["read_qplib", "write_qplib"],
        "read": ["read_problem", "read_programme"],
        "solu": ["Solu", "read_solu", "write_solu"],
    },
)
