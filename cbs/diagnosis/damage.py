"""Damage layer by layer: an ablation study of a pruned network, forward and backward.

What pruning costs is told for the network as a whole. Here every layer is pruned alone, the others dense;
left dense alone, the others pruned; and the layers are pruned one after another as they run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.curvature.each import differentiating, gradients
from cbs.diagnosis.pair import Pair, pair_of
from cbs.diagnosis.tally import Effect, Tally, divergence_of
from cbs.diagnosis.variants import Variants, batch_size
from cbs.network.eligible import module_of
from cbs.network.evaluate import forward, require_answers
from cbs.network.losses import sample_losses
from cbs.record import as_record
from cbs.watch import Callback, Step
from solvers.control import Control, interruptible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cbs.network.answers import Output
    from cbs.network.losses import Loss
    from cbs.result import PruneResult


SMALL = 5e-3
"""Below this, losses are told by their powers of ten."""


@dataclass(frozen=True)
class LayerDamage:
    """A layer of a pruned network, or another module that pruning moved, such as a refitted norm.

    Attributes:
        name: of the module.
        shape: of its largest tensor.
        sparsity: share of zeros among the entries of its matrices, in the pruned network; 0 without any.
        objective: half the mean squared change of its output on its dense inputs, summed over positions, by
            running it: the layer objective without its damping. None where the module did not run by itself
            and once.
        value: the layer objective that the result reports, damping included, of several blocks their sum; of
            attention and recurrent layers it is about the outputs of their matrices. None without one, or
            where fine-tuning or a refit moved the weights since.
        predicted: increase of the loss if that were as it is around the dense outputs of the layer,
            `E[g.d + 1/2 (g.d)^2]`, with `d` the change of a sample's output and `g` the gradient of its loss
            by it (empirical Fisher); None where there is no gradient, and without labels.
        alone: only this layer pruned.
        without: all layers pruned but this one.
        upto: this layer and all that run before it pruned, those behind it dense.
    """

    name: str
    shape: tuple[int, ...]
    sparsity: float
    objective: float | None
    value: float | None
    predicted: float | None
    alone: Effect
    without: Effect
    upto: Effect


@dataclass(frozen=True)
class Damage:
    """Where a pruned network loses.

    Attributes:
        dense: the dense network.
        pruned: the pruned one.
        layers: in the order in which they run.
        samples: how many it was measured on.
        divergence: what `Effect.divergence` measures, in words.
        measure: what the loss is, in words: without labels it is a distance of outputs.
        status: `done`, or `interrupted`, and then of the samples that were run.
        notes: what could not be told, and why.
    """

    dense: Effect
    pruned: Effect
    layers: list[LayerDamage]
    samples: int
    divergence: str
    measure: str = "loss"
    status: str = "done"
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        from cbs.diagnosis.tables import text

        return f"{text(*self.table())}\n{self.verdict}"

    @property
    def total(self) -> float:
        """What all layers together cost: the loss increase."""
        return self.pruned.loss_increase

    @property
    def interaction(self) -> float:
        """What the layers cost together beyond the sum of what each costs alone."""
        return self.total - sum(layer.alone.loss_increase for layer in self.layers)

    @property
    def worst(self) -> LayerDamage:
        """The layer that costs most alone."""
        return max(self.layers, key=lambda layer: layer.alone.loss_increase)

    @property
    def collapse(self) -> LayerDamage:
        """The layer at which the cost rises most as layers are pruned one after another."""
        costs = [0.0, *(layer.upto.loss_increase for layer in self.layers)]
        return self.layers[int(np.argmax(np.diff(costs)))]

    def correlation(self, of: str = "objective") -> float | None:
        """Spearman's rank correlation, over layers, of a figure with what each layer costs alone.

        Args:
            of: `objective`, `predicted` or `value`.

        Returns:
            Between -1 and 1; None for fewer than three layers that have the figure, or equal ones.
        """
        if of not in ("objective", "predicted", "value"):
            raise ValueError(f"of must be 'objective', 'predicted' or 'value', got {of!r}")
        pairs = [(getattr(layer, of), layer.alone.loss_increase) for layer in self.layers]
        known = [(x, y) for x, y in pairs if x is not None]
        if len(known) < 3:
            return None
        ranks = [_ranks(np.array(values)) for values in zip(*known, strict=True)]
        if any(np.ptp(rank) == 0 for rank in ranks):
            return None
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

    @property
    def verdict(self) -> str:
        """What to look at first, in a sentence or two."""
        said = f"{self.measure} {self.total:+.4g} with all {len(self.layers)} layers pruned"
        worst, collapse = self.worst, self.collapse
        said += f"; alone {worst.name!r} costs most ({worst.alone.loss_increase:+.4g})"
        said += f"; in running order it rises most at {collapse.name!r}"
        said += f"; beyond the sum of the layers: {self.interaction:+.4g}"
        ranks = [(name, self.correlation(name)) for name in ("objective", "predicted")]
        told = [f"{name} {value:+.2f}" for name, value in ranks if value is not None]
        return said + (f"; rank correlation with the cost alone: {', '.join(told)}" if told else "")

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a layer: zeros, objective, prediction, costs, and the accuracy up to it."""
        labelled = self.pruned.accuracy is not None
        headings = ["layer", "zeros", "objective", "predicted", "alone", "all but", "up to"]
        headings += ["acc."] if labelled else []
        digits = "+.4f" if max(abs(layer.upto.loss_increase) for layer in self.layers) >= SMALL else "+.1e"
        rows = []
        for layer in self.layers:
            row = [layer.name, f"{100 * layer.sparsity:.1f}%", _short(layer.objective)]
            row += [_short(layer.predicted)]
            effects = (layer.alone, layer.without, layer.upto)
            row += [f"{effect.loss_increase:{digits}}" for effect in effects]
            if labelled:
                row += ["-" if layer.upto.accuracy is None else f"{100 * layer.upto.accuracy:.1f}%"]
            rows.append(row)
        return headings, rows

    def draw(self) -> Figure:
        """A figure of the costs layer by layer."""
        from cbs.diagnosis.plot import draw_damage

        return draw_damage(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        more = {"total": self.total, "interaction": self.interaction, "worst": self.worst.name}
        more |= {"collapse": self.collapse.name, "verdict": self.verdict}
        ranks = {name: self.correlation(name) for name in ("objective", "predicted", "value")}
        record: dict[str, Any] = as_record(self)
        return {**more, "correlation": ranks, **record}


def damage(
    pruned: PruneResult | nn.Module,
    data: Any,
    *,
    dense: nn.Module | None = None,
    loss: str | Loss | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    output: Output | None = None,
    padding: str | None = None,
    predict: bool = True,
    callback: Callback | None = None,
) -> Damage:
    """Tell what each layer of a pruned network costs: alone, when it alone is spared, and in running order.

    For L layers that is `3 L` passes over the samples, of each on average half, for what runs before the
    first layer that differs is computed once; `samples` makes it as cheap as need be.

    Args:
        pruned: a result of `cbs.prune`; or a network from anywhere, with masks or zeros, then with `dense`.
        data: samples to measure on, in any form that `cbs.prune` takes.
        dense: the network before pruning, of the same modules.
        loss: as in `cbs.prune`; if absent the result's, or cross entropy.
        samples: how many samples to draw; if absent all of them.
        seed: of the draw.
        device: torch device.
        output: as in `cbs.prune`; if absent the result's.
        padding: as in `cbs.prune`; if absent the result's.
        predict: predict each layer's cost too, by one pass of gradients.
        callback: called with a `Step` for every batch; a true answer stops.

    Returns:
        The damage by layer; after Ctrl-C of the samples that were run, once there are some.

    Raises:
        ValueError: in one line, for networks that are no pair, equal ones, or data that they refuse.
    """
    pair = pair_of(pruned, dense, device)
    given = pair.gathered(data, samples, seed, device, output, padding)
    predict = predict and given.labelled
    chosen, given = pair.judged(given, pair.loss(loss))
    require_answers(pair.dense, given, chosen)
    names = [*pair.sites]
    size = batch_size(pair.dense, names, given, copies=4)
    first = Variants(pair.dense, [], names)
    runs = first.outputs(given.first(1))
    next(runs)
    order = first.order
    runs.close()  # type: ignore[attr-defined]
    forth = Variants(pair.dense, [pair.sites[name] for name in order])
    back_to = [pair.dense_tensors(name) for name in order]
    behind = [_merged(back_to[i:]) for i in range(1, len(order))]
    back = Variants(pair.pruned, [*back_to, *behind])
    divergence = divergence_of(pair.dense, given, chosen)
    tally = {kind: [Tally(chosen, divergence) for _ in order] for kind in ("alone", "without", "upto")}
    base = Tally(chosen, divergence)
    objectives, predicted, notes = dict.fromkeys(order, 0.0), dict.fromkeys(order, 0.0), list[str]()
    control, count = Control(), 0
    with interruptible(control):
        for index, (inputs, targets) in enumerate(given.batches(size)):
            slopes: dict[str, Tensor] = {}
            if predict and not notes:
                slopes, reason = _slopes(pair.dense, order, inputs, targets, chosen)
                notes += [f"no predictions: {reason}"] if reason else []
            runs = forth.outputs(inputs)
            answers = next(runs)
            base.add(answers, targets, answers)
            for name, each, outputs in zip(order, tally["alone"], runs, strict=True):
                each.add(outputs, targets, answers)
                _move(name, forth, objectives, predicted, slopes)
            runs = back.outputs(inputs)
            whole = next(runs)
            rest = [*tally["without"], *tally["upto"][:-1]]
            for each, outputs in zip(rest, runs, strict=True):
                each.add(outputs, targets, answers)
            tally["upto"][-1].add(whole, targets, answers)
            count = base.count
            step = Step("damage", "evaluate", index=index + 1, count=-(-len(given) // size))
            if (callback is not None and callback(step)) or control.interrupted:
                control.interrupted = count < len(given)
                break
    before = base.effect(None)
    layers = []
    for i, name in enumerate(order):
        effects = [tally[kind][i].effect(before) for kind in ("alone", "without", "upto")]
        guess = predicted[name] / count if predict and not notes else None
        layers.append(_layer(pair, name, objectives[name] / count, guess, *effects))
    status = "interrupted" if control.interrupted else "done"
    measure = getattr(chosen, "measure", "loss")
    return Damage(
        before, tally["upto"][-1].effect(before), layers, count, divergence.words, measure, status, notes
    )


def _layer(pair: Pair, name: str, objective: float, predicted: float | None, *effects: Effect) -> LayerDamage:
    tensors = pair.sites[name]
    matrices = [values for values in tensors.values() if values.ndim > 1]
    zeros, entries = sum(int((t == 0).sum()) for t in matrices), sum(map(Tensor.numel, matrices))
    largest = max(matrices or tensors.values(), key=Tensor.numel)
    known = [None if value is None or math.isnan(value) else value for value in (objective, predicted)]
    return LayerDamage(
        name, tuple(largest.shape), zeros / max(1, entries), known[0], _value(pair, name), known[1], *effects
    )


def _value(pair: Pair, name: str) -> float | None:
    """The objective that the result has of a site, if it still speaks of the weights that there are."""
    result = pair.result
    if result is None or result.history[-1].moved:
        return None
    modules = {path for path, _ in pair.dense.named_modules()}
    found = []
    for layer in result.layers:
        home = module_of(layer.name)
        while home and home not in modules:
            home = home.rpartition(".")[0]
        if home == name:
            found.append(layer.value)
    return sum(found) if found else None


def _move(
    name: str, bench: Variants, objectives: dict[str, float], predicted: dict[str, float],
    slopes: dict[str, Tensor],
) -> None:  # fmt: skip
    """Add what a variant's batch says of the change of a layer's output to the sums of its layer."""
    before, after = ([first_tensor(y) for y in runs[name]] for runs in (bench.base, bench.seen))
    if len(before) != 1 or len(after) != 1 or before[0] is None or after[0] is None:
        objectives[name] = predicted[name] = math.nan
        return
    change = (after[0].double() - before[0].double()).reshape(len(before[0]), -1)
    objectives[name] += 0.5 * float(change.square().sum())
    if name not in slopes:
        predicted[name] = math.nan
        return
    felt = (slopes[name].double().reshape(change.shape) * change).sum(dim=1)
    predicted[name] += float((felt + 0.5 * felt.square()).sum())


def _slopes(
    model: nn.Module, names: Sequence[str], inputs: Any, targets: Any, loss: Loss
) -> tuple[dict[str, Tensor], str]:
    """The gradient of every sample's loss by the output of modules that run once, and why there is none."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, y: Any) -> Any:
            if not isinstance(y, Tensor):
                return None
            y = y if y.requires_grad else y.detach().requires_grad_()
            seen[name].append(y)
            return y.clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with differentiating(), torch.enable_grad():
            total = sample_losses(loss, forward(model, inputs.clone()), targets).sum()
            ran = {name: outputs[0] for name, outputs in seen.items() if len(outputs) == 1}
            return dict(zip(ran, gradients(total, [*ran.values()]), strict=True)), ""
    except ValueError as error:
        return {}, str(error)
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(values: Any) -> Tensor | None:
    """The output, or the first of several, if it is a tensor."""
    if isinstance(values, tuple | list) and values:
        values = values[0]
    return values if isinstance(values, Tensor) else None


def _merged(parts: Sequence[Any]) -> dict[str, Tensor]:
    return {key: values for part in parts for key, values in part.items()}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values at their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray = (ends - (counts - 1) / 2)[inverse]
    return mean


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
