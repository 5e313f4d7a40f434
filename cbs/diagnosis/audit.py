"""An audit of sparsity: which weights of a network really are zero, what holds them there, what came back.

It needs no history: any module or state dict will do, from this package or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cbs.diagnosis.patterns import conforming, pattern
from cbs.network.eligible import masked, unwrap
from cbs.network.evaluate import evaluating, forward
from cbs.record import as_record

if TYPE_CHECKING:
    from cbs.result import PruneResult

PRUNED = 0.01
"""Share of zeros from which a matrix without a mask counts as pruned: training leaves next to none."""
TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")
"""Modules whose weights have the inputs in dimension 0 and the outputs in dimension 1."""
ORDINARY = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules whose inputs and outputs are looked at on data."""


@dataclass(frozen=True)
class MatrixAudit:
    """A parameter of two dimensions or more.

    Attributes:
        name: of the parameter, as in the dense network's state dict.
        shape: of it.
        zeros: entries that are zero as the network runs, masks applied.
        masked: of these, entries that a mask of `torch.nn.utils.prune` holds.
        held: what holds the zeros: `mask`, `mask, in part`, `padding`, `parametrization` (which may, or not),
            or `nothing`: they come back when training goes on, unless `cbs.keep_masks` holds them; empty
            without zeros.
        came_back: entries that were pruned by the masks it is held against and are not zero; None where there
            are none.
        channels: the tightest N:M that holds along input channels (in a linear layer along its inputs), such
            as `2:4`: what sparse hardware takes; empty if there is none.
        kernel: the same along a convolution's inputs times kernel places, in that order.
        two_of_four: share of the groups of four input channels with two zeros or more; None if four does not
            divide the channels.
        rows: outputs all of whose weights are zero.
        columns: inputs (channels of a convolution) all of whose weights are zero: an export can leave them
            out.
        dead_inputs: inputs that are zero on all samples, whose weights do nothing; None without data.
        constant: outputs that are the same number on all samples; None without data.
        padding: zeros of these that are there by nature and stay: the padding row of an embedding.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    masked: int
    held: str
    came_back: int | None
    channels: str
    kernel: str
    two_of_four: float | None
    rows: int
    columns: int
    dead_inputs: int | None = None
    constant: int | None = None
    padding: int = 0

    @property
    def entries(self) -> int:
        """How many there are."""
        return int(torch.Size(self.shape).numel())

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.entries

    @property
    def pruned(self) -> bool:
        """Whether it counts as pruned: by a mask, or by more zeros than training leaves."""
        chosen = self.zeros - self.padding
        return self.masked > 0 or self.came_back is not None or chosen >= PRUNED * self.entries


@dataclass(frozen=True)
class Audit:
    """What a network's sparsity really is.

    Attributes:
        matrices: every parameter of two dimensions or more; what modules share is there once.
        parameters: entries of all parameters, vectors too.
        zeros: of these, that are zero as the network runs.
        samples: that inputs and outputs were looked at on; 0 without data.
    """

    matrices: list[MatrixAudit]
    parameters: int
    zeros: int
    samples: int = 0

    def __repr__(self) -> str:
        from cbs.diagnosis.tables import text

        return f"{text(*self.table())}\n{self.verdict}"

    @property
    def sparsity(self) -> float:
        """Share of zeros among the entries of the pruned matrices; 0 if there are none."""
        entries = sum(matrix.entries for matrix in self.matrices if matrix.pruned)
        return sum(matrix.zeros for matrix in self.matrices if matrix.pruned) / entries if entries else 0.0

    @property
    def network_sparsity(self) -> float:
        """Share of zeros among all parameters."""
        return self.zeros / self.parameters if self.parameters else 0.0

    @property
    def loose(self) -> int:
        """Zeros of pruned matrices that no mask holds."""
        return sum(m.zeros - m.padding - m.masked for m in self.matrices if m.pruned)

    @property
    def came_back(self) -> int | None:
        """Entries that were pruned and are not zero; None if it was held against no masks."""
        known = [matrix.came_back for matrix in self.matrices if matrix.came_back is not None]
        return sum(known) if known else None

    @property
    def verdict(self) -> str:
        """The network in a sentence or two."""
        pruned = [matrix for matrix in self.matrices if matrix.pruned]
        if not pruned:
            return f"nothing is pruned: {self.zeros:,} of {self.parameters:,} parameters are zero"
        said = (
            f"{100 * self.sparsity:.2f}% of the weights of {len(pruned)} pruned layers are zero, "
            f"{100 * self.network_sparsity:.2f}% of all {self.parameters:,} parameters"
        )
        if self.loose:
            said += (
                f"; no mask holds {self.loose:,} of the zeros, which come back when training goes on "
                "(cbs.keep_masks holds them)"
            )
        if self.came_back is not None:
            said += f"; {self.came_back:,} pruned weights came back"
        rows, columns = sum(matrix.rows for matrix in pruned), sum(matrix.columns for matrix in pruned)
        if rows or columns:
            said += f"; {rows} rows and {columns} columns are wholly zero"
        return said

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a matrix."""
        back, ran = self.came_back is not None, self.samples > 0
        headings = ["parameter", "shape", "zeros", "held by", "N:M", "rows", "cols"]
        headings += ["back"] if back else []
        headings += ["dead in", "const. out"] if ran else []
        rows = []
        for matrix in self.matrices:
            row = [
                matrix.name, "x".join(map(str, matrix.shape)), f"{100 * matrix.sparsity:.2f}%",
                matrix.held or "-", matrix.channels or (f"{matrix.kernel} flat" if matrix.kernel else "-"),
                str(matrix.rows), str(matrix.columns),
            ]  # fmt: skip
            row += ["-" if matrix.came_back is None else str(matrix.came_back)] if back else []
            more = (matrix.dead_inputs, matrix.constant) if ran else ()
            rows.append(row + ["-" if value is None else str(value) for value in more])
        return headings, rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        names = ("sparsity", "network_sparsity", "loose", "came_back", "verdict")
        record: dict[str, Any] = as_record(self)
        matrices = [
            {**row, "sparsity": matrix.sparsity, "pruned": matrix.pruned}
            for row, matrix in zip(record["matrices"], self.matrices, strict=True)
        ]
        return {**{name: getattr(self, name) for name in names}, **record, "matrices": matrices}


def audit(
    model: nn.Module | PruneResult | Mapping[str, Tensor],
    *,
    against: PruneResult | Mapping[str, Tensor] | None = None,
    data: Any = None,
    samples: int | None = None,
    seed: int = 0,
) -> Audit:
    """Count zeros and masks by parameter, tell what holds them, and what could be left out.

    Args:
        model: any network, with masks or plain; a result of `cbs.prune`; or a state dict.
        against: masks that the network should still have, such as after fine-tuning: a result, or for names
            of modules (or of parameters) bool tensors, True where pruned.
        data: samples to run, for inputs that are always zero and outputs that never change; needs a network.
        samples: how many of these to draw; if absent all of them.
        seed: of the draw.

    Returns:
        A row for every matrix, and the sums.

    Raises:
        ValueError: in one line, for what is no network, or masks that are of another one.
    """
    from cbs.result import PruneResult

    masks = _masks(against)
    if isinstance(model, PruneResult):
        masks = masks if against is not None else _masks(model)
        model = model.model
    if isinstance(model, nn.Module):
        model = unwrap(model)
        found = [*_of_module(model)]
    elif isinstance(model, Mapping) and all(isinstance(t, Tensor) for t in model.values()) and model:
        if data is not None:
            raise ValueError("data needs a network to run, but model is a state dict")
        found = [*_of_state(model)]
    else:
        raise ValueError(
            f"model must be a torch.nn.Module, a result or a state dict, not {type(model).__name__}"
        )
    _require_known(masks, found)
    activity: dict[str, tuple[int, int]] = {}
    count = 0
    if data is not None:
        from cbs.data import gather

        assert isinstance(model, nn.Module)
        given = gather(data, samples, seed, model).to(next(model.parameters(), torch.empty(0)).device)
        activity, count = _activity(model, given), len(given)
    matrices, entries, zeros = [], 0, 0
    for each in found:
        entries, zeros = entries + each.values.numel(), zeros + int((each.values == 0).sum())
        if each.values.ndim > 1:
            matrices.append(_matrix(each, masks, activity))
    return Audit(matrices, entries, zeros, count)


@dataclass(frozen=True)
class _Found:
    """A parameter as it is used: its name, values, mask (True where pruned), and the class of its module."""

    name: str
    values: Tensor
    mask: Tensor | None = None
    kind: str = ""
    computed: bool = False
    padding: int = 0


def _of_module(model: nn.Module) -> Iterator[_Found]:
    seen: set[int] = set()
    for name, module in model.named_modules():
        prefix, kind = f"{name}." if name else "", type(module).__name__
        if parametrize.is_parametrized(module):
            kind = type(module).__mro__[1].__name__
            for key in module.parametrizations:
                with torch.no_grad():
                    yield _Found(f"{prefix}{key}", getattr(module, key).detach(), None, kind, computed=True)
        inside = name.split(".")
        if "parametrizations" in inside:
            continue
        prunes = {f"{key}_orig": key for key in masked(module)}
        for key, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen or not parameter.is_floating_point():
                continue
            seen.add(id(parameter))
            values, mask = parameter.detach(), None
            if key in prunes:
                keep = getattr(module, f"{prunes[key]}_mask")
                key, mask, values = prunes[key], keep == 0, values * keep
            padding = 0
            if isinstance(module, nn.Embedding) and module.padding_idx is not None and mask is None:
                padding = int((values[module.padding_idx] == 0).sum())
            yield _Found(f"{prefix}{key}", values, mask, kind, padding=padding)


def _of_state(state: Mapping[str, Tensor]) -> Iterator[_Found]:
    for key, values in state.items():
        if not values.is_floating_point() or key.endswith(("_mask", "running_mean", "running_var")):
            continue
        name, mask = key, None
        if key.endswith("_orig") and f"{key.removesuffix('_orig')}_mask" in state:
            name = key.removesuffix("_orig")
            keep = state[f"{name}_mask"]
            mask, values = keep == 0, values * keep
        yield _Found(name, values, mask)


def _masks(against: Any) -> dict[str, Tensor]:
    """Masks by the parameter's name, of a result or a mapping."""
    from cbs.result import PruneResult

    if against is None:
        return {}
    given = against.masks if isinstance(against, PruneResult) else against
    if not isinstance(given, Mapping):
        raise ValueError(f"against must be a result or masks by name, not {type(against).__name__}")
    for name, mask in given.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            what = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"against: the mask of {name!r} is {what}; give a bool tensor, True where pruned"
            )
    return dict(given)


def _require_known(masks: dict[str, Tensor], found: list[_Found]) -> None:
    shapes = {each.name: each.values.shape for each in found}
    for name in [*masks]:
        key = name if name in shapes else f"{name}.weight" if name else "weight"
        if key not in shapes:
            raise ValueError(f"against: model has no {name!r}; give the masks of this network")
        if shapes[key] != masks[name].shape:
            raise ValueError(
                f"against: the mask of {name!r} has shape {list(masks[name].shape)}, its weight "
                f"{list(shapes[key])}"
            )
        masks[key] = masks.pop(name)


def _matrix(
    each: _Found, masks: Mapping[str, Tensor], activity: Mapping[str, tuple[int, int]]
) -> MatrixAudit:
    values = each.values.movedim(0, 1) if each.kind in TRANSPOSED else each.values
    zero = values == 0
    held, count = 0, int(zero.sum())
    if each.mask is not None:
        held = int(((each.values == 0) & each.mask.to(each.values.device)).sum())
    by = "mask" if held == count else "mask, in part" if held else "nothing"
    by = "parametrization" if each.computed else "padding" if count == each.padding else by
    back = None
    if each.name in masks:
        back = int((each.values[masks[each.name].to(each.values.device)] != 0).sum())
    module, _, key = each.name.rpartition(".")
    dead = activity.get(module, (None, None)) if key == "weight" else (None, None)
    return MatrixAudit(
        each.name, tuple(each.values.shape), count, held, by if count else "", back,
        pattern(zero.movedim(1, -1)), pattern(zero.flatten(1)) if zero.ndim > 2 else "",
        conforming(zero.movedim(1, -1), 2, 4),
        int(zero.flatten(1).all(dim=1).sum()),
        int(zero.all(dim=0).reshape(zero.shape[1], -1).all(dim=1).sum()), dead[0], dead[1], each.padding,
    )  # fmt: skip


@torch.no_grad()
def _activity(model: nn.Module, samples: Any) -> dict[str, tuple[int, int]]:
    """For every ordinary layer that runs how many of its inputs are always zero, and outputs never change."""
    live: dict[str, Tensor] = {}
    bounds: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def watch(module: nn.Module, args: Any, kwargs: Any, y: Any) -> None:
            x = args[0] if args else kwargs.get("input")
            if not isinstance(x, Tensor) or not isinstance(y, Tensor):
                return
            x, y = (_by_channel(module, values) for values in (x, y))
            used, low, high = (x != 0).any(dim=0), y.amin(dim=0), y.amax(dim=0)
            if name in live:
                used = used | live[name]
                low, high = torch.minimum(low, bounds[name][0]), torch.maximum(high, bounds[name][1])
            live[name], bounds[name] = used, (low, high)

        return watch

    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, ORDINARY)]
    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in modules]
    try:
        with evaluating(model):
            for inputs, _ in samples.batches():
                forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: (int((~used).sum()), int((bounds[name][0] == bounds[name][1]).sum()))
        for name, used in live.items()
    }


def _by_channel(module: nn.Module, values: Tensor) -> Tensor:
    """Values as rows `[..., channels]` of samples and positions."""
    if isinstance(module, nn.Linear):
        return values.reshape(-1, values.shape[-1])
    positions = len(module.kernel_size)  # type: ignore[arg-type]
    moved = values.movedim(values.ndim - 1 - positions, -1)
    return moved.reshape(-1, moved.shape[-1])
