"""The methods of the field as points of one table: curvature, selection, compensation."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cbs.request import Request, check_name

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.plan import Plan
    from cbs.references import References
    from cbs.watch import Watch


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        name: what `prune(method=...)` takes.
        curvature: what the method knows of the loss.
        selection: how it chooses the weights to prune.
        compensation: what moves to make up for them.
        paper: where it comes from.
        code: the function that does it, `module:name` in `cbs.pruners`; imported when it is run.
        columns: whether it can do the budget `columns`.
        certified: whether it hands its bounds to the references.
    """

    name: str
    curvature: str
    selection: str
    compensation: str
    paper: str
    code: str = field(repr=False)
    columns: bool = True
    certified: bool = False

    @property
    def searches(self) -> bool:
        """Whether it chooses by more than one number for each weight, for which code is compiled."""
        return not self.code.startswith("separable:")

    def check(self, request: Request) -> None:
        """Raise ValueError, in one line, for a request that the method can't meet."""
        if request.budget == "columns" and not self.columns:
            able = ", ".join(method.name for method in _TABLE if method.columns)
            raise ValueError(f"method {self.name!r} does not do budget 'columns'; these do: {able}")

    def run(self, network: Network, request: Request, watch: Watch, references: References) -> Plan:
        """Prune: an answer for every layer, before surgery."""
        code = pkgutil.resolve_name(f"cbs.pruners.{self.code}")
        plan: Plan = code(network, request, watch, *([references] if self.certified else []))
        return plan

    def describe(self) -> dict[str, str]:
        """The row of the table, without the code."""
        names = ("name", "curvature", "selection", "compensation", "paper")
        return {name: getattr(self, name) for name in names}


_FISHER = "empirical Fisher"
_TABLE = (
    Method("magnitude", "identity", "separable, w^2", "none", "Han et al. 2015", "separable:magnitude"),
    Method("random", "identity", "random", "none", "-", "separable:random"),
    Method(
        "obd", "Gauss-Newton diagonal", "separable, 1/2 h w^2", "none", "LeCun et al. 1990", "separable:obd",
    ),
    Method(
        "obs", _FISHER, "one at a time, w^2 / (2 [H^-1]_qq)", "all survivors", "Hassibi & Stork 1992",
        "fisher:obs", columns=False,
    ),
    Method(
        "woodfisher", f"{_FISHER}, a block a layer", "separable, w^2 / (2 [H^-1]_qq)", "all survivors",
        "Singh & Alistarh 2020", "fisher:woodfisher",
    ),
    Method("cbs-s", _FISHER, "combinatorial", "none", "Yu et al. 2022", "surgeon:cbs_selection"),
    Method("cbs", _FISHER, "combinatorial, as cbs-s", "all survivors", "Yu et al. 2022", "surgeon:cbs"),
    Method(
        "joint", "layer Gram", "combinatorial, by any solver, certified", "survivors of the row, bias",
        "this project", "joint:joint", certified=True,
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
