"""Curvature matrices that curvlinops multiplies with, written out for small networks, and Kronecker factors.

`GGN`, `Hessian` and `MonteCarloFisher` are dense matrices of all weights, or a block a layer; `Kronecker` is
a product of two small ones a layer. What is exact and never formed is `cbs.GaussNewton` and `cbs.Fisher`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from cbs.curvature.base import Curvature, PerSample, check_damping, check_whole

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from cbs.request import Request


@dataclass(frozen=True)
class _Operator(PerSample):
    """A matrix that is known by its products: written out, and kept as a factor of its positive part."""

    needs: ClassVar[tuple[str, ...]] = ("curvlinops",)

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: too many weights, or a loss without labels to draw."""
        from cbs.curvature.linear_operators import too_large

        return too_large(network, self)

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.linear_operators import operator_quadratics

        return operator_quadratics(network, self)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        whole = self.whole and len(network.layers) > 1
        return f"1/2 D' H D, H the {self.called} of {'the network' if whole else 'each layer'}"

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`: eigenvalues that were negative and are left out, beyond rounding."""
        from cbs.curvature.linear_operators import repairs

        return {**super().stats(network), **repairs(network, self)}


@dataclass(frozen=True)
class GGN(_Operator):
    """The generalized Gauss-Newton matrix by curvlinops; `cbs.GaussNewton` is the same and is never formed.

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's.
        apart: keep layers apart even where they share one budget.
    """

    called: ClassVar[str] = "dense Gauss-Newton"


@dataclass(frozen=True)
class Hessian(_Operator):
    """The Hessian of the loss by curvlinops: of a network that is not at a minimum it is indefinite.

    Its negative eigenvalues are left out, which makes it the nearest positive semidefinite matrix; how many
    they are, and their part of the sum of all sizes, is in the result's stats: `negative_eigenvalues` and
    `negative_share`.

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's.
        apart: keep layers apart even where they share one budget.
    """

    called: ClassVar[str] = "dense Hessian"


@dataclass(frozen=True)
class MonteCarloFisher(_Operator):
    """The Fisher information by curvlinops: outer products of gradients for labels that the network draws.

    Its expectation is the Gauss-Newton matrix of the cross entropy (Kunstner et al. 2019).

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's.
        apart: keep layers apart even where they share one budget.
        labels: drawn for every sample; at least 1.
        seed: of the draw.
    """

    labels: int = 1
    seed: int = 0

    called: ClassVar[str] = "Monte-Carlo Fisher"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("labels", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"{super().words}, {self.labels} labels a sample, seed {self.seed}"


@dataclass(frozen=True)
class Kronecker(Curvature):
    """Kronecker factors of a layer's Gauss-Newton block, `B x A` (Martens & Grosse 2015), by curvlinops.

    `A = E[x x'] [n, n]` is of the layer's inputs, over samples and places; `B [m, m]` of the gradients by its
    outputs, summed over places and with expected labels, not those of the data. Row r is taken for itself,
    with the curvature `B_rr A`; or, for small layers, all weights of a layer are one model, with `B x A`
    written out.

    Attributes:
        damping: added to the diagonal, relative to its mean over the layer; None for the request's.
        joined: whether the rows of a layer are one model.
    """

    damping: float | None = None
    joined: bool = False

    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    needs: ClassVar[tuple[str, ...]] = ("curvlinops",)

    def __post_init__(self) -> None:
        check_damping(self.damping)
        if not isinstance(self.joined, bool):
            raise ValueError(f"joined must be True or False, got {self.joined!r}")

    @property
    def flat(self) -> bool:  # type: ignore[override]
        """See `Curvature.flat`."""
        return self.joined

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        rows = "a layer" if self.joined else "a row"
        own = "" if self.damping is None else f", damping {self.damping:g}"
        return f"Kronecker factors, {rows}{own}"

    def damped(self, damping: float) -> Kronecker:
        """See `Curvature.damped`."""
        return self if self.damping is not None else replace(self, damping=damping)

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: too many weights, or a loss that the factors are not known for."""
        from cbs.curvature.linear_operators import no_factors

        return no_factors(network, self)

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.linear_operators import kronecker_quadratics

        return kronecker_quadratics(network, self)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return f"1/2 D' (B x A) D, {'' if self.joined else 'of B its diagonal, '}of each layer"
