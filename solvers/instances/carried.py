"""An instance inside a model file, in comments, so that it is read back bit for bit.

A mixed-integer model does not hold an instance's numbers: weights and curvature are scaled and multiplied
into its coefficients. So the instance file stands beside the model, in base64, with a digest of the model's
lines: where these were changed, the two may no longer say the same, and reading is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solvers.instances.files import load
from solvers.problem import SubsetProblem

MARK = "cbs instance 1"
WIDTH = 72
"""Letters of a line, short enough for every reader."""


def carried(problem: SubsetProblem, lines: Sequence[str], sign: str) -> list[str]:
    """The comment lines that hold an instance.

    Args:
        problem: the instance.
        lines: of the model.
        sign: with which a comment begins.
    """
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **problem.describe())
    text = base64.b64encode(file.getvalue()).decode()
    body = [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]
    return [f"{sign} {MARK} {_digest(lines)} {len(body)}", *(f"{sign} {line}" for line in body)]


def find_carried(path: str | os.PathLike[str], text: str, sign: str) -> SubsetProblem | None:
    """The instance that a model file carries, or None.

    Args:
        path: of the file, for complaints.
        text: of the file.
        sign: with which a comment begins.

    Raises:
        ValueError: in one line, if the model was changed, or the comments are damaged.
    """
    what = f"model file {os.fspath(path)!r}"
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(f"{sign} {MARK} ")), None)
    if start is None:
        return None
    words = lines[start].split()
    if len(words) != 6 or not words[5].isdigit():
        raise ValueError(f"{what}: the instance in its comments is damaged")
    end = start + 1 + int(words[5])
    body, model = lines[start + 1 : end], lines[:start] + lines[end:]
    if _digest(model) != words[4]:
        raise ValueError(
            f"{what} was changed after it was written, and may no longer be the instance in its comments; "
            "export it anew"
        )
    try:
        raw = base64.b64decode("".join(line.removeprefix(sign).strip() for line in body), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{what}: the instance in its comments is damaged") from None
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "instance.npz"
        inner.write_bytes(raw)
        try:
            return load(inner)
        except ValueError as error:
            reason = str(error).rpartition(": ")[2]
            raise ValueError(f"{what}: the instance in its comments is damaged ({reason})") from None


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(line.rstrip() for line in lines).encode()).hexdigest()
