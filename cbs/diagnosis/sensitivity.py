"""Sensitivity analysis: what every layer alone costs at several sparsities, to see which can bear how much.

The layers are pruned at each sparsity by one run of a method, with the budget of every layer its own; each is
then put alone into the dense network, which is run (Han et al. 2015, "Learning both weights and connections",
section 3.1 and figure 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import nn

from cbs.arguments import Options, check_options, takes_a_request
from cbs.data import gather
from cbs.diagnosis.masking import network_of, prepared, run_once
from cbs.diagnosis.pair import Tensors
from cbs.diagnosis.tally import Effect, Tally, divergence_of
from cbs.diagnosis.variants import Variants, batch_size
from cbs.network import surgery
from cbs.network.network import Network
from cbs.record import as_record
from cbs.request import Request
from cbs.watch import Callback, Step
from solvers.control import Control, interruptible, is_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cbs.method import Method

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class LayerSensitivity:
    """A layer alone.

    Attributes:
        name: of the layer.
        size: number of its weights.
        effects: at every sparsity, with only this layer pruned.
    """

    name: str
    size: int
    effects: list[Effect]


@dataclass(frozen=True)
class Sensitivity:
    """What every layer alone costs.

    Attributes:
        method: that pruned, by name.
        sparsities: of each layer.
        dense: the dense network.
        layers: in the network's order.
        samples: how many it was measured on.
        status: `done`, or `interrupted`, and then of the samples that were run.
    """

    method: str
    sparsities: list[float]
    dense: Effect
    layers: list[LayerSensitivity]
    samples: int
    status: str = "done"

    def __repr__(self) -> str:
        from cbs.diagnosis.tables import text

        return text(*self.table())

    def within(self, limit: float) -> dict[str, float]:
        """For every layer the largest of the sparsities at which it alone costs no more than a limit.

        What the layers cost together is another matter: `cbs.prune(..., max_loss_increase=)` measures that.

        Args:
            limit: of the loss increase, >= 0.

        Returns:
            By layer; 0 where every sparsity costs more.
        """
        if not is_number(limit) or not limit >= 0:
            raise ValueError(f"limit must be a number >= 0, got {limit!r}")
        return {
            layer.name: max(
                (s for s, e in zip(self.sparsities, layer.effects, strict=True) if e.loss_increase <= limit),
                default=0.0,
            )
            for layer in self.layers
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a layer with what it costs at every sparsity."""
        headings = ["layer", "weights", *(f"{100 * s:g}%" for s in self.sparsities)]
        rows = [
            [layer.name, f"{layer.size:,}", *(f"{effect.loss_increase:+.4f}" for effect in layer.effects)]
            for layer in self.layers
        ]
        return headings, rows

    def draw(self) -> Figure:
        """A figure with a line a layer."""
        from cbs.diagnosis.plot import draw_sensitivity

        return draw_sensitivity(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        record: dict[str, Any] = as_record(self)
        return record


@takes_a_request
def sensitivity(  # noqa: D417
    model: nn.Module,
    data: Any,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    method: str | Method = "magnitude",
    test: Any = None,
    callback: Callback | None = None,
    **options: Unpack[Options],
) -> Sensitivity:
    """Measure what every layer alone costs at several sparsities.

    For L layers and S sparsities that is S runs of the method without proofs, and `L S` passes over the
    samples, of each on average half. The budget is every layer's own: scope `layer`, unless it is `row`.

    Args:
        model: the network; it is not changed.
        data: calibration data, in any form that `cbs.prune` takes.
        sparsities: of each layer, in [0, 1).
        test: held-out data to measure on instead.
        callback: called with a `Step` for every sparsity and batch; a true answer stops.
        **options: the fields of `cbs.request.Request` that `cbs.prune` takes and one pruning depends on.

    Returns:
        The costs; after Ctrl-C those of the sparsities that were pruned, on the samples that were run.

    Raises:
        TypeError: for an unknown option, in one line.
        ValueError: for bad input, in one line.
    """
    check_options(sensitivity, options)
    if isinstance(sparsities, str) or is_number(sparsities) or not len(sparsities):
        raise ValueError(f"sparsities must be a list of at least one, such as [0.5, 0.9], got {sparsities!r}")
    chosen: Any = {"scope": "layer", **options}
    if chosen["scope"] == "network":
        raise ValueError("scope 'network' has layers share a budget; a layer's own takes 'layer' or 'row'")
    asked = [prepared(Request(s, method=method, **chosen)) for s in dict.fromkeys(sparsities)]
    if asked[0].neurons:
        raise ValueError("granularity 'neurons' prunes columns behind them too; give 'weights'")
    network = network_of(model, data, asked[0])
    if test is not None:
        network.hold_out(gather(test, seed=asked[0].seed, model=model))
    control = Control()
    found: list[tuple[float, list[Tensors]]] = []
    with interruptible(control):
        for index, request in enumerate(asked):
            if _told(callback, "select", index, len(asked)) or control.interrupted:
                control.interrupted = True
                break
            found.append((request.fraction, _written(network, run_once(network, request))))
        if not found:
            raise KeyboardInterrupt
        return _measured(network, asked[0].name, found, control, callback)


def _written(network: Network, plan: Any) -> list[Tensors]:
    """For every layer the tensors in which the network with only this layer pruned differs."""
    scratch = surgery.clone(network.model)
    state = scratch.state_dict()
    dense = {key: values.clone() for key, values in state.items()}
    found: list[Tensors] = []
    for layer, step in zip(network.layers, plan.layers, strict=True):
        surgery.write(layer.of(scratch), step.change.weights)
        found.append({k: v.clone() for k, v in state.items() if not torch.equal(v, dense[k])})
        with torch.no_grad():
            for key in found[-1]:
                state[key].copy_(dense[key])
    return found


def _measured(
    network: Network,
    method: str,
    found: Sequence[tuple[float, list[Mapping[str, Any]]]],
    control: Control,
    callback: Callback | None,
) -> Sensitivity:
    given = network.samples if network.held_out is None else network.held_out
    variants = [tensors for _, layers in found for tensors in layers]
    changed = [tensors for tensors in variants if tensors]
    bench = Variants(network.model, changed)
    size = batch_size(network.model, bench.names, given)
    divergence = divergence_of(network.model, given, network.loss)
    tallies = [Tally(network.loss, divergence) for _ in changed]
    base = Tally(network.loss, divergence)
    for index, (inputs, targets) in enumerate(given.batches(size)):
        runs = bench.outputs(inputs)
        answers = next(runs)
        base.add(answers, targets, answers)
        for tally, outputs in zip(tallies, runs, strict=True):
            tally.add(outputs, targets, answers)
        stop = _told(callback, "evaluate", index + 1, -(-len(given) // size))
        if stop or control.interrupted:
            control.interrupted = control.interrupted or base.count < len(given)
            break
    dense = base.effect(None)
    left = iter(tallies)
    effects = [next(left).effect(dense) if tensors else dense for tensors in variants]
    count = len(network.layers)
    layers = [
        LayerSensitivity(layer.name, layer.size, effects[i::count]) for i, layer in enumerate(network.layers)
    ]
    status = "interrupted" if control.interrupted else "done"
    return Sensitivity(method, [s for s, _ in found], dense, layers, base.count, status)


def _told(callback: Callback | None, stage: str, index: int, count: int) -> bool:
    return callback is not None and bool(callback(Step("sensitivity", stage, index=index, count=count)))
