"""A folder of instance files, one data set a file."""

import json
import os
from pathlib import Path

from benchopt import BaseDataset

from solvers.instances import load

FOLDER = os.environ.get("CBS_INSTANCES")
"""Folder with instances, as `cbs instances make` writes it, or any with .npz files in it."""
FILES = sorted(str(path.relative_to(FOLDER)) for path in Path(FOLDER).rglob("*.npz")) if FOLDER else []


class Dataset(BaseDataset):
    """A file of the folder that the environment variable CBS_INSTANCES names.

    The best known value is taken for the optimum where a file beside it, or an `index.json` of the folder, says that
    it is proven.
    """

    name = "library"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {"file": FILES or ["none"]}

    def get_data(self):
        """The problem, and its optimum where that is proven."""
        if self.file == "none":
            return {"problem": None, "reason": "set CBS_INSTANCES to a folder with instance files (.npz)"}
        path = Path(FOLDER or ".") / self.file
        return {"problem": load(path)}
