"""Selection by scores: every weight gets a number by itself, and the smallest go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cbs.names import check_name
from cbs.selection.base import Choice, Job, NeuronChoice, NeuronSelection, WeightSelection

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.network.network import Network
    from cbs.network.neurons import Neurons
    from cbs.quadratic import Quadratic
    from cbs.request import Request
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
    "elimination": (
        "separable, 1/2 w^2 (H_jj - H_jb^2 / H_bb)",
        lambda job, model, w: 0.5 * model.own_diagonal * w**2,
    ),
    "ablation": ("measured weight by weight", lambda job, model, w: _ablation(job, model)),
    "sensitivity": ("separable, |w E[dL/dw]|", lambda job, model, w: abs(w * _slopes(job, model))),
}
"""Every rule: what it is in words, and the scores `[rows, n]` of a model's weights `w`."""
PLAIN = ("magnitude", "random", "sensitivity", "ablation")
"""Rules whose scores do not come of the curvature, and are comparable as they are."""
NEEDS = {"ablation": ("inputs",), "sensitivity": ("inputs", "targets")}
"""What rules need of the data themselves, whatever the curvature."""
BIAS = {"wanda": 1.0, "obd": 0.5}
"""Rules by which a bias `b` has a score as a part of its neuron: this much of `H_bb b^2`."""


def _ablation(job: Job, model: Quadratic) -> Array:
    from cbs.selection.ablation import ablation_scores

    return ablation_scores(job, model)


def _slopes(job: Job, model: Quadratic) -> Array:
    import numpy as np

    from cbs.curvature.slopes import mean_gradients

    slopes = mean_gradients(job.network)
    if model.flat:
        return np.concatenate([slopes[i].ravel() for i in model.index])[None, :]
    return slopes[model.index[0]]


@dataclass(frozen=True)
class Scores(WeightSelection, NeuronSelection):
    """Prune the weights of least score; a column's score is the sum of its weights'.

    The rules are `magnitude` (w^2), `random`, `obd` (1/2 h w^2, h the diagonal of the curvature), `obs`
    (w^2 / (2 [H^-1]_qq), Hassibi & Stork 1992) and `wanda` (H_jj w^2, the square of |w_j| |x_j|, Sun et al.
    2024). Only `obs` sees the damping. Where all layers share one budget, the scores of all are compared;
    those of a layer Gram, which says nothing of what a layer matters to the loss, are first multiplied by
    their row's `E[(dL/da_r)^2]`.

    `elimination` (Ballini et al. 2026) is `1/2 w^2 (H_jj - H_jb^2 / H_bb)`, what a weight costs when its bias
    moves to make up for it; `ablation`, their gold standard, measures that by a pass over the data for every
    weight; `sensitivity` is |w E[dL/dw]|, one of their baselines.

    A neuron's score is the sum over all weights of its rows and of the columns that it feeds, each counted
    once; of batch norms nothing counts. By `wanda` and `obd` on a curvature that has biases, as a Gram has,
    those of the neuron's rows count as well, as weights of an input that is 1. Scores that come of a layer
    Gram are multiplied by their rows' `E[(dL/da_r)^2]`, so that rows and columns can be added up. `random`
    draws one score for a neuron.

    Attributes:
        rule: a name of `RULES`.
    """

    rule: str

    granularities: ClassVar[tuple[str, ...]] = ("weights", "neurons")

    def __post_init__(self) -> None:
        check_name("rule", self.rule, list(RULES))

    @property
    def words(self) -> str:
        """See `Selection.words`."""
        return RULES[self.rule][0]

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Selection.requires`."""
        return NEEDS.get(self.rule, ())

    @property
    def weighs(self) -> bool:
        """See `Selection.weighs`."""
        return self.rule not in PLAIN

    def able(self, curvature: Curvature, request: Request) -> str | None:
        """See `Selection.able`."""
        if self.rule == "ablation" and request.pipeline == "sequential":
            return "Scores('ablation') measures weights in the dense network; take pipeline 'one-shot'"
        return None

    @property
    def embeds(self) -> bool:  # type: ignore[override]
        """See `Selection.embeds`."""
        return self.rule != "ablation"

    def unfit(self, curvature: Curvature, network: Network) -> str | None:
        """See `Selection.unfit`."""
        if self.rule != "ablation":
            return None
        from cbs.selection.ablation import too_much

        return too_much(network)

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Selection.refuses`."""
        if self.rule in ("elimination", "ablation") and not curvature.biased:
            return (
                f"Scores({self.rule!r}) needs the bias in its curvature, which {curvature.words} has not; "
                "take OutputDiagonal(), OutputGram() or Gram()"
            )
        if self.rule == "obs" and not curvature.coupled:
            return f"Scores('obs') needs an inverse, which {curvature.words} has not; take Gram() or Fisher()"
        return None

    def share(self, job: Job) -> list[Mask]:
        """See `WeightSelection.share`: the smallest scores of all layers."""
        import numpy as np

        from cbs.budgets import smallest
        from cbs.curvature.output import row_scales

        scores: list[Array] = []
        for model in job.quadratics:
            found = job.kept[model.index] = self.scores(job, model)  # random ones must not be drawn again
            scores += found
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
        """See `WeightSelection.choose`."""
        from cbs.budgets import smallest

        found = []
        for model, budget in zip(quadratics, budgets, strict=True):
            scores = job.kept.pop(model.index, None) or self.scores(job, model)
            several = len(scores) > 1 and isinstance(budget.prune, int)
            masks = smallest(scores, budget.prune if several else [budget])  # type: ignore[arg-type]
            found.append(Choice(model, masks, self.rule))
        return found

    def scores(self, job: Job, model: Quadratic) -> list[Array]:
        """`[m, n]` of every layer of a model; weights pruned before have the least."""
        import numpy as np

        pairs = zip(model.earlier, self._plain(job, model), strict=True)
        return [np.where(mask, -np.inf, part) for mask, part in pairs]

    def _plain(self, job: Job, model: Quadratic) -> list[Array]:
        """`[m, n]` of every layer of a model, whatever was pruned before."""
        return model.split(RULES[self.rule][1](job, model, model.W[:, : model.n]))

    def choose_neurons(
        self, job: Job, groups: Sequence[Neurons], counts: Sequence[int] | int
    ) -> list[NeuronChoice]:
        """See `NeuronSelection.choose_neurons`."""
        from cbs.network.neurons import least

        removed = least(self.neuron_scores(job, groups), counts, job.network.gone)
        return [NeuronChoice(group, mask, self.rule) for group, mask in zip(groups, removed, strict=True)]

    def neuron_scores(self, job: Job, groups: Sequence[Neurons]) -> list[Array]:
        """`[count]` of every group: what a neuron's weights score together."""
        import numpy as np

        if self.rule == "random":
            return [job.rng.random(group.count) for group in groups]
        names = [layer.name for layer in job.network.layers]
        weights, biases = self._by_layer(job)
        found = []
        for group in groups:
            total = np.zeros(group.count)
            for name, rows in group.rows.items():
                part, bias = weights[names.index(name)], biases[names.index(name)]
                total += part[rows].sum(axis=1) + bias[rows]
            for name, columns in group.columns.items():
                part = weights[names.index(name)]
                total += part.sum(axis=0)[columns].sum(axis=1)
                if name in group.rows:  # a weight of both is one weight
                    total -= part[group.rows[name][:, None], columns].sum(axis=1)
            found.append(total)
        return found

    def _by_layer(self, job: Job) -> tuple[list[Array], list[Array]]:
        """Of every layer what its weights score, `[m, n]`, and its biases, `[m]`."""
        import numpy as np

        from cbs.curvature.output import row_scales

        weights: list[Array] = []
        biases: list[Array] = []
        for model in job.quadratics:
            weights += self._plain(job, model)
            share = BIAS.get(self.rule, 0.0) if model.bias else 0.0
            if share:
                biases.append(share * model.constant * model.W[:, -1] ** 2)
            else:
                biases += [np.zeros(len(part.W)) for part in model.dense]
        if job.curvature.scaled and self.rule not in PLAIN:
            scales = row_scales(job.network)
            weights = [scale[:, None] * part for scale, part in zip(scales, weights, strict=True)]
            biases = [scale * part for scale, part in zip(scales, biases, strict=True)]
        return weights, biases
