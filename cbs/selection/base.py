"""The second axis of a method: how it chooses what to prune, given quadratic models of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.network.network import Network
    from cbs.network.neurons import Neurons
    from cbs.quadratic import Quadratic
    from cbs.references import References
    from cbs.request import Request
    from cbs.watch import Watch
    from solvers import Budget, Solution, Solver, SubsetProblem
    from solvers.problem import Mask


@dataclass
class Job:
    """A pruning under way: what it works on, and what it has found out.

    Attributes:
        network: the dense network.
        curvature: the method's, for this request and with its damping.
        request: what was asked.
        watch: of the run: limits, progress, interruption.
        references: the bounds known, which selections add to.
        rng: for what is drawn at random.
        stats: counts and choices for the result.
        kept: what a selection computed and needs again.
    """

    network: Network
    curvature: Curvature
    request: Request
    watch: Watch
    references: References
    rng: np.random.Generator
    stats: dict[str, Any] = field(default_factory=dict)
    kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def quadratics(self) -> Sequence[Quadratic]:
        """The models of the curvature; where weights go, drawn toward the reference if there is one."""
        return self.network(self.curvature) if self.request.neurons else self.network.toward(self.curvature)


@dataclass(frozen=True, eq=False)
class NeuronChoice:
    """A group of neurons, which of them go, and how that was found.

    Attributes:
        group: the neurons.
        removed: `[count]`, True where a neuron goes.
        by: the scores or the solver.
        solution: of the joint problem of the group's columns, in the rows that the groups after it leave; or
            None.
        stats: counts and figures for the result.
    """

    group: Neurons
    removed: Mask
    by: str
    solution: Solution | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The layers of a model, what is pruned of them, and how that was found.

    Attributes:
        quadratic: the model.
        masks: `[m, n]` of each of its layers, True where pruned.
        by: the scores or the solver.
        problem: what was solved, or None.
        solution: of it, or None.
        neurons: where neurons are pruned, what goes of every group of the network.
    """

    quadratic: Quadratic
    masks: list[Mask]
    by: str
    problem: SubsetProblem | None = None
    solution: Solution | None = None
    neurons: Sequence[NeuronChoice] = ()


class Selection(ABC):
    """How a method chooses what to prune. Subclasses are frozen dataclasses without data."""

    searches: ClassVar[bool] = False
    """Whether it searches, for which code is compiled."""
    granularities: ClassVar[tuple[str, ...]] = ("weights",)
    """What it can prune, of `cbs.checks.GRANULARITIES`; the first unless a request says which."""
    requires: ClassVar[tuple[str, ...]] = ()
    """What it needs of data and network, a word or two each, for the table of methods."""
    embeds: ClassVar[bool] = True
    """Whether it can choose weights of an Embedding, whose inputs are tokens."""
    merges: ClassVar[bool] = False
    """Whether its choices of neurons tell which others these go into."""

    @property
    def open(self) -> bool:
        """Whether weights are chosen by whatever solver is best, and not by a rule of its own."""
        return False

    @property
    def weighs(self) -> bool:
        """Whether rows of a layer Gram count by `E[(dL/da_r)^2]` in it where layers share one budget."""
        return True

    @property
    @abstractmethod
    def words(self) -> str:
        """In the table of methods."""

    def refuses(self, curvature: Curvature) -> str | None:
        """Why no method has this selection on such a curvature, or None."""
        return None

    def able(self, curvature: Curvature, request: Request) -> str | None:
        """Why it can't do what is asked, whatever the network, or None."""
        return None

    def unfit(self, curvature: Curvature, network: Network) -> str | None:
        """What a network would take of it that it has not, or None."""
        return None

    def searcher(self, request: Request) -> Solver | None:
        """The solver that searches for a request, or None."""
        return None

    def in_passing(self, request: Request) -> Request:
        """The request as it is for a stage that others follow, whose masks nobody will see: no proofs."""
        return request

    def proves(self, curvature: Curvature, request: Request) -> bool:
        """Whether bounds on the layers' objectives come of it."""
        return False


class WeightSelection(Selection):
    """A selection of single weights."""

    @abstractmethod
    def share(self, job: Job) -> list[Mask]:
        """Masks of every layer that meet the network's one budget: how many of each row go."""

    @abstractmethod
    def choose(
        self,
        job: Job,
        quadratics: Sequence[Quadratic],
        budgets: Sequence[Budget],
        starts: Sequence[Mask | None],
    ) -> list[Choice]:
        """What is pruned.

        Args:
            job: the run.
            quadratics: models, of all layers or of some.
            budgets: of every model: its layer's, or that of all its layers together.
            starts: for every model a mask `[m, n]` of its layer that meets the budget, or None.
        """


class NeuronSelection(Selection):
    """A selection of whole neurons."""

    granularities: ClassVar[tuple[str, ...]] = ("neurons",)

    @abstractmethod
    def choose_neurons(
        self, job: Job, groups: Sequence[Neurons], counts: Sequence[int] | int
    ) -> list[NeuronChoice]:
        """Which neurons go.

        Args:
            job: the run; `job.network.gone` are the neurons that are gone already, which count.
            groups: the network's.
            counts: how many of every group; or of all together, where they share one budget.

        Returns:
            A choice for every group, in their order; one neuron of each stays.
        """
