"""Curvatures, what a method knows of the loss: the values in `base`, and what computes them a file each."""

from cbs.curvature.base import (
    Curvature,
    Fisher,
    GaussNewton,
    GaussNewtonDiagonal,
    Gram,
    Identity,
    LayerCurvature,
)
from cbs.curvature.diagonals import (
    FisherDiagonal,
    GaussNewtonSpread,
    HessianDiagonal,
    Hutchinson,
    RecursionDiagonal,
)
from cbs.curvature.operators import (
    GGN,
    Hessian,
    Kronecker,
    MonteCarloFisher,
)
from cbs.curvature.outputs import (
    OutputDiagonal,
    OutputGram,
)
from cbs.curvature.row_gram import RowGram

__all__ = [
    "GGN",
    "Curvature",
    "Fisher",
    "FisherDiagonal",
    "GaussNewton",
    "GaussNewtonDiagonal",
    "GaussNewtonSpread",
    "Gram",
    "Hessian",
    "HessianDiagonal",
    "Hutchinson",
    "Identity",
    "Kronecker",
    "LayerCurvature",
    "MonteCarloFisher",
    "OutputDiagonal",
    "OutputGram",
    "RecursionDiagonal",
    "RowGram",
]  # fmt: skip
