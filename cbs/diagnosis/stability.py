"""Stability of a selection: which part of a mask hangs on the calibration samples that happened to be there.

Masks are chosen again on bootstrap samples of the data (Efron 1979), as stability selection does with subsets
(Meinshausen and Buehlmann 2010), and held against the mask of all samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from torch import nn

from cbs.arguments import Options, check_options, takes_a_request
from cbs.data import gather
from cbs.diagnosis.masking import network_of, prepared, run_once
from cbs.network.network import Network
from cbs.record import as_record
from cbs.request import Request
from cbs.watch import Callback, Step
from solvers.control import Control, interruptible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cbs.method import Method
    from solvers.problem import Mask

Masks = list["Mask"]
"""Of every layer `[m, n]`, True where pruned."""


@dataclass(frozen=True)
class Difference:
    """Two masks of a network or a layer.

    Attributes:
        changed: share of all entries that are pruned in one and not in the other.
        jaccard: entries pruned in both over those pruned in one at least; 1 if none is.
    """

    changed: float
    jaccard: float


@dataclass(frozen=True)
class LayerStability:
    """A layer's masks on bootstrap samples, held against its mask on all samples.

    Attributes:
        name: of the layer.
        size: number of its weights.
        sparsity: share of them that is pruned on all samples.
        changed: mean over bootstrap samples, see `Difference`.
        jaccard: the same.
        core: of what is pruned on all samples, the share that is pruned on every bootstrap sample too.
    """

    name: str
    size: int
    sparsity: float
    changed: float
    jaccard: float
    core: float


@dataclass(frozen=True)
class SizePoint:
    """Masks on independent draws of so many samples, held against each other.

    Attributes:
        samples: in every draw.
        changed: mean over pairs of draws, see `Difference`.
        jaccard: the same.
    """

    samples: int
    changed: float
    jaccard: float


@dataclass(frozen=True)
class BlockInfluence:
    """What leaving a block of samples out does to the mask.

    Attributes:
        first: place of its first sample in the calibration data.
        last: of its last one.
        changed: against the mask of all samples, see `Difference`.
        jaccard: the same.
    """

    first: int
    last: int
    changed: float
    jaccard: float


@dataclass(frozen=True)
class Stability:
    """What a method's masks depend on.

    Attributes:
        method: that chose them, by name.
        sparsity: of the mask on all samples.
        samples: how many there are.
        resamples: bootstrap samples that were pruned on.
        changed: share of all entries that differ from the mask of all samples, mean over bootstrap samples.
        jaccard: of the pruned sets, the same.
        core: of what is pruned on all samples, the share that is pruned on every bootstrap sample too.
        seeds: what other seeds of the method change on all samples, mean; None if none were tried.
        layers: the same layer by layer.
        sizes: how far independent draws of some sizes differ.
        blocks: what leaving out single blocks of samples does.
        status: `done`, or `interrupted`, and then of the masks that were there.
        frequency: for every layer's name `[m, n]`, the share of the bootstrap samples on which it is pruned.
    """

    method: str
    sparsity: float
    samples: int
    resamples: int
    changed: float
    jaccard: float
    core: float
    seeds: Difference | None
    layers: list[LayerStability]
    sizes: list[SizePoint]
    blocks: list[BlockInfluence]
    status: str = "done"
    frequency: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        from cbs.diagnosis.tables import text

        return f"{text(*self.table())}\n{self.verdict}"

    @property
    def chance(self) -> float:
        """The share that would change between two masks drawn at random: `2 s (1 - s)`."""
        return 2 * self.sparsity * (1 - self.sparsity)

    @property
    def rate(self) -> float | None:
        """The power `a` of `changed ~ samples^-a` by least squares over the sizes; None for fewer than two.

        An estimate from independent samples has errors of `samples^-0.5`; so, roughly, has a mask that hangs
        on it.
        """
        points = [(math.log(p.samples), math.log(p.changed)) for p in self.sizes if p.changed > 0]
        if len({x for x, _ in points}) < 2:
            return None
        x, y = np.array(points).T
        return float(-np.polyfit(x, y, 1)[0])

    @property
    def verdict(self) -> str:
        """What to make of it, in a sentence or two."""
        said = (
            f"on a bootstrap sample {100 * self.changed:.2f}% of the entries are chosen otherwise (masks at "
            f"random: {100 * self.chance:.1f}%); {100 * self.core:.1f}% of what is pruned always is"
        )
        if self.seeds is not None:
            said += f"; another seed changes {100 * self.seeds.changed:.2f}%"
        if self.rate is not None and self.rate > 0:
            said += f"; twice the samples change {100 * 2**-self.rate:.0f}% as many"
        if self.blocks:
            worst = max(self.blocks, key=lambda block: block.changed)
        if self.blocks and worst.changed > 0:
            said += f"; samples {worst.first} to {worst.last} matter most ({100 * worst.changed:.2f}%)"
        return said

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a layer."""
        headings = ["layer", "weights", "pruned", "changed", "Jaccard", "always pruned"]
        rows = [
            [
                each.name, f"{each.size:,}", f"{100 * each.sparsity:.1f}%", f"{100 * each.changed:.2f}%",
                f"{each.jaccard:.3f}", f"{100 * each.core:.1f}%",
            ]
            for each in self.layers
        ]  # fmt: skip
        return headings, rows

    def draw(self) -> Figure:
        """A figure of the layers, and of the sizes if there are any."""
        from cbs.diagnosis.plot import draw_stability

        return draw_stability(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the frequencies, ready for JSON."""
        record: dict[str, Any] = as_record(self, skip=("frequency",))
        return {"chance": self.chance, "rate": self.rate, "verdict": self.verdict, **record}


@takes_a_request
def stability(  # noqa: D417
    model: nn.Module,
    data: Any,
    *,
    sparsity: float | None = None,
    method: str | Method = "wanda",
    resamples: int = 10,
    sizes: Sequence[int] = (),
    blocks: int = 0,
    seeds: int = 0,
    callback: Callback | None = None,
    **options: Unpack[Options],
) -> Stability:
    """Choose masks on bootstrap samples of the calibration data, and tell what of them stays the same.

    Nothing is proven, refitted or measured; methods that choose by any solver do it greedily. Every mask
    takes a method's run with curvatures of its own.

    Args:
        model: the network; it is not changed.
        data: calibration data, in any form that `cbs.prune` takes.
        resamples: bootstrap samples, drawn with replacement and as many as there are samples.
        sizes: numbers of samples; of each, draws with replacement, as many as there are `resamples`, are held
            against each other, to tell whether the calibration data is large enough.
        blocks: into how many runs of neighbours to divide the samples, each left out once; 0 for none.
        seeds: further seeds to try on all samples, for methods that draw; 0 for none.
        callback: called with a `Step` for every mask; a true answer stops.
        **options: the fields of `cbs.request.Request` that `cbs.prune` takes and masks depend on.

    Returns:
        The shares; after Ctrl-C of the masks that are there, once there are two.

    Raises:
        TypeError: for an unknown option, in one line.
        ValueError: for bad input, in one line.
    """
    check_options(stability, options)
    _require_whole(resamples=(resamples, 1), blocks=(blocks, 0), seeds=(seeds, 0))
    request = prepared(Request(sparsity, method=method, **options))
    if request.limited:
        raise ValueError("stability takes a sparsity; prune with the limit first, and give the one it finds")
    given = gather(data, request.samples, request.seed, model)
    if isinstance(sizes, str | int) or any(isinstance(n, bool) or not isinstance(n, Integral) for n in sizes):
        raise ValueError(f"sizes must be a list of whole numbers, such as [100, 300], got {sizes!r}")
    for size in sizes:
        if not 2 <= size <= len(given):
            raise ValueError(f"sizes must lie in 2 to {len(given)}, the samples that there are, got {size}")
    if blocks == 1 or blocks > len(given):
        raise ValueError(f"blocks must be 0, or 2 to {len(given)}, the samples that there are, got {blocks}")
    network = network_of(model, given, request)
    if request.neurons:
        request.neuron_counts(network.neurons, network.gone)
    again = replace(request, layers=[layer.name for layer in network.layers])
    whole = _masks(network, request)
    found: dict[tuple[str, int], list[Masks]] = {}
    jobs = [*_jobs(len(given), request, resamples, sizes, blocks, seeds)]
    control = Control()
    with interruptible(control):
        try:
            for index, (kind, place, index_of, seed) in enumerate(jobs):
                told = Step("stability", "select", index=index, count=len(jobs), asked=request.fraction)
                if (callback is not None and callback(told)) or control.interrupted:
                    control.interrupted = True
                    break
                here = network if index_of is None else network_of(model, given.take(index_of()), again)
                masks = _masks(here, replace(request, seed=seed))
                found.setdefault((kind, place), []).append(masks)
        except KeyboardInterrupt:
            control.interrupted = True
    if not found:
        raise KeyboardInterrupt
    status = "interrupted" if control.interrupted else "done"
    return _concluded(request, network, len(given), whole, found, sizes, blocks, status)


Job = tuple[str, int, Callable[[], np.ndarray] | None, int]
"""Kind and place of a mask, the samples to take (all if None), and the seed of its method."""


def _jobs(
    count: int, request: Request, resamples: int, sizes: Sequence[int], blocks: int, seeds: int
) -> Iterator[Job]:
    rng = np.random.default_rng(request.seed)

    def drawn(size: int) -> Callable[[], np.ndarray]:
        state = int(rng.integers(2**32))
        return lambda: np.sort(np.random.default_rng(state).choice(count, size=size))

    for _ in range(resamples):
        yield "bootstrap", 0, drawn(count), request.seed
    for size in dict.fromkeys(sizes):
        for _ in range(max(2, resamples)) if size < count else ():
            yield "size", size, drawn(size), request.seed
    for number, block in enumerate(np.array_split(np.arange(count), blocks) if blocks else ()):
        yield "block", number, partial(np.setdiff1d, np.arange(count), block), request.seed
    for number in range(seeds):
        yield "seed", 0, None, request.seed + 1 + number


def _masks(network: Network, request: Request) -> Masks:
    return [step.change.mask for step in run_once(network, request).layers]


def difference(one: Masks, other: Masks) -> Difference:
    """How far two masks of the same layers differ, over all of them."""
    entries = sum(mask.size for mask in one)
    changed = sum(int((a != b).sum()) for a, b in zip(one, other, strict=True))
    both = sum(int((a & b).sum()) for a, b in zip(one, other, strict=True))
    either = both + changed
    return Difference(changed / entries, both / either if either else 1.0)


def _mean(parts: Sequence[Difference]) -> Difference:
    return Difference(
        float(np.mean([part.changed for part in parts])), float(np.mean([part.jaccard for part in parts]))
    )


def _concluded(
    request: Request, network: Network, count: int, whole: Masks,
    found: Mapping[tuple[str, int], list[Masks]], sizes: Sequence[int], blocks: int, status: str,
) -> Stability:  # fmt: skip
    resampled = found.get(("bootstrap", 0), [])
    layers = []
    frequency: dict[str, np.ndarray] = {}
    for i, layer in enumerate(network.layers):
        mine = [masks[i] for masks in resampled]
        share = np.mean(mine, axis=0)
        frequency[layer.name] = share
        apart = _mean([difference([whole[i]], [mask]) for mask in mine])
        layers.append(
            LayerStability(
                layer.name, layer.size, float(whole[i].mean()), apart.changed, apart.jaccard,
                _core(whole[i : i + 1], [share]),
            )
        )  # fmt: skip
    overall = _mean([difference(whole, masks) for masks in resampled])
    points = []
    for size in dict.fromkeys(sizes):
        drawn = resampled if size == count else found.get(("size", size), [])
        pairs = [difference(a, b) for k, a in enumerate(drawn) for b in drawn[:k]]
        if pairs:
            mean = _mean(pairs)
            points.append(SizePoint(size, mean.changed, mean.jaccard))
    left_out = []
    for number, block in enumerate(np.array_split(np.arange(count), blocks) if blocks else ()):
        if masks := found.get(("block", number)):
            apart = difference(whole, masks[0])
            left_out.append(BlockInfluence(int(block[0]), int(block[-1]), apart.changed, apart.jaccard))
    others = found.get(("seed", 0), [])
    entries = sum(mask.size for mask in whole)
    return Stability(
        method=request.name, sparsity=sum(int(mask.sum()) for mask in whole) / entries, samples=count,
        resamples=len(resampled), changed=overall.changed, jaccard=overall.jaccard,
        core=_core(whole, [frequency[layer.name] for layer in network.layers]),
        seeds=_mean([difference(whole, masks) for masks in others]) if others else None,
        layers=layers, sizes=points, blocks=left_out, status=status, frequency=frequency,
    )  # fmt: skip


def _core(whole: Masks, shares: Sequence[np.ndarray]) -> float:
    """Of what is pruned in masks, the share that is pruned in all others too; 1 if nothing is."""
    pruned = sum(int(mask.sum()) for mask in whole)
    always = sum(int((mask & (share == 1)).sum()) for mask, share in zip(whole, shares, strict=True))
    return always / pruned if pruned else 1.0


def _require_whole(**numbers: tuple[Any, int]) -> None:
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
