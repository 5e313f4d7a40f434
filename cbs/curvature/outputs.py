"""Curvatures of the network's outputs instead of its loss: how far the outputs move, squared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cbs.curvature.base import Curvature, check_damping, own_words

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from cbs.request import Request

OUTPUTS = "1/2 E|dy|^2, y the network's outputs, to first order in the moves of each row"


@dataclass(frozen=True)
class OutputGram(Curvature):
    """How far the network's outputs move, squared, when a row's weights and bias do: a matrix a row.

    `H_i = E sum_k J_ki J_ki'`, `J_ki` the derivative of output k by the weights and the bias of row i. Where
    a row has one position a sample that is the layer Gram weighted by how much the outputs see of the row,
    `H_i = E[omega_i z z']`, `omega_i = sum_k (dy_k/da_i)^2` (Ballini et al. 2026). Outputs, not the loss: no
    targets are needed, and objectives of all layers are in one unit.

    Attributes:
        damping: added to the diagonal of the weights' part, relative to its mean in every row; None for the
            request's.
    """

    damping: float | None = None

    requires: ClassVar[tuple[str, ...]] = ("inputs",)
    biased: ClassVar[bool] = True
    embeds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_damping(self.damping)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"Gram of the outputs' derivatives, a matrix a row{own_words(self.damping)}"

    def damped(self, damping: float) -> OutputGram:
        """See `Curvature.damped`."""
        return self if self.damping is not None else replace(self, damping=damping)

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: too many outputs."""
        from cbs.curvature.output_gram import too_many

        return too_many(network)

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.output_gram import output_quadratics

        assert self.damping is not None
        return output_quadratics(network, self.damping)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return OUTPUTS


@dataclass(frozen=True)
class OutputDiagonal(Curvature):
    """`OutputGram` weight by weight, each with its own bias: `[[H_jj, H_jb], [H_bj, H_bb]]` of every row.

    Eliminating the bias leaves `E[omega] Var_omega(z_j)` of a weight whose input is `z_j`; weights do not
    interact. Two products of matrices a layer, where a row has one position a sample.
    """

    words: ClassVar[str] = "Gram of the outputs' derivatives, diagonal with the bias"
    requires: ClassVar[tuple[str, ...]] = ("inputs",)
    coupled: ClassVar[bool] = False
    biased: ClassVar[bool] = True
    embeds: ClassVar[bool] = False

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: too many outputs."""
        from cbs.curvature.output_gram import too_many

        return too_many(network)

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.output_gram import output_diagonals

        return output_diagonals(network)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return f"{OUTPUTS}, weights apart"
