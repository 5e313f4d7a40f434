"""A method of pruning as a value: curvature, selection and compensation."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cbs.checks import GRANULARITIES
from cbs.compensation import Compensation
from cbs.curvature import Curvature, LayerCurvature
from cbs.names import check_name
from cbs.request import Request
from cbs.selection import Selection

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.plan import Plan
    from cbs.references import References
    from cbs.watch import Watch


@dataclass(frozen=True)
class Method:
    """A way to prune: `prune(method=...)` takes one, or the name of one in the table `cbs.methods()`.

    For example Wanda with a refit: `cbs.Method(cbs.Gram(), cbs.Scores("wanda"), cbs.Survivors())`.

    Attributes:
        curvature: what it knows of the loss.
        selection: how it chooses what to prune.
        compensation: what moves to make up for that.
        granularity: what is pruned, `weights` or `neurons`; None for whatever the selection can.
        paper: where it comes from.
        needs: modules that must be installed beyond the project's own dependencies.
        name: for reports.

    Raises:
        ValueError: in one line, for parts that make no method together.
    """

    curvature: Curvature
    selection: Selection
    compensation: Compensation
    granularity: str | None = None
    paper: str = "-"
    needs: tuple[str, ...] = field(default=(), repr=False)
    name: str = "custom"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or len(self.name.splitlines()) > 1:
            raise ValueError(f"a method's name must be a word or more in one line, got {self.name!r}")
        for name, kind in (
            ("curvature", Curvature),
            ("selection", Selection),
            ("compensation", Compensation),
        ):
            part = getattr(self, name)
            if not isinstance(part, kind):
                called = "; call it: " if isinstance(part, type) and issubclass(part, kind) else ""
                given = f"{part.__name__}{called}{part.__name__}()" if called else repr(part)
                raise ValueError(f"method {self.name!r}: {name} must be a cbs {kind.__name__}, got {given}")
        if self.granularity is not None:
            check_name("granularity", self.granularity, GRANULARITIES)
            if self.granularity not in self.selection.granularities:
                only = ", ".join(self.selection.granularities)
                raise ValueError(f"method {self.name!r}: {self.selection.words} prunes {only} only")
        if not isinstance(self.paper, str):
            raise ValueError(f"method {self.name!r}: paper must be text, '-' for none, got {self.paper!r}")
        if isinstance(self.needs, str) or not all(isinstance(module, str) for module in self.needs or ()):
            raise ValueError(f"method {self.name!r}: needs must be a tuple of modules, got {self.needs!r}")
        reason = (
            self.selection.refuses(self.curvature)
            or self.compensation.refuses(self.curvature)
            or self.compensation.unsuited(self.selection)
        )
        if reason:
            raise ValueError(f"method {self.name!r}: {reason}")

    @property
    def granularities(self) -> tuple[str, ...]:
        """What it can prune; the first of these unless the request says which."""
        return self.selection.granularities if self.granularity is None else (self.granularity,)

    @property
    def searches(self) -> bool:
        """Whether there is more to it than one number for each weight, for which code is compiled."""
        return self.selection.searches or self.compensation.solves

    @property
    def open(self) -> bool:
        """Whether its masks are by any solver, and survivors move: others may stand for what it is after."""
        return self.selection.open and self.compensation.refits

    def proves(self, request: Request) -> bool:
        """Whether bounds on the layers' objectives come of it, which all methods are held against."""
        return request.pipeline == "one-shot" and self.selection.proves(self.curvature, request)

    def check(self, request: Request) -> None:
        """Raise ValueError, in one line, for a request that the method can't meet on any network."""
        missing = [module for module in self._modules if not _there(module)]
        if missing:
            raise ValueError(f"method {self.name!r} needs {', '.join(missing)}, which is not installed")
        if request.granularity not in (None, *self.granularities):
            from cbs.methods import table

            able = [name for name, method in table().items() if request.granularity in method.granularities]
            raise ValueError(
                f"method {self.name!r} prunes {' or '.join(self.granularities)}, not {request.granularity}; "
                f"these do: {', '.join(able)}"
            )
        if request.pipeline == "sequential" and not isinstance(self.curvature, LayerCurvature):
            raise ValueError(
                f"method {self.name!r} does not do pipeline 'sequential', which takes the layer Gram as "
                f"curvature, not {self.curvature.words}"
            )
        reason = self._unable(request)
        if reason and request.budget == "columns":
            from cbs.methods import table

            able = [name for name, method in table().items() if not method._unable(request)]
            raise ValueError(
                f"method {self.name!r} does not do budget 'columns' ({reason}); these do: {', '.join(able)}"
            )
        if reason:
            raise ValueError(f"method {self.name!r}: {reason}")

    @property
    def _modules(self) -> tuple[str, ...]:
        """What must be installed for it: of the method's own, and of its curvature."""
        return (*self.curvature.needs, *(self.needs or ()))

    def _unable(self, request: Request) -> str | None:
        if "weights" not in self.granularities:
            for name, taken in (("budget", "unstructured"), ("pipeline", "one-shot")):
                if (asked := getattr(request, name)) != taken:
                    return f"it prunes neurons, for which {name} is {taken!r}, not {asked!r}"
        return self.selection.able(self.curvature.within(request), request)

    def run(self, network: Network, request: Request, watch: Watch, references: References) -> Plan:
        """Prune: what becomes of every layer, before surgery. Bounds that are proven go to the references."""
        from cbs.runner import run

        return run(self, network, request, watch, references)

    def lacks_labels(self, request: Request) -> str | None:
        """Why it can't prune as asked where data has no labels, in one line, or None if it can."""
        parts = self.curvature.within(request), self.selection, self.compensation
        give = (
            "give batches (inputs, targets), or cbs.unlabelled(model, data), which has the network draw them"
        )
        if any("targets" in part.requires for part in parts):
            return f"method {self.name!r} needs labels, and the data has none; {give}, or take method 'joint'"
        if request.labels:
            return f"labels=True is about the loss on labels, and the data has none; {give}"
        return None

    def describe(self) -> dict[str, str]:
        """The row of the table, in words."""
        parts = self.curvature, self.selection, self.compensation
        needs = dict.fromkeys(word for part in parts for word in part.requires)
        if self.curvature.scaled and self.selection.weighs and "targets" not in needs:
            needs["targets with scope network"] = None
        needs |= dict.fromkeys(self._modules)
        return {
            "name": self.name,
            **{axis: getattr(self, axis).words for axis in ("curvature", "selection", "compensation")},
            "granularity": ", ".join(self.granularities),
            "needs": ", ".join(needs) or "-",
            "paper": self.paper,
        }


def _there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a submodule, whose package is not there
        return False
