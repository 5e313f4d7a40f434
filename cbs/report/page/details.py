"""Traces and masks of cells, small enough for a page (decimation): what the arrays of a store become."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.traces import Trace

if TYPE_CHECKING:
    import pandas as pd

Arrays = Callable[[str], Mapping[str, NDArray[Any]]]
"""Gives the arrays of a cell by its key; an empty mapping where it has none."""
UNREADABLE = (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What damaged arrays raise."""
READ = 40_000
"""Cells whose arrays are read at most."""
SHAPE = "_shape"
"""Ending of the name of a packed mask's shape."""
LARGE, TOTAL = 1 << 21, 1 << 25
"""Entries of the largest mask that a page holds, and of all of them together."""


@dataclass(frozen=True)
class Details:
    """What the arrays say.

    Attributes:
        traces: by the row of a cell.
        masks: by the page of an instance, for its best cell: the row, and its masks `[m, n]`, True where
            pruned, by name: an empty one for the mask of a problem, the layer's for those of a network.
        unread: cells whose arrays were not read, as there are too many.
        unreadable: cells whose arrays could not be read, each with the reason.
    """

    traces: Mapping[int, Trace] = field(default_factory=dict)
    masks: Mapping[str, tuple[int, Mapping[str, NDArray[np.bool_]]]] = field(default_factory=dict)
    unread: int = 0
    unreadable: Mapping[int, str] = field(default_factory=dict)


def gather(cells: pd.DataFrame, arrays: Arrays | None) -> Details:
    """Traces of all cells that have some, and the masks of the best of every problem.

    A network's masks are those of the greatest accuracy (least loss, least value) at every sparsity.
    """
    if arrays is None:
        return Details()
    done = cells[cells["state"] == "done"]
    read, traces, wrong = done.head(READ), dict[int, Trace](), dict[int, str]()
    wanted, room = _best(read), TOTAL
    masks: dict[str, tuple[int, Mapping[str, NDArray[np.bool_]]]] = {}
    fields = ["cell", "key", "kind", "value", "bound", "seconds"]
    for row, key, kind, value, bound, seconds in read[fields].itertuples(index=False):
        if kind != "solve" and row not in wanted:
            continue
        try:
            found = arrays(key)
            if "trace_seconds" in found:
                traces[row] = Trace.of(found, value, bound, seconds)
            if row in wanted and (mine := masks_of(found)):
                room -= sum(mask.size for mask in mine.values())
                if room >= 0:
                    masks[wanted[row]] = row, mine
        except UNREADABLE as error:
            wrong[row] = f"{type(error).__name__}: {error}"
    return Details(traces, masks, len(done) - len(read), wrong)


def masks_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    """The masks `[m, n]` of a cell by name.

    They are `mask` and any `mask:LAYER`: packed bits, with their shape under the same name and `_shape`, or
    plain bools.

    Raises:
        ValueError: if the bits are too few for the shape.
    """
    found = {}
    for name, bits in arrays.items():
        head, _, layer = name.partition(":")
        if head != "mask" or name.removesuffix(SHAPE) in arrays.keys() - {name}:
            continue
        shape = arrays.get(f"{name}{SHAPE}")
        if shape is None:
            mask = np.asarray(bits, bool)
        else:
            size = int(np.prod(shape))
            if 8 * bits.size < size:
                raise ValueError(f"{name!r} has {8 * bits.size} bits, its shape {tuple(shape)} needs {size}")
            mask = np.unpackbits(np.asarray(bits, np.uint8).ravel(), count=size).astype(bool).reshape(shape)
        if 0 < mask.size <= LARGE:
            found[layer] = mask.reshape(len(mask), -1) if mask.ndim > 1 else mask.reshape(1, -1)
    return found


def _best(done: pd.DataFrame) -> dict[int, str]:
    """The cell of the least value of every problem; of every network and sparsity, of the best accuracy."""
    solve = done[(done["kind"] == "solve") & np.isfinite(done["value"])]
    first = solve.sort_values("value", kind="stable").drop_duplicates("problem")
    found = dict(zip(first["cell"], first["page"], strict=True))
    prune = done[done["kind"] == "prune"].sort_values(
        ["accuracy", "loss", "value"], ascending=[False, True, True], kind="stable", na_position="last"
    )
    for row in prune.drop_duplicates(["problem", "sparsity"]).itertuples():
        found[row.cell] = row.page
    return found
