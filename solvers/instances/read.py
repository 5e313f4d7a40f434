"""Reading a problem from a file of any format: `.npz`, or a model in `.mps`, `.lp` or `.qplib`."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from solvers.instances.carried import find_carried
from solvers.instances.files import load
from solvers.instances.mixed_programme import MixedProgramme
from solvers.instances.qplib import parse_qplib
from solvers.problem import SubsetProblem

READING, UNREAD = Path(__file__).with_name("highs_reading.py"), 3
"""What reads a model file by HiGHS, and its status if HiGHS can't."""
SIGNS = {".mps": "*", ".lp": "\\", ".qplib": "#"}
"""With which a comment begins, by the ending of a model file's name."""


def read_problem(path: str | os.PathLike[str]) -> SubsetProblem:
    """Read a problem from an instance file, or from a model file.

    A model file written here carries its instance, which is read back bit for bit. Of others that are
    selection problems (`MixedProgramme.selection`) the problem is made; `.mps` and `.lp` files are then read
    by HiGHS.

    Args:
        path: of the file; without one of the endings `.mps`, `.lp` and `.qplib` it is an instance file.

    Raises:
        ValueError: in one line, for a file that can't be read, or holds no subset-selection problem.
    """
    path = Path(path)
    sign = SIGNS.get(path.suffix.lower())
    if sign is None:
        return load(path)
    text = _text(path)
    found = find_carried(path, text, sign)
    if found is not None:
        return found
    what = f"model file {str(path)!r}"
    programme = parse_qplib(text, what) if path.suffix.lower() == ".qplib" else _by_highs(path, what)
    try:
        return programme.selection()
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def read_programme(path: str | os.PathLike[str]) -> MixedProgramme:
    """Read a model file as a mixed-integer programme; `.mps` and `.lp` files are read by HiGHS.

    Raises:
        ValueError: in one line, for a file that can't be read.
    """
    path = Path(path)
    what = f"model file {str(path)!r}"
    if path.suffix.lower() not in SIGNS:
        raise ValueError(f"{what} must end in {', '.join(SIGNS)}")
    text = _text(path)
    return parse_qplib(text, what) if path.suffix.lower() == ".qplib" else _by_highs(path, what)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is not a text"
        raise ValueError(f"model file {str(path)!r} can't be read: {told}") from None


def _by_highs(path: Path, what: str) -> MixedProgramme:
    if find_spec("highspy") is None:
        raise ValueError(
            f"{what} carries no instance, and to read one of others takes HiGHS: pip install 'highspy>=1.15'"
        )
    done = subprocess.run([sys.executable, "-P", str(READING), str(path.resolve())], capture_output=True)
    if done.returncode == UNREAD:
        raise ValueError(
            f"{what} can't be read by HiGHS, which takes linear rows, binary and integer variables and a "
            "quadratic objective (in .mps as QMATRIX or QUADOBJ)"
        )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        raise ValueError(f"{what} can't be read by HiGHS ({last[-1]:.120})")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as archive:
        fields = dict(archive.items())
    N, M = len(fields["c"]), len(fields["row_lower"])
    if not N:
        raise ValueError(f"{what} has no variables")
    parts = (fields["A_data"], fields["A_index"], fields["A_start"])
    A = sp.csc_array(parts, shape=(M, N)) if fields["by_columns"] else sp.csr_array(parts, shape=(M, N))
    Q = sp.csr_array((N, N))
    if size := int(fields["dim"]):
        lower = sp.csc_array((fields["Q_data"], fields["Q_index"], fields["Q_start"]), shape=(size, size))
        lower.resize((N, N))
        Q = sp.csr_array(lower + sp.tril(lower, -1).T)
    return MixedProgramme(
        path.stem, Q, fields["c"], float(fields["offset"]), sp.csr_array(A), fields["row_lower"],
        fields["row_upper"], fields["lower"], fields["upper"], fields["whole"], bool(fields["maximize"]),
        names=tuple(map(str, fields["names"])),
    )  # fmt: skip
