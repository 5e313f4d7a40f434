"""A result layer by layer, a line a module: what is left, what that cost; and what was left out, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cbs.figures import LayerResult
from cbs.network.eligible import module_of
from cbs.result import PruneResult
from solvers import Bounds
from solvers.summary import number, percent

COLUMNS = ("layer", "shape", "kept", "of", "sparsity", "value", "bound", "gap", "status")
NARROW = ("layer", "of", "sparsity", "gap", "status")
"""What a terminal has room for."""
SHOWN = 16
"""Lines that a terminal gets."""
REASONS = 12
"""Names that are told for one reason."""


@dataclass(frozen=True)
class Module:
    """A pruned module, all of its blocks together.

    Attributes:
        name: in the network.
        shape: of its weight.
        blocks: how many layers it is: one, or a block for every group of a convolution.
        kept: number of weights that are left.
        size: number of its weights.
        value: sum of its layers' objectives.
        bound: sum of their bounds; None if one is not known.
        status: theirs, with counts where they differ.
    """

    name: str
    shape: tuple[int, ...]
    blocks: int
    kept: int
    size: int
    value: float
    bound: float | None
    status: str

    @property
    def sparsity(self) -> float:
        """The share of its weights that is pruned."""
        return 1.0 - self.kept / self.size

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`; None where there is no bound."""
        return None if self.bound is None else Bounds(min(self.bound, self.value), self.value).gap

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line, in the order of `COLUMNS`."""
        blocks = f" ({self.blocks} blocks)" if self.blocks > 1 else ""
        return (
            f"{self.name or '(the network)'}{blocks}", "x".join(map(str, self.shape)), f"{self.kept:,}",
            f"{self.size:,}", f"{100 * self.sparsity:.1f}%", number(self.value), number(self.bound),
            percent(self.gap), self.status,
        )  # fmt: skip


def modules(result: PruneResult) -> list[Module]:
    """The pruned modules of a result, in the network's order."""
    found: dict[str, list[LayerResult]] = {}
    for layer in result.layers:
        found.setdefault(module_of(layer.name), []).append(layer)
    return [_together(name, layers) for name, layers in found.items()]


def _together(name: str, layers: Sequence[LayerResult]) -> Module:
    m, *rest = layers[0].shape
    bounds = [layer.bound for layer in layers if layer.bound is not None]
    return Module(
        name=name, shape=(m * len(layers), *rest), blocks=len(layers), kept=sum(x.kept for x in layers),
        size=sum(math.prod(x.shape) for x in layers), value=sum(x.value for x in layers),
        bound=sum(bounds) if len(bounds) == len(layers) else None,
        status=_counted(x.status for x in layers),
    )  # fmt: skip


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(word if len(counts) == 1 else f"{n} {word}" for word, n in counts.most_common())


def whole(result: PruneResult) -> tuple[int, int]:
    """How many parameters of the network are pruned, and how many there are: biases and norms count too."""
    pruned = sum(int(mask.sum()) for mask in result.masks.values())
    return pruned, sum(parameter.numel() for parameter in result.model.parameters())


def shares(result: PruneResult) -> str:
    """Sparsity of the pruned layers and of the whole network, and how much was left out, in one line."""
    found, (pruned, count) = modules(result), whole(result)
    size, kept = sum(module.size for module in found), sum(module.kept for module in found)
    layers = f"{len(found)} layers" if len(found) > 1 else "1 layer"
    left = f"; {len(result.left_out)} left out" if result.left_out else ""
    return (
        f"{100 * (1 - kept / size):.1f}% of the {size:,} weights of {layers}, "
        f"{100 * pruned / count:.1f}% of all {count:,} parameters{left}"
    )


def layer_lines(result: PruneResult) -> list[tuple[str, ...]]:
    """Heading and lines for a terminal: the first ones, and how many more there are; of `NARROW` alone."""
    columns = [COLUMNS.index(name) for name in NARROW]
    lines = [tuple(module.cells[i] for i in columns) for module in modules(result)]
    if len(lines) > SHOWN:
        more = f"... and {len(lines) - SHOWN + 1} more"
        lines = [*lines[: SHOWN - 1], (more, *[""] * (len(columns) - 1))]
    return [tuple(COLUMNS[i] for i in columns), *lines]


def layers_markdown(result: PruneResult) -> str:
    """The table of layers for a document, GitHub's Markdown, and under it what was left out."""
    lines = [COLUMNS, ("---", "---", *["---:"] * 6, "---"), *(module.cells for module in modules(result))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def left_out_markdown(result: PruneResult) -> str:
    """What holds weights and was not pruned, by reason; nothing if that is nothing."""
    reasons: dict[str, list[str]] = {}
    for name, why in result.left_out.items():
        reasons.setdefault(why, []).append(name)
    lines = []
    for why, names in reasons.items():
        shown = ", ".join(f"`{name}`" for name in names[:REASONS])
        more = f" and {len(names) - REASONS} more" if len(names) > REASONS else ""
        lines.append(f"- {shown}{more}: {why}\n")
    return "".join(lines)
