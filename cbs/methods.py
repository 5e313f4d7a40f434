"""The table of methods: each is a point of three axes, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cbs.compensation import Merged, Nothing, OwnBias, Scaled, Singles, Survivors
from cbs.curvature import (
    Fisher,
    FisherDiagonal,
    GaussNewton,
    GaussNewtonDiagonal,
    GaussNewtonSpread,
    Gram,
    HessianDiagonal,
    Identity,
    OutputDiagonal,
    OutputGram,
    RecursionDiagonal,
    RowGram,
)
from cbs.method import Method
from cbs.names import check_name
from cbs.selection import NeuronDropout, NeuronMerge, NeuronSolve, Scores, Solve
from solvers.runtime.plugins import plugins

OBD_SD = "this project's reading of Harang & Sanders 2023"
"""OBD-SD is named there; its formula was not to be had."""

_CBS = Solve(problem="selection", judge="loss", damped=False)
_RMP = Solve("randomized-magnitude", problem="selection", judge="loss", damped=False)

_ROWS = (
    Method(Identity(), Scores("magnitude"), Nothing(), paper="Han et al. 2015", name="magnitude"),
    Method(Identity(), Scores("random"), Nothing(), name="random"),
    Method(GaussNewtonDiagonal(), Scores("obd"), Nothing(), paper="LeCun et al. 1990", name="obd"),
    Method(
        RecursionDiagonal(), Scores("obd"), Nothing(), paper="LeCun et al. 1990", name="obd-recursion",
    ),
    Method(HessianDiagonal(), Scores("obd"), Nothing(), paper="LeCun et al. 1990", name="obd-exact"),
    Method(FisherDiagonal(), Scores("obd"), Nothing(), paper=OBD_SD, name="obd-sd-fisher"),
    Method(GaussNewtonSpread(), Scores("obd"), Nothing(), paper=OBD_SD, name="obd-sd-spread"),
    Method(GaussNewton(), Solve("obs"), Survivors(), paper="Hassibi & Stork 1992", name="obs"),
    Method(
        GaussNewton(), Solve(wide="local-search"), Survivors(), paper="this project", name="obs-joint",
    ),
    Method(
        Fisher(apart=True), Scores("obs"), Singles(), paper="Singh & Alistarh 2020", name="woodfisher",
    ),
    Method(Gram(), Scores("wanda"), Nothing(), paper="Sun et al. 2024", name="wanda"),
    Method(Gram(), Solve("greedy"), Survivors(), paper="Frantar & Alistarh 2022", name="obc"),
    Method(Gram(), Solve("sparsegpt"), Survivors(), paper="Frantar & Alistarh 2023", name="sparsegpt"),
    Method(Gram(), Solve("alps"), Survivors(), paper="Meng et al. 2024", name="alps"),
    Method(Fisher(), Solve("chita"), Survivors(), paper="Benbaki et al. 2023", name="chita"),
    Method(Fisher(), _RMP, Nothing(), paper="Yu et al. 2022", name="rmp"),
    Method(Fisher(), _CBS, Nothing(), paper="Yu et al. 2022", name="cbs-s"),
    Method(Fisher(), _CBS, Survivors(), paper="Yu et al. 2022", name="cbs"),
    Method(Fisher(), _CBS, Scaled(), paper="Yu et al. 2022", name="cbs-scaled"),
    Method(
        Identity(), Scores("sensitivity"), Nothing(), paper="Ballini et al. 2026 (baseline)",
        name="sensitivity",
    ),
    Method(
        OutputDiagonal(), Scores("elimination"), OwnBias(), paper="Ballini et al. 2026", name="elimination",
    ),
    Method(
        Gram(), Scores("ablation"), OwnBias(), paper="Ballini et al. 2026", name="elimination-nonlinear",
    ),
    Method(
        OutputGram(damping=0.0), Solve(problem="own-bias"), OwnBias(), paper="this project",
        name="elimination-joint",
    ),
    Method(
        Identity(), NeuronDropout(), Nothing(), "neurons", "Harang & Sanders 2023", name="neuron-dropout",
    ),
    Method(Gram(), NeuronMerge(), Merged(), "neurons", paper="Kim et al. 2020", name="neuron-merge"),
    Method(
        Gram(), NeuronSolve("osscar"), Survivors(), "neurons", paper="Meng et al. 2024", name="neuron-osscar",
    ),
    Method(Gram(), NeuronSolve(), Survivors(), "neurons", paper="this project", name="neuron-joint"),
    Method(
        RowGram(share=0.5, groups=8), Solve("local-search"), Survivors(), paper="this project",
        name="joint-loss",
    ),
    Method(Gram(), Solve(), Survivors(), paper="this project", name="joint"),
)  # fmt: skip


@cache
def table() -> Mapping[str, Method]:
    """Every method by name: those above, and those of installed packages, entry points `cbs.methods`."""
    known = {method.name: method for method in _ROWS}
    return {**known, **plugins("cbs.methods", Method, known)}


def methods() -> dict[str, dict[str, str]]:
    """The table of methods: for every name curvature, selection, compensation, granularity, needs, paper."""
    return {name: method.describe() for name, method in table().items()}


def get_method(method: str | Method) -> Method:
    """A method by name, or the method itself.

    Raises:
        ValueError: for an unknown name, with the nearest known.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise ValueError(f"method must be a name, or a cbs.Method, got {method!r}")
    check_name("method", method, list(table()))
    return table()[method]
