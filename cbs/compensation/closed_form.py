"""The third axis of a method: what moves to make up for the weights that are pruned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.plan import LayerPlan
    from cbs.selection.base import Choice, Job, Selection
    from solvers.hessian import Array


class Compensation(ABC):
    """What moves. Subclasses are frozen dataclasses without data."""

    words: ClassVar[str]
    """In the table of methods."""
    solves: ClassVar[bool] = True
    """Whether it solves systems, for which code is compiled."""
    requires: ClassVar[tuple[str, ...]] = ()
    """What it needs of data and network, a word or two each, for the table of methods."""
    refits: ClassVar[bool] = False
    """Whether survivors can be fitted to other inputs too, see `cbs.compensation.recalibrate`."""

    def refuses(self, curvature: Curvature) -> str | None:
        """Why no method has this compensation on such a curvature, or None."""
        return None

    def unsuited(self, selection: Selection) -> str | None:
        """Why it can't make up for what such a selection prunes, or None."""
        return None

    @abstractmethod
    def move(self, choice: Choice) -> Array:
        """`[rows, columns]` of the choice's model after pruning, see `cbs.quadratic.Quadratic`."""

    def settle(self, job: Job, plans: Sequence[LayerPlan]) -> list[LayerPlan]:
        """What becomes of all layers in the end, once every model's have moved: by default just that."""
        return list(plans)


@dataclass(frozen=True)
class Nothing(Compensation):
    """Survivors and biases stay."""

    words: ClassVar[str] = "none"
    solves: ClassVar[bool] = False

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`."""
        import numpy as np

        model = choice.quadratic
        return np.where(model.join(choice.masks), 0.0, model.W)


@dataclass(frozen=True)
class OwnBias(Compensation):
    """Survivors stay, and every row's bias makes up for what it loses (Ballini et al. 2026).

    `db_i = sum_j W_ij E[omega_i z_j] / E[omega_i]` over the pruned inputs j of row i, on the curvature
    `OutputGram` or `OutputDiagonal`; with `omega = 1`, on the layer Gram, `db_i = sum_j W_ij E[z_j]`. A layer
    without a bias that may move has no compensation.
    """

    words: ClassVar[str] = "own bias"
    solves: ClassVar[bool] = False

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Compensation.refuses`."""
        if not curvature.biased:
            return (
                f"OwnBias needs a curvature with the bias in it, which {curvature.words} has not; take "
                "OutputDiagonal(), OutputGram() or Gram()"
            )
        return None

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`."""
        return choice.quadratic.settle(choice.masks)


@dataclass(frozen=True)
class Survivors(Compensation):
    """All survivors, and the bias of a Gram, move to the minimum of the model: CBS-U (Yu et al. 2022).

    On a curvature in which weights do not interact that is no move.
    """

    words: ClassVar[str] = "all survivors"
    refits: ClassVar[bool] = True

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`."""
        return choice.quadratic.refit(choice.masks, choice.problem)


@dataclass(frozen=True)
class Singles(Compensation):
    """What every pruned weight would do if it went alone, added up: WoodFisher (Singh & Alistarh 2020)."""

    words: ClassVar[str] = "single updates, added up"

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Compensation.refuses`."""
        if not curvature.coupled:
            return f"Singles needs an inverse, which {curvature.words} has not; take Gram() or Fisher()"
        return None

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`."""
        return choice.quadratic.single_updates(choice.masks)
