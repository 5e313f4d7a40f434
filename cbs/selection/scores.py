"""Selection by scores: every weight gets a number by itself, and the smallest go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbs.request import check_name
from cbs.selection.base import Choice, Job, Selection

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.quadratic import Quadratic
    from solvers import Budget
    from solvers.hessian import Array
    from solvers.problem import Mask

RULES: dict[str, tuple[str, Callable[[Job, Quadratic, Array], Array]]] = {
    "magnitude": ("separable, w^2", lambda job, model, w: w**2),
    "random": ("random", lambda job, model, w: job.rng.random(w.shape)),
    "obd": ("separable, 1/2 h w^2", lambda job, model, w: 0.5 * model.diagonal * w**2),
    "obs": (
        "separable, w^2 / (2 [H^-1]_qq)",
        lambda job, model, w: 0.5 * w**2 / model.inverse_diagonal,
    ),
    "wanda": ("separable, |w| sqrt(H_jj)", lambda job, model, w: model.diagonal * w**2),
}
"""Every rule: what it is in words, and the scores `[rows, n]` of a model's weights `w`."""
PLAIN = ("magnitude", "random")
"""Rules that do not look at the curvature."""


@dataclass(frozen=True)
class Scores(Selection):
    """Prune the weights of least score; a column's score is the sum of its weights'.

    The rules are `magnitude` (w^2), `random`, `obd` (1/2 h w^2, h the diagonal of the curvature), `obs`
    (w^2 / (2 [H^-1]_qq), Hassibi & Stork 1992) and `wanda` (H_jj w^2, the square of |w_j| |x_j|, Sun et al.
    2024). Only `obs` sees the damping. Where all layers share one budget, the scores of all are compared;
    those of a layer Gram, which says nothing of what a layer matters to the loss, are first multiplied by
    their row's `E[(dL/da_r)^2]`.

    Attributes:
        rule: a name of `RULES`.
    """

    rule: str

    def __post_init__(self) -> None:
        check_name("rule", self.rule, list(RULES))

    @property
    def words(self) -> str:
        """See `Selection.words`."""
        return RULES[self.rule][0]

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Selection.refuses`."""
        if self.rule == "obs" and not curvature.coupled:
            return f"Scores('obs') needs an inverse, which {curvature.words} has not; take Gram() or Fisher()"
        return None

    def share(self, job: Job) -> list[Mask]:
        """See `Selection.share`: the smallest scores of all layers."""
        import numpy as np

        from cbs.curvature.output import row_scales
        from cbs.quadratic import smallest

        for model in job.quadratics:
            job.kept[model] = self.scores(job, model)  # random ones must not be drawn again
        scores = [part for model in job.quadratics for part in job.kept[model]]
        if job.curvature.scaled and self.rule not in PLAIN:
            scales = row_scales(job.network)
            scores = [
                np.where(np.isneginf(part), part, scale[:, None] * np.maximum(part, 0.0))
                for scale, part in zip(scales, scores, strict=True)
            ]  # a row's scale can be zero, and what was pruned before stays least
        return smallest(scores, job.request.network_count(job.network.layers))

    def choose(
        self,
        job: Job,
        quadratics: Sequence[Quadratic],
        budgets: Sequence[Budget],
        starts: Sequence[Mask | None],
    ) -> list[Choice]:
        """See `Selection.choose`."""
        from cbs.quadratic import smallest

        found = []
        for model, budget in zip(quadratics, budgets, strict=True):
            scores = job.kept.pop(model, None) or self.scores(job, model)
            several = len(scores) > 1 and isinstance(budget.prune, int)
            masks = smallest(scores, budget.prune if several else [budget])  # type: ignore[arg-type]
            found.append(Choice(model, masks, self.rule))
        return found

    def scores(self, job: Job, model: Quadratic) -> list[Array]:
        """`[m, n]` of every layer of a model; weights pruned before have the least."""
        import numpy as np

        rows = RULES[self.rule][1](job, model, model.W[:, : model.n])
        pairs = zip(model.earlier, model.split(rows), strict=True)
        return [np.where(mask, -np.inf, part) for mask, part in pairs]
