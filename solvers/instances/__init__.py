"""Instances of the subset-selection problem: files in and out, and generators."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from solvers.instances.files import load, save
    from solvers.instances.generators import Planted, planted, random_problem
    from solvers.instances.model_files import export

__all__ = ["Planted", "export", "load", "planted", "random_problem", "save"]

_export(
    __name__,
    {
        "files": ["load", "save"],
        "generators": ["Planted", "planted", "random_problem"],
        "model_files": ["export"],
    },
)
