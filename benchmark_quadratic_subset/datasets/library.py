"""A folder of instance files, one data set a file."""

import os
from pathlib import Path

from benchopt import BaseDataset

from solvers.instances import load
from solvers.instances.index import read_index

FOLDER = os.environ.get("CBS_INSTANCES")
"""Folder with instances, as `cbs instances make` writes it, or any with .npz files in it."""
CLOSED = 1e-9
"""Relative gap below which a value is the optimum."""
FILES = sorted(str(path.relative_to(FOLDER)) for path in Path(FOLDER).rglob("*.npz")) if FOLDER else []


class Dataset(BaseDataset):
    """A file of the folder that the environment variable CBS_INSTANCES names.

    Where the folder is a library, its best known value is the optimum of an instance whose gap is closed.
    """

    name = "library"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {"file": FILES or ["none"]}

    def get_data(self):
        """The problem, and its optimum where that is proven."""
        if self.file == "none":
            return {"problem": None, "reason": "set CBS_INSTANCES to a folder with instance files (.npz)"}
        path = Path(FOLDER or ".") / self.file
        return {"problem": load(path), "optimum": optimum(path)}


def optimum(path):
    """The value of an instance whose gap is closed, by the index of its library; else None."""
    try:
        index = read_index(FOLDER)
    except ValueError:  # a folder of files alone
        return None
    facts = index["instances"].get(path.stem, {})
    value, bound = facts.get("value"), facts.get("bound")
    closed = value is not None and bound is not None and value - bound <= CLOSED * abs(value)
    return value if closed else None
