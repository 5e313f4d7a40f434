"""What every solver declares about itself, and what it hands back."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from solvers.budget import GROUPS, KINDS
from solvers.control import Control
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.tensors import tensors_help
from solvers.solution import RowBounds, Status

if TYPE_CHECKING:
    from solvers.certificate.proof import BlockProofs, ImagePoints


@dataclass(frozen=True)
class Outcome:
    """A solver's raw answer on the reduced problem, before `Solution.judge` checks it.

    Attributes:
        mask: best mask found.
        bound: valid lower bound, or minus infinity.
        reason: why it stopped.
        stats: counts, choices, repairs.
        proof: where `Control.certify` asks for it, what a certificate is made of: the proofs of all blocks,
            or points of the images of a curvature that is not formed. Else None.
        rows: bounds of the rows, where they have budgets of their own and the solver has them; else None.
    """

    mask: Mask = field(repr=False)
    bound: float = -math.inf
    reason: Status = Status.FEASIBLE
    stats: Mapping[str, Any] = field(default_factory=dict)
    proof: BlockProofs | ImagePoints | None = field(default=None, repr=False)
    rows: RowBounds | None = field(default=None, repr=False)


class Solver(ABC):
    """A way to solve a `SubsetProblem`: class attributes say what it can do, fields how it does it.

    Subclasses are frozen dataclasses whose fields are hyper-parameters with defaults. They see
    reduced problems only: no movable columns, and no gradient in the joint variant. What they return is not
    trusted: the mask is checked and its value recomputed (`solvers.solve`).

    An instance can be given wherever the name of a solver can. A package makes its solvers known by name
    with entry points in the group `cbs.solvers`, see `solvers.runtime.plugins`.
    """

    name: ClassVar[str]
    """Name in the registry."""
    summary: ClassVar[str]
    """One line for `cbs solvers`."""
    proves: ClassVar[str] = "nothing"
    """`optimality`, `a bound`, or `nothing`."""
    variants: ClassVar[tuple[str, ...]] = ("joint", "selection")
    """Variants it can do."""
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS)
    """Budget kinds it can do; one of `pools` comes to it as one of `groups`."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules it needs beyond the core dependencies."""
    resumable: ClassVar[bool] = False
    """Whether it keeps its search in `Control.checkpoint`, and goes on from there."""
    wheel: ClassVar[str] = ""
    """What `pip install` takes to install them, as the project's extra has it: `gurobipy>=11`."""

    @abstractmethod
    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """Solve a reduced problem within the control's limits."""

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """Do once what no time limit should pay for, such as compiling; called before the clock starts.

        Args:
            like: a problem of the kind that is to be solved; None for whatever the solver takes.
        """
        return

    def makes_tensors(self, problem: SubsetProblem, device: str) -> bool:
        """Whether its run may need PyTorch, which is then imported before the clock starts."""
        return tensors_help(problem, device)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """Why it can't take a problem of a variant and budget that it supports (size), or None."""
        return None

    def resumes(self, problem: SubsetProblem) -> bool:
        """Whether its search of a problem can be kept in a checkpoint, if it is `resumable`."""
        return self.resumable

    def settings(self) -> str:
        """What of its fields a search that is gone on with must share; limits are not among them."""
        return repr(self)

    @classmethod
    def install_hint(cls) -> str | None:
        """The command that installs what it requires beyond the core dependencies, or None."""
        return f"pip install '{cls.wheel}'" if cls.wheel else None

    @classmethod
    def installed(cls) -> bool:
        """Whether the modules it requires can be imported."""
        try:
            return all(importlib.util.find_spec(module) is not None for module in cls.requires)
        except ModuleNotFoundError:  # of a submodule, whose package is not there
            return False
