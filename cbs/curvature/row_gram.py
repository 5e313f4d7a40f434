"""The layer Gram with a weight for every sample and row: a matrix a row, in units of the network's loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

from cbs.curvature.base import LayerCurvature, check_damping, check_whole, own_words
from cbs.names import check_name

if TYPE_CHECKING:
    from torch import nn

    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from cbs.request import Request

OMEGAS = ("gauss-newton", "gradient", "outputs")


@dataclass(frozen=True)
class RowGram(LayerCurvature):
    """How much the network's loss moves when a row's weights do: `H_r = E sum_positions omega_r x x'`.

    `omega_r` says how much the loss sees of the row's output `a_r` at a sample and position, in the dense
    network; the scales `E[omega_r]` that `Gram` gives rows are the case where omega and x are independent. So
    objectives of all rows are in one unit, and need no scales. Of a row of one position a sample it is the
    row's own block of the matrix that omega is named after, to the digit. Where weights are shared by
    positions, as in a convolution, products of different positions' derivatives, which would be part of that
    block, are left out: `OutputGram` has them.

    Attributes:
        omega: `gauss-newton`, `sum_kl (do_k/da_r) B_kl (do_l/da_r)` with B the curvature by the outputs of
            their divergence from the dense ones, of classes `diag(p) - p p'`: no labels are needed, unless
            what the outputs are does not follow from the loss; `gradient`, `(dL/da_r)^2`, as the empirical
            Fisher has it; or `outputs`, `sum_k (do_k/da_r)^2`.
        share: in [0, 1], of every weight that follows the sample: `share omega_r + (1 - share) E[omega_r]` is
            taken. At 1 a sample of which the loss sees nothing, being sure of it, may be moved at will, which
            holds for small moves only; at 0 `H_r = E[omega_r] E[x x']`, row scales of the plain Gram.
        groups: how many kinds of weights a layer's rows have at most, by k-means of `omega_r / E[omega_r]`:
            rows of a kind share correlations, that is `H_r = S_r R S_r` with the row's own exact diagonal
            `S_r^2`. None for a matrix of its own for every row, which takes a product of matrices each.
        damping: added to the diagonal of the weights' part, relative to its mean in every row; None for the
            request's.
    """

    omega: str = "gauss-newton"
    share: float = 1.0
    groups: int | None = None
    damping: float | None = None

    biased: ClassVar[bool] = True
    embeds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_name("omega", self.omega, OMEGAS)
        number = isinstance(self.share, Real) and not isinstance(self.share, bool)
        if not (number and 0 <= self.share <= 1):
            raise ValueError(f"share must be a number in [0, 1], got {self.share!r}")
        if self.groups is not None:
            check_whole("groups", self.groups, 1)
        check_damping(self.damping)

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Curvature.requires`."""
        return ("inputs", "targets") if self.omega == "gradient" else ("inputs",)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        kinds = "a matrix a row" if self.groups is None else f"correlations of {self.groups} kinds of rows"
        part = "" if self.share == 1 else f", {self.share:g} of it"
        return f"layer Gram weighted by the {self.omega}{part}, {kinds}{own_words(self.damping)}"

    def damped(self, damping: float) -> RowGram:
        """See `Curvature.damped`."""
        return self if self.damping is not None else replace(self, damping=damping)

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.weighted import weighted_quadratics

        return weighted_quadratics(network, self)

    def paired(self, network: Network, index: int, pruned: nn.Module) -> Quadratic:
        """See `LayerCurvature.paired`: `1/2 E omega_r (V_r z - W_r x)^2` of every row."""
        from cbs.curvature.weighted import paired_weighted_quadratic

        return paired_weighted_quadratic(network, index, pruned, self)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return "1/2 sum_r D_r H_r D_r', H_r the row's weighted Gram"
