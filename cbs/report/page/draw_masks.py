"""Masks as images: rows by inputs, or every row as a picture where the inputs are those of one."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.style import KEPT, PRUNED, layout, text
from cbs.report.page.words import listed, percent, several

SECTION = "Masks"
SHOWN = 8
"""Masks of a figure; all others are on the pages of their instances."""
PICTURES = (49, 64, 144, 196, 784)
"""Inputs that are pictures of digits in the networks of this package."""
INVENTED = ("random", "planted")
"""Families of which no inputs are pictures."""
SEVERAL = 4
"""Least rows of a mask of which inputs that no row keeps are told."""
COLUMNS, LINES = 2, 44
"""Pictures beside each other, and pixels for the words above."""
GAP = 1
"""Pixels between the pictures of two rows."""
Mask = NDArray[np.bool_]


def masks(evidence: Evidence) -> Iterator[Figure]:
    """The masks of least value, the largest first."""
    cells = evidence.cells.set_index("cell", drop=False)
    found = [
        (mask, layer, cells.loc[row])
        for row, layers in evidence.details.masks.values()
        for layer, mask in layers.items()
    ]
    if not found:
        return
    found.sort(key=lambda item: -item[0].size)
    pick = _varied(found)
    images = [picture(mask, is_picture(mask.shape[1], str(cell["family"]))) for mask, _, cell in pick]
    order = sorted(range(len(pick)), key=lambda i: -images[i].shape[0] / images[i].shape[1])
    heights = [_height(images[i]) for i in order]
    tall = [max(heights[i : i + COLUMNS]) + LINES for i in range(0, len(order), COLUMNS)]
    data, axes, notes, names = [], dict[str, Any](), [], []
    for place, i in enumerate(order):
        mask, layer, cell = pick[i]
        row, column = divmod(place, COLUMNS)
        left, top = column / COLUMNS, 1 - sum(tall[:row]) / sum(tall)
        suffix = "" if place == 0 else str(place + 1)
        high = top - LINES / sum(tall)
        hidden = {
            "showgrid": False,
            "zeroline": False,
            "showticklabels": False,
            "ticks": "",
            "showline": False,
            "constrain": "domain",
            "constraintoward": "left",
        }
        axes[f"xaxis{suffix}"] = {**hidden, "domain": [left, left + 0.94 / COLUMNS], "anchor": f"y{suffix}"}
        axes[f"yaxis{suffix}"] = {
            **hidden, "domain": [max(high - heights[place] / sum(tall), 0), high], "anchor": f"x{suffix}",
            "scaleanchor": f"x{suffix}", "autorange": "reversed", "constraintoward": "top",
        }  # fmt: skip
        data.append({"type": "image", "source": png(images[i]), "xaxis": f"x{suffix}", "yaxis": f"y{suffix}",
                     "hoverinfo": "skip", "meta": {"label": str(cell["label"])}})  # fmt: skip
        title = cell["instance"] + (f" at {percent(cell['sparsity'])}, layer {layer}" if layer else "")
        names.append(title)
        notes.append(
            {
                "text": f"{text(_short(title))}<br>{text(_short(cell['label']))}, "
                f"{percent(float(mask.mean()))} pruned",
                "xref": "paper",
                "yref": "paper",
                "x": left,
                "y": high,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "align": "left",
                "font": {"size": 11},
            }
        )
    table = pd.DataFrame(
        [
            {
                "cell": cell["cell"],
                "instance": cell["instance"],
                "layer": layer,
                "label": cell["label"],
                "rows": len(mask),
                "inputs": mask.shape[1],
                "pruned": int(mask.sum()),
                "share_pruned": float(mask.mean()),
                "inputs_never_kept": int(mask.all(0).sum()),
                "rows_never_kept": int(mask.all(1).sum()),
                "sparsity": cell["sparsity"],
            }
            for mask, layer, cell in found
        ]
    )
    wide = table[table["rows"] >= SEVERAL]
    never, inputs = int(wide["inputs_never_kept"].sum()), int(wide["inputs"].sum())
    yield Figure(
        "masks",
        SECTION,
        "Masks",
        f"Of the best masks of {several(len(found), 'problem or layer', 'problems or layers')}, those of "
        f"{listed(names, 4)}: kept weights are blue, rows by inputs; where inputs are pictures, every "
        "row is one.",
        f"Of {several(inputs, 'input')} {never:,} {'is' if never == 1 else 'are'} kept by no row, in "
        "masks of at "
        f"least {SEVERAL} rows."
        if len(wide)
        else f"In the median {percent(float(table['share_pruned'].median()))} of the weights are pruned.",
        {
            "data": data,
            "layout": layout({}, {}, annotations=notes, showlegend=False)
            | axes
            | {"margin": {"l": 10, "r": 10, "t": 10, "b": 10}},
        },
        table,
        height=20 + sum(tall),
    )


def _height(image: NDArray[np.uint8]) -> int:
    """Pixels that a picture is given, of a column of some 400."""
    return int(np.clip(400 * image.shape[0] / image.shape[1], 16, 260))


def _short(name: str, most: int = 30) -> str:
    """A name that fits above a picture: its end tells it from others."""
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _varied(found: list[tuple[Mask, str, Any]]) -> list[tuple[Mask, str, Any]]:
    """The largest, but of many of one family and size only so many that others have a place as well."""
    kinds: dict[tuple[Any, ...], list[tuple[Mask, str, Any]]] = {}
    for item in found:
        mask, layer, cell = item
        kinds.setdefault((cell["family"], mask.shape, layer), []).append(item)
    picked: list[tuple[Mask, str, Any]] = []
    for turn in range(max(map(len, kinds.values()))):
        for items in kinds.values():
            if turn < len(items) and len(picked) < SHOWN:
                picked.append(items[turn])
    return picked


def is_picture(n: int, family: str) -> bool:
    """Whether the inputs of a row are taken to be the pixels of a square picture."""
    return n in PICTURES and not any(word in family.lower() for word in INVENTED)


def picture(mask: Mask, pictures: bool = False) -> NDArray[np.uint8]:
    """Pixels `[height, width]`: 0 kept, 1 pruned, 2 between the pictures of rows.

    Args:
        mask: `[m, n]`, True where pruned.
        pictures: arrange every row's n inputs as a square, the squares in as square a grid as fits.
    """
    if not pictures:
        return mask.astype(np.uint8)
    m, n = mask.shape
    side = math.isqrt(n)
    columns = math.ceil(math.sqrt(m))
    rows = -(-m // columns)
    canvas = np.full((rows * (side + GAP) - GAP, columns * (side + GAP) - GAP), 2, np.uint8)
    for row in range(m):
        y, x = (row // columns) * (side + GAP), (row % columns) * (side + GAP)
        canvas[y : y + side, x : x + side] = mask[row].reshape(side, side)
    return canvas


def png(image: NDArray[np.uint8]) -> str:
    """A picture of palette entries as the address of a PNG (ISO/IEC 15948): kept, pruned, nothing."""
    height, width = image.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    lines = np.concatenate([np.zeros((height, 1), np.uint8), image], axis=1).tobytes()
    whole = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes([*KEPT, *PRUNED, 255, 255, 255]))
        + chunk(b"tRNS", bytes([255, 255, 0]))
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(whole).decode()}"
