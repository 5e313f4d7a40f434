"""What is asked of a pruning, checked before any work is done."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from solvers import Budget

if TYPE_CHECKING:
    from cbs.network.layers import Layer

SCOPES = ("row", "layer", "network")
PATIENCE = 60.0
"""Seconds; see `Request`."""


@dataclass(frozen=True)
class Request:
    """A sparsity, where it is to be met, and the limits of the search.

    Attributes:
        sparsity: fraction of the weights to prune, in [0, 1); None where the budget implies it.
        scope: `row`, `layer` or `network`: each of them prunes `round(sparsity * weights)`.
        budget: `unstructured`; `N:M`, which keeps N of every M neighbours in a row (2:4), a convolution's
            being the flattened `in_channels * kh * kw`; or `columns`, which prunes whole input columns of
            every layer. The last two ignore the scope.
        solver: name of a solver of package `solvers`.
        gap: relative gap at which a search may stop.
        time_limit: seconds for the searches and bounds of one pruning, all layers together; or None.
        patience: seconds that solver `auto` may try to prove one layer (or a budget of the network) where
            there is no time limit; None for no end.
        seed: of every random choice.
        recalibrate: refit every layer on the inputs that come out of the pruned layers before it.
        certify: find a lower bound for methods that give none.
        device: torch device.

    Raises:
        ValueError: for a value outside its range, in one line.
    """

    sparsity: float | None
    scope: str = "layer"
    budget: str = "unstructured"
    solver: str = "auto"
    gap: float = 1e-4
    time_limit: float | None = None
    patience: float | None = PATIENCE
    seed: int = 0
    recalibrate: bool = False
    certify: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        from solvers.control import check_limits, is_number  # imports SciPy: `--help` need not wait

        check_name("scope", self.scope, SCOPES)
        if self.pattern is None:
            check_name("budget", self.budget, ("unstructured", "columns", "2:4"))
        if self.sparsity is None:
            if self.pattern is None:
                raise ValueError(f"sparsity must be given for budget {self.budget!r}, a number in [0, 1)")
        elif not is_number(self.sparsity) or not 0 <= self.sparsity < 1:
            percent = is_number(self.sparsity) and 1 < self.sparsity < 100
            meant = f"; {self.sparsity:g}% is {self.sparsity / 100:g}" if percent else ""
            raise ValueError(f"sparsity must lie in [0, 1), got {self.sparsity!r}{meant}")
        elif self.pattern is not None and abs(self.sparsity - self.fraction) > 1e-9:
            raise ValueError(
                f"sparsity {self.sparsity:g} disagrees with budget {self.budget!r}, which prunes "
                f"{self.fraction:g}; give that, or no sparsity"
            )
        check_limits(self.time_limit, self.gap, self.seed)
        if self.patience is not None and not (is_number(self.patience) and self.patience > 0):
            raise ValueError(f"patience must be positive seconds or None, got {self.patience!r}")

    @cached_property
    def pattern(self) -> tuple[int, int] | None:
        """(N, M) of an `N:M` budget, or None."""
        match = re.fullmatch(r"(\d+):(\d+)", str(self.budget))
        if match is None:
            return None
        keep, of = int(match[1]), int(match[2])
        if not 1 <= keep <= of:
            raise ValueError(f"budget {self.budget!r} must keep between 1 and {of} of every {of} weights")
        return keep, of

    @property
    def fraction(self) -> float:
        """The sparsity asked for, or implied by the pattern."""
        if self.pattern is not None:
            keep, of = self.pattern
            return 1 - keep / of
        assert self.sparsity is not None
        return float(self.sparsity)

    @property
    def pooled(self) -> bool:
        """Whether all layers share one budget."""
        return self.scope == "network" and self.budget == "unstructured"

    def network_count(self, layers: Iterable[Layer]) -> int:
        """Number of weights to prune when all layers share one budget."""
        return round(self.fraction * sum(layer.size for layer in layers))

    def layer_budget(self, layer: Layer) -> Budget:
        """The budget of one layer, for every budget that is not shared by the layers.

        Raises:
            ValueError: if `M` does not divide the layer's inputs.
        """
        m, n = layer.shape
        if self.pattern is not None:
            keep, of = self.pattern
            if n % of:
                raise ValueError(
                    f"budget {self.budget!r}: {of} does not divide the {n} inputs of layer {layer.name!r}"
                    f"{' (in_channels * kh * kw)' * (layer.module.weight.ndim > 2)}; "
                    "leave it out with `layers`"
                )
            return Budget.n_of_m(keep, of)
        if self.budget == "columns":
            return Budget.columns(round(self.fraction * n))
        if self.scope == "row":
            return Budget.per_row(round(self.fraction * n))
        return Budget.per_layer(round(self.fraction * m * n))


def check_name(kind: str, name: str, known: Sequence[str]) -> None:
    """Raise ValueError, with the nearest known name, unless `name` is one of `known`."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {kind} {name!r}; {hint}")
