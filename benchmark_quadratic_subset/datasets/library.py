"""A library of instances, or a folder of instance files: a data set an instance."""

import os
from pathlib import Path

from benchopt import BaseDataset

from solvers.instances import load
from solvers.instances.index import INDEX
from solvers.instances.library import Library

FOLDER = os.environ.get("CBS_INSTANCES")
"""A library, as `cbs instances make -o FOLDER` writes it, or any folder with .npz instances in it."""


def names():
    """Of the instances there."""
    if not FOLDER:
        return []
    if (Path(FOLDER) / INDEX).exists():
        return [item.name for item in Library(FOLDER)]
    return sorted(path.relative_to(FOLDER).as_posix() for path in Path(FOLDER).rglob("*.npz"))


class Dataset(BaseDataset):
    """An instance of the folder that the environment variable CBS_INSTANCES names.

    Where the folder is a library, its best value of an instance whose gap is closed is the optimum.
    """

    name = "library"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {"instance": names() or ["none"]}

    def get_data(self):
        """The problem, and its optimum where that is proven."""
        if self.instance == "none":
            return {"problem": None, "reason": "set CBS_INSTANCES to a folder with instances"}
        if not (Path(FOLDER) / INDEX).exists():
            return {"problem": load(Path(FOLDER) / self.instance)}
        item = Library(FOLDER)[self.instance]
        try:
            problem = item.problem()
        except ValueError as reason:  # several layers share its budget
            return {"problem": None, "reason": str(reason)}
        return {"problem": problem, "optimum": item.value if item.status == "proven" else None}
