"""The network refit: all survivors together, to least divergence from the dense network's outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.data import Samples, gather
from cbs.network.evaluate import evaluating, forward
from cbs.network.layers import every_layer, visiting
from cbs.network.losses import LOW, Loss, named_loss, wide
from cbs.network.surgery import clone
from cbs.refit.descent import DAMPING, PRODUCTS, STEPS, Descent, RefitStep, descend
from cbs.refit.divergence import Divergence, choose
from cbs.refit.features import Features, find_features, watched
from cbs.refit.movable import find_movable, whole_movable, write_back
from cbs.refit.normal_equations import Structure, find_structure
from cbs.refit.passes import TRIED, Passes

if TYPE_CHECKING:
    from cbs.network.network import Network

SHARE, FEWEST = 0.1, 32
"""Of the samples this share is held back, and never fewer than that."""
CAUTIOUS, CAUTIOUS_DAMPING = 1, 0.1
"""Steps where nothing can be held back, and the damping of the first."""
BY_FEATURES = 1.0
"""The damping of the first step by features, of which a failure costs more than a short step."""
EQUATIONS = 50
"""Equations, an output of a sample each, from which the matrix is taken for every entry that moves."""
MEMORY = 2**30
"""Bytes that the copies of a matrix that is written out may take."""
CURVED, CURVED_SHARE = 256, 0.1
"""Fewest samples, and share of them, from which products with a matrix are taken."""
DEARER = 4.0
"""How much more work writing the matrix out may be than conjugate gradients: it solves exactly."""


class RefitWarning(UserWarning):
    """A network refit was not done, or could not hold samples back to judge it by."""


@dataclass(frozen=True)
class Refitted:
    """What a network refit did.

    Attributes:
        before: mean divergence at first of the samples that decide: those held back, or of all if there are
            too few to hold some back.
        after: the same of what is returned; never more than `before`.
        chosen: number of the step that is returned; 0 if none was better than what it came with.
        steps: every step.
        why: it ended.
        stats: what was matched, moved, held back and how, and the steps, ready for JSON.
        interrupted: whether Ctrl-C ended it.
    """

    before: float
    after: float
    chosen: int
    steps: tuple[RefitStep, ...]
    why: str
    stats: Mapping[str, Any]
    interrupted: bool = False


@torch.inference_mode(False)
def refit_network(
    model: nn.Module,
    dense: nn.Module,
    samples: Any,
    *,
    loss: str | Loss = "cross_entropy",
    match: str | None = None,
    labels: bool = False,
    layers: Sequence[str] | None = None,
    steps: int = STEPS,
    seed: int = 0,
    until: float = math.inf,
    stopped: Callable[[], bool] | None = None,
    told: Callable[[RefitStep, int], Any] | None = None,
) -> Refitted:
    """Move all survivors of a masked network together, in place, to least divergence from the dense outputs.

    The survivors of masked layers, their biases, and the affine parts of normalisations, `theta`, minimise
    `E KL(p_dense(x) || p_theta(x))`, or what `match` and `labels` say, by steps
    `(E J'BJ + lambda D) delta = -E J' (p_theta - p_dense)` (Gauss-Newton, damped by Levenberg and Marquardt).
    Masks, and whatever else the network has, stay. A tenth of the samples is held back from the fit, and the
    step that is best on those is what is returned, so that it can't overfit in silence. Batch norms are in
    evaluation mode. Networks of less than single precision are refitted in that, and judged once more when
    the weights are rounded to their own.

    Args:
        model: with masks in `torch.nn.utils.prune` form; changed in place.
        dense: the network whose outputs are matched.
        samples: calibration data, in any form that `cbs.prune` takes; targets matter with `labels` only.
        loss: of the network, which says what its outputs are.
        match: `probabilities`, `outputs`, or None for what goes with the loss.
        labels: minimise the loss on the targets instead.
        layers: names of the masked layers whose survivors move; None for all.
        steps: most of them.
        seed: of what is held back, and of the samples that curvature is from.
        until: when to end, by `time.perf_counter`; the best by then is kept.
        stopped: asked between batches whether to end.
        told: told of every step and how many there may be; a true answer ends it.

    Raises:
        ValueError: in one line, before any work, for a loss that does not say what to match, outputs that are
            not what it takes, a network without masks, or one that can't be differentiated.
    """
    samples = gather(samples)
    divergence = matching(dense, samples, loss, match, labels)
    low = any(values.dtype in LOW for values in model.parameters())
    plain = clone(model).eval()
    plain = plain.float() if low else plain
    movable = find_movable(model, plain, layers)
    where = next(iter(movable.base.values())).device
    samples = with_known(dense, samples.to(where), divergence, low)
    passes = Passes(plain, movable, divergence)
    vector = movable.vector(movable.base)
    passes.attempt(vector, samples)
    passes.until, passes.stopped = until, stopped or (lambda: False)
    fit, held = hold_back(samples, seed)
    outputs = divergence_outputs(passes, vector, samples)
    curvature = min(len(fit), max(FEWEST, math.ceil(EQUATIONS * len(vector) / outputs)))
    structure = find_structure(passes, vector, samples)
    written = _is_written(passes, vector, samples, structure, outputs, curvature)
    if held is None:
        warnings.warn(
            f"refit 'network': {len(samples)} samples are too few to hold {FEWEST} back that would judge it; "
            f"it takes {CAUTIOUS} step, and may overfit: give {3 * FEWEST} samples or more",
            RefitWarning,
            stacklevel=2,
        )
    if not written:
        curvature = min(curvature, max(CURVED, math.ceil(CURVED_SHARE * len(fit))))
    inner = None
    if held is not None and EQUATIONS * len(vector) > outputs * len(fit):
        inner = _by_features(passes, dense, vector, fit, held, steps=steps, seed=seed, told=told)
    if inner is not None and (len(vector) > outputs * len(fit) or inner.ended):
        found = inner
    else:
        found = descend(
            passes, vector if inner is None else inner.best, fit, held,
            curvature=curvature, structure=structure if written else None,
            steps=steps if held is not None else min(steps, CAUTIOUS),
            taken=0 if inner is None else len(inner.steps),
            damping=DAMPING if held is not None else CAUTIOUS_DAMPING, seed=seed, told=told,
        )  # fmt: skip
        found = found if inner is None else inner.then(found)
    if not math.isfinite(found.fit + found.before) and found.why.startswith("the divergence"):
        warnings.warn(
            f"refit 'network' is left out: the divergence of the pruned network's outputs is {found.fit} on "
            "this data; the masks are as they were",
            RefitWarning,
            stacklevel=2,
        )
    if low and found.chosen:
        passes.until, passes.stopped = math.inf, lambda: False
        found = _as_kept(found, model, passes, vector, fit if held is None else held)
    if found.chosen:
        write_back(model, movable, found.best)
    return _told(found, divergence, len(vector), fit, held, written, inner)


def _as_kept(found: Descent, model: nn.Module, passes: Passes, vector: Tensor, samples: Samples) -> Descent:
    """A descent whose best is rounded to the types of the network's parameters, and measured so.

    Where rounding costs more than the descent had gained, nothing is gained.
    """
    types = {name: values.dtype for name, values in clone(model).named_parameters()}
    parameters = passes.movable.parameters(found.best)
    best = passes.movable.vector({name: values.to(types[name]) for name, values in parameters.items()})
    after = passes.value(best, samples)
    if after < found.before:
        return replace(found, best=best, after=after)
    why = f"{found.why}; rounding costs more than was gained"
    return replace(found, best=vector, after=found.before, chosen=0, why=why)


def _by_features(
    passes: Passes,
    dense: nn.Module,
    vector: Tensor,
    fit: Samples,
    held: Samples,
    *,
    steps: int,
    seed: int,
    told: Callable[[RefitStep, int], Any] | None,
) -> Descent | None:
    """Lower the distance of what the layers are given from the dense network's, as long as that helps.

    The divergence of the outputs on the samples held back decides.

    Returns:
        The descent; None where no layer is given anything but the dense network's, or there is no memory for
        a batch of it.
    """
    single = next(iter(passes.movable.base.values())).dtype
    reference = clone(dense).eval().to(single)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    names = [name for name, module in passes.model.named_modules() if name and isinstance(module, kinds)]
    features = find_features(reference, passes.model, names, fit)
    if not any(name for name, _ in features):
        return None
    near = Passes(
        watched(clone(passes.model).eval(), features), passes.movable,
        Features(watched(reference, features)), passes.until, passes.stopped,
    )  # fmt: skip
    found = descend(
        near, vector, replace(fit, targets=fit.inputs), held, judge=passes,
        curvature=max(CURVED, math.ceil(CURVED_SHARE * len(fit))), structure=None, steps=steps,
        damping=BY_FEATURES, seed=seed, told=told,
    )  # fmt: skip
    found.features = len(features)
    return found


def matching(
    dense: nn.Module, samples: Samples, loss: str | Loss, match: str | None = None, labels: bool = False
) -> Divergence:
    """What a refit of this network would match.

    Raises:
        ValueError: in one line; see `cbs.refit.divergence.choose`.
    """
    few = samples.few(FEWEST)
    with evaluating(dense):
        x, targets = next(few.batches())
        outputs = wide(forward(dense, x.to(_device(dense))))
        known = None if targets is None else targets.to(outputs.device)
    return choose(named_loss(loss), match, labels, outputs, known)


def require_refit(network: Network, match: str | None, labels: bool) -> None:
    """Refuse, before any work, a dense network that a refit could not match or differentiate.

    Raises:
        ValueError: in one line.
    """
    divergence = matching(network.model, network.samples, network.loss, match, labels)
    model, layers, _ = network.differentiable()
    samples, low = network.samples, any(values.dtype in LOW for values in network.model.parameters())
    few = samples.few(TRIED)
    movable = whole_movable(model, [*dict.fromkeys(layer.path for layer in layers)])
    Passes(model, movable, divergence).attempt(
        movable.vector(movable.base), with_known(network.model, few, divergence, low)
    )


def hold_back(samples: Samples, seed: int) -> tuple[Samples, Samples | None]:
    """Samples to fit, and a tenth of them, but at least 32, to judge by; None where they were a third of all.

    The mean over fewer tells steps apart no better than a coin.
    """
    count = max(round(SHARE * len(samples)), FEWEST)
    if 3 * count > len(samples):
        return samples, None
    drawn = np.zeros(len(samples), dtype=bool)
    drawn[np.random.default_rng(seed).choice(len(samples), size=count, replace=False)] = True
    return samples.take(~drawn), samples.take(drawn)


def divergence_outputs(passes: Passes, vector: Tensor, samples: Samples) -> int:
    """How many outputs a sample has."""
    with torch.no_grad():
        outputs, _ = passes.run(vector, samples.first(1))
    return outputs.numel()


@torch.no_grad()
def with_known(dense: nn.Module, samples: Samples, divergence: Divergence, low: bool) -> Samples:
    """The samples with what the divergence compares with as targets: dense outputs, or their own.

    Raises:
        ValueError: in one line, if a dense output is not finite.
    """
    if divergence.dense:
        where = _device(dense)
        home, samples, wrong, every = samples.device, samples.muted(), 0, 0

        def outputs(x: Any) -> Tensor:
            nonlocal wrong, every
            found = wide(forward(dense, x.to(where))).to(home)
            wrong, every = wrong + int((~torch.isfinite(found)).sum()), every + found.numel()
            return found.nan_to_num()

        with evaluating(dense):
            samples = samples.answered(outputs)
        if wrong:
            raise ValueError(
                f"refit 'network': {wrong} of {every} outputs of the dense network are NaN or infinite, so "
                "that nothing can match them; keep them finite, or give labels=True"
            )
    return samples.cast(wide) if low else samples


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _is_written(
    passes: Passes, vector: Tensor, samples: Samples, structure: Structure, outputs: int, curvature: int
) -> bool:
    """Whether the matrix is written out: where it has room, and is not much more work than products.

    Work is counted in multiplications for a step, of the network's own passes by the weights' entries times
    the positions at which they are used.
    """
    p = len(vector)
    if 4 * 8 * p * p > MEMORY:
        return False
    q = len(structure.rest)
    once = _multiplications(passes, vector, samples)
    products = 5.0 * PRODUCTS * once * curvature
    jacobians = 3.0 * outputs * once * curvature * (4 if q else 1)
    sums = curvature * (0.5 * (p - q) ** 2 + outputs * q * p)
    return jacobians + sums + p**3 / 3 <= DEARER * products


def _multiplications(passes: Passes, vector: Tensor, samples: Samples) -> float:
    """Of one sample's pass, by `Linear` layers and convolutions."""
    total = 0.0
    layers = every_layer(passes.model)
    inputs = {layer.name: layer.shape[1] for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        nonlocal total
        total += y.numel() * inputs[name]

    with torch.no_grad(), visiting(layers, visit):
        passes.run(vector, samples.first(1))
    return max(total, 1.0)


def _told(
    found: Descent,
    divergence: Divergence,
    count: int,
    fit: Samples,
    held: Samples | None,
    written: bool,
    inner: Descent | None,
) -> Refitted:
    stats = {
        "matched": divergence.words, "moved": count, "fitted_on": len(fit),
        "held_back": 0 if held is None else len(held),
        "solved_by": "normal equations" if written else "conjugate gradients", "fit_before": found.fit,
        "held_before": found.held, "chosen": found.chosen, "why": found.why,
        "steps": [asdict(step) for step in found.steps],
    }  # fmt: skip
    if inner is not None:
        stats["features"] = {"matched": Features.words, "count": inner.features, "steps": len(inner.steps)}
    return Refitted(
        found.before, found.after, found.chosen, tuple(found.steps), found.why, stats, found.interrupted
    )
