"""What is asked of a pruning, checked before any work is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cbs.checks import check_request
from cbs.names import place
from cbs.schedule.growth import Schedule, as_schedule
from solvers import Budget
from solvers.executors.door import spec_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cbs.method import Method
    from cbs.network.layers import Layer
    from cbs.network.losses import Loss
    from cbs.network.neurons import Neurons
    from solvers import Solver
    from solvers.problem import Mask

Finetune = Callable[[Any, int], Any]
"""Trains a network in place, given it and the number of the stage it follows, from 1."""

MOST = 1 - 2**-10
"""The largest sparsity that is tried where one is looked for."""


@dataclass(frozen=True)
class Request:
    """What is asked of a pruning.

    Its fields are the arguments of `prune` and `compare`, the options of `cbs prune` with their help texts,
    and the settings in a report.

    Attributes:
        sparsity: fraction of the weights, or of the neurons, to prune, in [0, 1). A budget `N:M` needs none,
            nor does a limit on what is lost.
        method: a name that `cbs methods` lists, or in Python a `cbs.Method`.
        scope: where the sparsity is met: in every `row`, in every `layer`, or in the `network` as a whole,
            which for a single layer is `layer`. It applies to the budget `unstructured` only: the others say
            themselves where they hold.
        budget: `unstructured`; `N:M`, such as `2:4`, which keeps N of every M neighbouring inputs of a row
            (see `along` for convolutions); or `columns`, which prunes whole input columns of every layer.
        granularity: what is pruned: `weights`, or whole `neurons`, with the columns that they feed; if absent
            what the method prunes, which is weights where it can do both. The sparsity is then the fraction
            of the neurons of every hidden layer, or with scope `network` of all of them; one of each stays.
        solver: a name that `cbs solvers` lists, or in Python a `solvers.Solver` of one's own, for methods
            that solve a selection problem by any of them.
        gap: relative gap at which a search may stop.
        time_limit: seconds for all searches and bounds of one pruning together, and for its stages and
            fine-tuning, which ends after the epoch at work; none if absent.
        patience: seconds that solver `auto` may try to prove one layer (or the network's budget) where there
            is no time limit, and past which the status is `patience`; None (0 in a shell) for no end.
        damping: added to the diagonal of every curvature, relative to its mean.
        samples: how many samples to calibrate on; if absent all of them, but 1000 for per-sample gradients.
        layers: names of the layers to prune, of modules for all layers in them, or shell patterns such as
            `encoder.*` and `*.query`; if absent every layer that is understood.
        exclude: layers to leave out, named in the same way; none if absent.
        along: which inputs of a convolution are neighbours under a budget `N:M`: input `channels` at one
            place of the kernel, as hardware wants it; or entries of the flattened `kernel`, in the order
            `in_channels * kh * kw`.
        loss: a name of `torch.nn.functional`, such as `mse_loss`, or a function of (outputs, targets), in a
            shell `package.module:name`: mean or sum over samples, or a value for each. It is refused if it is
            none of these, as with class weights in a mean (`reduction="sum"` helps). Samples are seen one by
            one. `token_cross_entropy` and `next_token_cross_entropy` are of outputs `[N, T, classes]`. A
            function is given all outputs as the model gives them. Data without labels needs no loss: the
            distance of the outputs from the dense network's stands for it.
        output: which of a model's several outputs is looked at: a place in a tuple, or a name. In Python
            also a function of all of them; if absent the one named `logits`, or the first that is real.
        padding: name of the entry of a batch that is nonzero where places are real, or after `~` where they
            are padding. If absent `attention_mask` and the like; padding has no part in layer Grams.
        certify: compute a lower bound where the method and solver give none; slow for wide layers.
        pipeline: `one-shot`: every layer on its inputs in the dense network; or `sequential`: selected, and
            refitted to its dense outputs, on the inputs that come out of the pruned layers before it, for
            methods on the layer Gram.
        refit: what moves once more when the masks are there. `layer`: after one shot every layer in turn, to
            its dense outputs on the inputs that come out of the pruned layers before it, by methods on the
            layer Gram whose survivors move. `network`: after any method all survivors, biases and
            normalisations together, to the least divergence of the network's outputs from the dense ones, by
            a few Gauss-Newton steps; it needs no labels. None: nothing.
        match: what refit `network` brings together: `probabilities` (the Kullback-Leibler divergence of the
            classes' probabilities, the outputs being logits) or `outputs` (half their squared distance); if
            absent what goes with the loss.
        labels: have refit `network` minimise the loss on the labels instead, which overfits sooner.
        norms: have running mean and variance of batch norms recomputed on the calibration inputs, after every
            pruning and before what is refitted or fine-tuned, so that what a norm gives has the mean and
            variance that it had before; if absent with refit `network`, where the outputs come nearer by it.
        reselect: have masks chosen anew, before refit `network`, by the Gauss-Newton matrix of the whole
            network: the method leaves more weights than asked for, of which this takes the rest a share at a
            time, and pruned weights return in exchange for others as long as the divergence falls. For
            networks of `Linear` layers whose survivors are some thousands; if absent done for those after
            methods that choose by any solver, as `joint` does, for as long as `patience` where there is no
            time limit.
        stages: number of prunings that lead to the sparsity, each of the network that the one before left,
            and of the same fraction of what is left; in Python also a `cbs.Schedule`, or as in a shell
            `NUMBER:cubic` or `NUMBER:linear`, or the sparsities of all stages, `0.5,0.8,0.9`, and `:return`
            after either, for other ways. With refit `network` every stage is held against the dense outputs.
            Value, bound and gap are those of the last pruning, against the network as it was just before it.
        finetune: epochs of `cbs.train`, on all of the calibration data, after every stage; in Python also a
            mapping of its options, such as `{"epochs": 30, "validation": 0.1, "patience": 3}` for early
            stopping, or a function of (model, stage), stages counted from 1, that trains the model in place;
            none if absent.
            Value, bound and gap are of the masks and weights as pruned, before the last fine-tuning.
        max_loss_increase: instead of a sparsity: the largest one that costs no more than this. It is in the
            unit of the loss (nats for cross entropy), a mean over samples, refit and fine-tuning included,
            and measured on the test data if there are any, else on the calibration data. The result's
            `search` has every trial.
        max_accuracy_drop: the same with a limit on the accuracy lost, a fraction: 0.01 is a percentage point.
            Both limits hold where both are given.
        seed: of every random choice.
        memory: GiB of memory that may be taken beyond what the process holds when it begins, which is kept
            to by smaller batches, by curvature of some layers at a time, and by refusing what can't be had in
            parts; if absent 2.5, or 100 bytes a parameter of larger networks, but no more than half of what
            the machine has free.
        device: torch device for the network and for batched array work.
        executor: whose workers solve layers and search rows, where they can be had side by side: in a shell
            what `solvers.executor` takes, such as `processes:4` or `dask:tcp://host:8786`, in Python also any
            `concurrent.futures.Executor`; if absent threads of this process. The result is the same.

    Raises:
        ValueError: for a value outside its range, in one line.
    """

    sparsity: float | None = None
    _: KW_ONLY
    method: str | Method = "joint"
    scope: str = "network"
    budget: str = "unstructured"
    granularity: str | None = None
    solver: str | Solver = "auto"
    gap: float = 1e-4
    time_limit: float | None = None
    patience: float | None = 60.0
    damping: float = 1e-2
    samples: int | None = None
    layers: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    along: str = "channels"
    loss: str | Loss = "cross_entropy"
    output: int | str | Callable[[Any], Any] | None = None
    padding: str | None = None
    certify: bool = True
    pipeline: str = "one-shot"
    refit: str | None = None
    match: str | None = None
    labels: bool = False
    norms: bool | None = None
    reselect: bool | None = None
    stages: int | str | Schedule = 1
    finetune: int | Mapping[str, Any] | Finetune | None = None
    max_loss_increase: float | None = None
    max_accuracy_drop: float | None = None
    seed: int = 0
    memory: float | None = None
    device: str = "cpu"
    executor: str | Executor | None = None

    def __post_init__(self) -> None:
        check_request(self)

    @property
    def schedule(self) -> Schedule:
        """In what stages it is pruned."""
        if isinstance(self.stages, str) and set(self.stages) & set(":,"):  # a number in quotes is a mistake
            return as_schedule(self.stages)
        return self.stages if isinstance(self.stages, Schedule) else Schedule(self.stages)  # type: ignore[arg-type]

    @property
    def staged(self) -> bool:
        """Whether there is more to it than one pruning."""
        return self.schedule.count > 1 or self.finetune is not None or self.refit == "network"

    @property
    def limited(self) -> bool:
        """Whether the sparsity is the largest within a limit on what is lost."""
        return self.max_loss_increase is not None or self.max_accuracy_drop is not None

    @property
    def neurons(self) -> bool:
        """Whether whole neurons are pruned."""
        return self.granularity == "neurons"

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method if isinstance(self.method, str) else self.method.name

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON: a method by name, functions by `module:name`, a solver in words."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        layers = None if self.layers is None else list(self.layers)
        solver = self.solver if isinstance(self.solver, str) else self.solver.settings()
        plain = self.schedule == Schedule(self.schedule.count)
        return record | {
            "method": self.name,
            "solver": solver,
            "layers": layers,
            "loss": place(self.loss),
            "executor": spec_of(self.executor),
            "output": place(self.output) if callable(self.output) else self.output,
            "stages": self.schedule.count if plain else self.schedule.to_dict(),
            "finetune": place(self.finetune) if callable(self.finetune) else self.finetune,
        }

    @cached_property
    def pattern(self) -> tuple[int, int] | None:
        """(N, M) of an `N:M` budget, or None."""
        match = re.fullmatch(r"(\d+):(\d+)", str(self.budget))
        if match is None:
            return None
        keep, of = int(match[1]), int(match[2])
        if not 1 <= keep <= of:
            raise ValueError(
                f"budget {self.budget!r} must keep between 1 and {of} of every {of} weights"
                if of
                else f"budget {self.budget!r} must keep N of every M weights, 1 <= N <= M, such as '2:4'"
            )
        return keep, of

    @property
    def fraction(self) -> float:
        """The sparsity asked for, or implied by the pattern; where one is looked for, the most it may be."""
        if self.pattern is not None:
            keep, of = self.pattern
            return 1 - keep / of
        if self.sparsity is None and self.limited:
            return MOST
        assert self.sparsity is not None
        return float(self.sparsity)

    @property
    def pooled(self) -> bool:
        """Whether all layers share one budget."""
        return self.scope == "network" and self.budget == "unstructured"

    def of(self, layers: Sequence[Layer]) -> Request:
        """The request as it is for these layers: a single one shares with nobody, which is scope `layer`."""
        alone = self.pooled and len(layers) == 1 and not self.neurons
        return replace(self, scope="layer") if alone else self

    def neuron_counts(self, groups: Sequence[Neurons], gone: Sequence[Mask]) -> list[int] | int:
        """Neurons to prune of every group; of all together where these share one budget. One of each stays.

        Args:
            groups: of the network.
            gone: `[count]` of every group, True where a neuron is gone already; they count.

        Raises:
            ValueError: if more are gone already.
        """
        if not self.pooled:
            counts = [min(round(self.fraction * group.count), group.count - 1) for group in groups]
            for group, k, out in zip(groups, counts, gone, strict=True):
                self._require(f"layer {group.name!r}", group.count, k, int(out.sum()))
            return counts
        every = sum(group.count for group in groups)
        total = min(round(self.fraction * every), every - len(groups))
        self._require("the network", every, total, sum(int(out.sum()) for out in gone))
        return total

    def _require(self, what: str, every: int, count: int, gone: int) -> None:
        if gone > count:
            raise ValueError(
                f"sparsity {self.fraction:g} prunes {count} of {every} neurons, but {what} comes with masks "
                f"that have {gone} of them pruned; ask for more, or make the masks permanent first "
                "(torch.nn.utils.prune.remove)"
            )

    def network_count(self, layers: Iterable[Layer]) -> int:
        """Number of weights to prune when all layers share one budget."""
        return round(self.fraction * sum(layer.size for layer in layers))

    @property
    def across(self) -> bool:
        """Whether neighbouring inputs of convolutions are channels."""
        return self.pattern is not None and self.along == "channels"

    def unfit(self, layer: Layer) -> str | None:
        """Why the pattern of the budget can't be laid over a layer's inputs; None if it can."""
        if self.pattern is None:
            return None
        (_, of), n = self.pattern, layer.shape[1]
        count = layer.own_shape[1] if layer.across and layer.places else n
        if count % of == 0:
            return None
        what = "input channels" if count < n or (layer.across and layer.places) else "inputs"
        order = " (in_channels * kh * kw)" if layer.places and not layer.across else ""
        return f"{of} does not divide the {count} {what}{order}"

    def layer_budget(self, layer: Layer) -> Budget:
        """The budget of one layer, for every budget that is not shared by the layers.

        Raises:
            ValueError: if `M` does not divide the layer's inputs.
        """
        m, n = layer.shape
        if self.pattern is not None:
            keep, of = self.pattern
            if (why := self.unfit(layer)) is not None:
                raise ValueError(
                    f"budget {self.budget!r}: {why} of layer {layer.name!r}; leave it out with `exclude`"
                )
            return Budget.n_of_m(keep, of)
        if self.budget == "columns":
            return Budget.columns(round(self.fraction * n))
        if self.scope == "row":
            return Budget.per_row(round(self.fraction * n))
        return Budget.per_layer(round(self.fraction * m * n))
