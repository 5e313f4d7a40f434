"""Error propagation: how far every module's output in a pruned network is from the dense one.

The relative error of an output `y'` in the pruned network is `|y' - y| / |y|` over all samples and positions;
`SNR = -20 log10` of it, in decibels. At 1 (0 dB) the error is as large as the signal: what a layer adds
there, and what the ones behind it get, has little to do with what they were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cbs.diagnosis.pair import pair_of
from cbs.diagnosis.variants import batch_size
from cbs.network.evaluate import evaluating, forward
from cbs.record import as_record
from cbs.watch import Callback, Step
from solvers.control import Control, interruptible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cbs.network.answers import Output
    from cbs.result import PruneResult

FIRST = (nn.modules.conv._ConvNd, _BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
"""Modules whose outputs have their channels in dimension 1; of others, but for images, in the last one."""


@dataclass(frozen=True)
class ModuleTrace:
    """A module's output in the pruned network, held against its output in the dense one.

    Attributes:
        name: of the module.
        kind: its class.
        differs: whether pruning changed the module itself.
        error: `|y' - y| / |y|`; infinite where the dense output is zero and the other is not.
        channels: of its output.
        dead: channels that are the same number on all samples and positions in the pruned network, as of a
            ReLU that never fires or a row without weights.
        dead_before: the same in the dense network.
        drift: of a batch norm with running statistics, how far the mean of what it is given has moved from
            the running mean, in running deviations, root mean square over channels; None for others.
        drift_before: the same in the dense network.
        spread: of such a norm the geometric mean, over channels, of the ratio of the deviation that it is
            given in the pruned network to the running one; 1 is none, None for others.
    """

    name: str
    kind: str
    differs: bool
    error: float
    channels: int
    dead: int
    dead_before: int
    drift: float | None = None
    drift_before: float | None = None
    spread: float | None = None

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio in decibels, `-20 log10(error)`; infinite where there is no error."""
        return math.inf if self.error == 0 else -20.0 * math.log10(self.error)


@dataclass(frozen=True)
class Trace:
    """How the error grows through a pruned network.

    Attributes:
        modules: that run once or more on every batch and give a tensor, in running order.
        output: relative error of the network's output.
        samples: how many it was measured on.
        left_out: for modules that are not there why.
        status: `done`, or `interrupted`, and then of the samples that were run.
    """

    modules: list[ModuleTrace]
    output: float
    samples: int
    left_out: Mapping[str, str]
    status: str = "done"

    def __repr__(self) -> str:
        from cbs.diagnosis.tables import text

        return f"{text(*self.table())}\n{self.verdict}"

    @property
    def collapse(self) -> ModuleTrace | None:
        """The first module whose relative error is 1 or more; None if there is none."""
        return next((module for module in self.modules if not module.error < 1), None)

    @property
    def verdict(self) -> str:
        """What to look at first, in a sentence or two."""
        first = self.collapse
        said = f"relative error of the network's output {self.output:.3g}"
        if first is None:
            if self.modules:
                worst = max(self.modules, key=lambda module: module.error)
                said += f"; it stays below 1, at most {worst.error:.3g} at {worst.name!r}"
        else:
            said += f"; it reaches 1 first at {first.name!r} ({first.kind}, {first.error:.3g})"
        died = [module for module in self.modules if module.dead > module.dead_before]
        drifted = [module for module in self.modules if module.drift is not None]
        if died:
            most = max(died, key=lambda module: module.dead - module.dead_before)
            said += f"; outputs died in {len(died)} modules, most in {most.name!r} "
            said += f"({most.dead} of {most.channels}, {most.dead_before} before)"
        if drifted:
            worst = max(drifted, key=lambda module: module.drift or 0.0)
            said += f"; largest drift of a batch norm {worst.drift:.2g} deviations, at {worst.name!r}"
        return said

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a module."""
        norms = any(module.drift is not None for module in self.modules)
        headings = ["module", "kind", "error", "SNR dB", "dead", "before"]
        headings += ["drift", "spread"] if norms else []
        rows = []
        for module in self.modules:
            row = [
                f"{module.name}{' *' * module.differs}", module.kind, f"{module.error:.3g}",
                f"{module.snr:.1f}", f"{module.dead}/{module.channels}", f"{module.dead_before}",
            ]  # fmt: skip
            if norms:
                row += ["" if value is None else f"{value:.2g}" for value in (module.drift, module.spread)]
            rows.append(row)
        return headings, rows

    def draw(self) -> Figure:
        """A figure of the error module by module."""
        from cbs.diagnosis.plot import draw_trace

        return draw_trace(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        first = self.collapse
        record: dict[str, Any] = as_record(self)
        return {"collapse": None if first is None else first.name, "verdict": self.verdict, **record}


def trace(
    pruned: PruneResult | nn.Module,
    data: Any,
    *,
    dense: nn.Module | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    output: Output | None = None,
    padding: str | None = None,
    callback: Callback | None = None,
) -> Trace:
    """Follow the error through a pruned network: two passes over the samples, without labels.

    Args:
        pruned: a result of `cbs.prune`; or a network from anywhere, with masks or zeros, then with `dense`.
        data: samples to measure on, in any form that `cbs.prune` takes.
        dense: the network before pruning, of the same modules.
        samples: how many samples to draw; if absent all of them.
        seed: of the draw.
        device: torch device.
        output: as in `cbs.prune`; if absent the result's.
        padding: as in `cbs.prune`; if absent the result's.
        callback: called with a `Step` for every batch; a true answer stops.

    Returns:
        The error by module; after Ctrl-C of the samples that were run, once there are some.

    Raises:
        ValueError: in one line, for networks that are no pair, equal ones, or data that they refuse.
    """
    pair = pair_of(pruned, dense, device)
    given = pair.gathered(data, samples, seed, device, output, padding)
    names = [
        name for name, module in pair.dense.named_modules()
        if name in pair.sites or not any(module.children())
    ]  # fmt: skip
    size = batch_size(pair.dense, names, given)
    sums = {name: _Sums() for name in names}
    order: dict[str, None] = {}
    whole, count, control = _Sums(), 0, Control()
    with interruptible(control):
        for index, (inputs, _) in enumerate(given.batches(size)):
            with _outputs(pair.dense, names) as before:
                y = forward(pair.dense, inputs.clone())
            with _outputs(pair.pruned, names) as after:
                z = forward(pair.pruned, inputs.clone())
            order |= dict.fromkeys(name for name, _, _ in before)
            whole.add(y, z, 1)
            _take_in(pair.dense, before, after, sums)
            count += len(y)
            step = Step("trace", "evaluate", index=index + 1, count=-(-len(given) // size))
            if (callback is not None and callback(step)) or control.interrupted:
                control.interrupted = count < len(given)
                break
    left_out = {name: "it did not run as a module" for name in names if name not in order}
    left_out |= {name: each.wrong for name, each in sums.items() if each.wrong}
    kinds = {name: module for name, module in pair.dense.named_modules() if name in order}
    modules = [
        sums[name].told(name, kinds[name], name in pair.sites) for name in order if name not in left_out
    ]
    status = "interrupted" if control.interrupted else "done"
    return Trace(modules, whole.error, count, left_out, status)


Seen = list[tuple[str, Any, Any]]
"""Names, inputs (of batch norms only) and outputs, call by call."""


@contextmanager
def _outputs(model: nn.Module, names: list[str]) -> Iterator[Seen]:
    seen: Seen = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, y: Any) -> None:
            x = args[0].clone() if isinstance(module, _BatchNorm) and args else None
            seen.append((name, x, y.clone() if isinstance(y, Tensor) else y))

        return keep

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with evaluating(model):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _take_in(model: nn.Module, before: Seen, after: Seen, sums: dict[str, _Sums]) -> None:
    """Add a batch's outputs to the sums of their modules."""
    later: dict[str, list[tuple[Any, Any]]] = {}
    for name, x, y in after:
        later.setdefault(name, []).append((x, y))
    places: dict[tuple[int, ...], int] = {}
    for name, x, y in before:
        known = later.get(name, [])
        if not known:
            sums[name].wrong = "it does not run as often in the pruned network"
            continue
        u, z = known.pop(0)
        y, z = (v[0] if isinstance(v, tuple | list) and v else v for v in (y, z))
        if not isinstance(y, Tensor) or not isinstance(z, Tensor) or y.shape != z.shape or not y.ndim:
            sums[name].wrong = "its output is no tensor, or has another shape in the pruned network"
            continue
        module = model.get_submodule(name)
        if isinstance(module, FIRST):
            places[y.shape] = 1
        elif isinstance(module, nn.Linear) or y.shape not in places:
            places[y.shape] = 1 if y.ndim in (2, 4, 5) and not isinstance(module, nn.Linear) else y.ndim - 1
        sums[name].add(y, z, min(places[y.shape], y.ndim - 1))
        if isinstance(module, _BatchNorm) and isinstance(x, Tensor) and isinstance(u, Tensor):
            sums[name].drift(module, x, u)


class _Sums:
    """What is added up of a module's outputs."""

    def __init__(self) -> None:
        self.wrong = ""
        self._noise = self._signal = 0.0
        self._low: list[Tensor | None] = [None, None]
        self._high: list[Tensor | None] = [None, None]
        self._given: list[Tensor] = []
        self._count = 0

    def add(self, y: Tensor, z: Tensor, place: int) -> None:
        """Take in outputs of the dense and the pruned network, channels in dimension `place`.

        Of outputs `[N]` there is one channel.
        """
        y, z = y.detach().double(), z.detach().double()
        if y.ndim == 1:
            y, z, place = y[:, None], z[:, None], 1
        self._noise += float((z - y).square().sum())
        self._signal += float(y.square().sum())
        for i, values in enumerate((y, z)):
            flat = values.movedim(place, -1).reshape(-1, values.shape[place])
            low, high = flat.amin(dim=0), flat.amax(dim=0)
            before, above = self._low[i], self._high[i]
            if before is not None and above is not None:
                if before.shape != low.shape:  # positions that vary from batch to batch
                    self.wrong = "its output has another number of channels in every batch"
                    return
                low, high = torch.minimum(low, before), torch.maximum(high, above)
            self._low[i], self._high[i] = low, high

    def drift(self, module: _BatchNorm, x: Tensor, u: Tensor) -> None:
        """Take in what a batch norm is given in the dense network, and in the pruned one."""
        if module.running_mean is None:
            return
        mean = module.running_mean.double()
        first, moved = (
            values.detach().double().movedim(1, -1).reshape(-1, values.shape[1]) - mean for values in (x, u)
        )
        sums = [first.sum(dim=0), moved.sum(dim=0), moved.square().sum(dim=0)]
        self._given = [a + b for a, b in zip(self._given, sums, strict=True)] if self._given else sums
        self._count += x.numel() // x.shape[1]

    @property
    def error(self) -> float:
        """`|y' - y| / |y|`."""
        if self._signal == 0:
            return 0.0 if self._noise == 0 else math.inf
        return math.sqrt(self._noise / self._signal)

    def told(self, name: str, module: nn.Module, differs: bool) -> ModuleTrace:
        """What it comes to."""
        dead = []
        for low, high in zip(self._low, self._high, strict=True):
            assert low is not None
            assert high is not None
            dead.append(int((low == high).sum()))
        drifts: tuple[float | None, ...] = (None, None, None)
        if self._given and isinstance(module, _BatchNorm) and module.running_var is not None:
            first, moved, squares = (each / self._count for each in self._given)
            scale = (module.running_var.double() + module.eps).sqrt()
            off = [float((mean / scale).square().mean().sqrt()) for mean in (moved, first)]
            deviation = (squares - moved.square()).clamp(min=0).add(module.eps).sqrt()
            drifts = (off[0], off[1], float((deviation / scale).log().mean().exp()))
        assert self._low[0] is not None
        return ModuleTrace(
            name, type(module).__name__, differs, self.error, len(self._low[0]), dead[1], dead[0], *drifts
        )
