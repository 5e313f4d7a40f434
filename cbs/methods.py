"""The methods of the field as points of one table: curvature, selection, compensation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cbs.network import Network
from cbs.plan import Plan
from cbs.pruners.joint import joint
from cbs.pruners.separable import magnitude, random
from cbs.references import References
from cbs.request import Request, check_name
from cbs.watch import Watch

Run = Callable[[Network, Request, Watch, References], Plan]


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        name: what `prune(method=...)` takes.
        curvature: what the method knows of the loss.
        selection: how it chooses the weights to prune.
        compensation: what moves to make up for them.
        paper: where it comes from.
        run: the method itself.
    """

    name: str
    curvature: str
    selection: str
    compensation: str
    paper: str
    run: Run = field(repr=False)

    def describe(self) -> dict[str, str]:
        """The row of the table, without the code."""
        names = ("name", "curvature", "selection", "compensation", "paper")
        return {name: getattr(self, name) for name in names}


def _plain(run: Callable[[Network, Request, Watch], Plan]) -> Run:
    return lambda network, request, watch, references: run(network, request, watch)


_TABLE = (
    Method("magnitude", "identity", "separable, w^2", "none", "Han et al. 2015", _plain(magnitude)),
    Method("random", "identity", "random", "none", "-", _plain(random)),
    Method(
        "joint", "layer Gram", "combinatorial, by any solver, certified", "survivors of the row, bias",
        "this project", joint,
    ),
)  # fmt: skip


def methods() -> dict[str, dict[str, str]]:
    """The table of methods: for every name its curvature, selection, compensation and paper."""
    return {method.name: method.describe() for method in _TABLE}


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        ValueError: for an unknown name, with the nearest known.
    """
    known = {method.name: method for method in _TABLE}
    check_name("method", name, list(known))
    return known[name]
