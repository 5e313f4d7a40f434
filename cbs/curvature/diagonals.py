"""Optimal Brain Damage: diagonals of the loss's second derivatives, and what stands in for them.

Weight q of value `w_q` is taken to cost `1/2 h_q w_q^2` when it goes. The values here differ in what `h` is;
what computes it is in the modules beside this one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cbs.curvature.base import Curvature, check_whole

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from cbs.request import Request
    from solvers.hessian import Array


class _Diagonal(Curvature):
    """A number `h` for every weight."""

    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    coupled: ClassVar[bool] = False

    @abstractmethod
    def values(self, network: Network) -> list[Array]:
        """Every layer's `h [m, n]`."""

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.diagonal import diagonal_quadratics

        return diagonal_quadratics(network, self.values(network))

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return f"1/2 sum_P h w^2, h the {self.words}"


def _negative(curvature: Curvature, network: Network) -> dict[str, Any]:
    """How many entries are negative, where there are any: such weights are the first to go."""
    count = sum(int((model.diagonal < 0).sum()) for model in network(curvature))
    return {"negative_curvatures": count} if count else {}


@dataclass(frozen=True)
class RecursionDiagonal(_Diagonal):
    """Optimal Brain Damage's own second derivatives: one backward pass, unit by unit (LeCun et al. 1990).

    For the pre-activation `a_i` of a unit with output `x_i = f(a_i)`, which feeds the units l by weights
    `w_li`,

        d2E/da_i^2 = f'(a_i)^2 sum_l w_li^2 d2E/da_l^2 + f''(a_i) dE/dx_i,    d2E/dw_ij^2 = d2E/da_i^2 x_j^2

    summed over the places of a shared weight and averaged over the samples. Units of a layer are taken not to
    interact, which makes it exact for the last layer, and below it wherever each unit feeds one other.

    With the `f''` terms an `h` can be negative. Its saliency is then negative too, and it is pruned before
    any other: by the model the loss falls. How many there are is in the result's stats,
    `negative_curvatures`.

    Attributes:
        second: with the terms in f''; without them it is the Levenberg-Marquardt form, which is never
        negative.
    """

    second: bool = True

    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets", "modules with rules")
    embeds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.second, bool):
            raise ValueError(f"second must be True or False, got {self.second!r}")

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"diagonal by backward recursion{'' if self.second else ', Levenberg-Marquardt'}"

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: a module that has no rule."""
        from cbs.curvature.backward_recursion import why_not

        return why_not(network)

    def values(self, network: Network) -> list[Array]:
        """See `_Diagonal.values`."""
        from cbs.curvature.backward_recursion import network_recursion

        return network_recursion(network, self.second)

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`."""
        return _negative(self, network)


@dataclass(frozen=True)
class HessianDiagonal(_Diagonal):
    """The exact diagonal of the loss's Hessian, for small networks.

    A weight acts through its unit's pre-activations alone: of a `Linear` layer `d2E/dw_ij^2 = x_j^2
    d2E/da_i^2` holds without approximation, a Hessian product for each unit; a convolution takes one for each
    unit and place, or for each weight if they are fewer. Negative entries are what they are, see
    `RecursionDiagonal`.
    """

    words: ClassVar[str] = "exact Hessian diagonal"
    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets", "a small network")
    embeds: ClassVar[bool] = False

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: too many Hessian products."""
        from cbs.curvature.hessian_diagonal import too_many

        return too_many(network)

    def values(self, network: Network) -> list[Array]:
        """See `_Diagonal.values`."""
        from cbs.curvature.hessian_diagonal import network_hessian_diagonal

        return network_hessian_diagonal(network)

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`."""
        return _negative(self, network)


@dataclass(frozen=True)
class Hutchinson(_Diagonal):
    """Hutchinson's estimate of the Hessian's diagonal, `E[z * Hz]` over random signs `z` (Bekas et al. 2007).

    One Hessian product a probe, whatever the size of the network. The result's stats have the estimate's
    `standard_error`, relative: the root mean square of the entries' standard errors over that of the entries.

    Attributes:
        probes: how many; at least 2.
        seed: of the signs.
    """

    probes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("probes", 2), ("seed", 0)):
            check_whole(name, getattr(self, name), least)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"Hessian diagonal by Hutchinson, {self.probes} probes, seed {self.seed}"

    def values(self, network: Network) -> list[Array]:
        """See `_Diagonal.values`."""
        from cbs.curvature.hessian_diagonal import hutchinson_estimate

        return hutchinson_estimate(network, self.probes, self.seed)[0]

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`."""
        from cbs.curvature.hessian_diagonal import hutchinson_estimate

        estimate, errors = hutchinson_estimate(network, self.probes, self.seed)
        size, error = (sum(float((part**2).sum()) for part in parts) for parts in (estimate, errors))
        relative = {"standard_error": (error / size) ** 0.5} if size else {}
        return {"probes": self.probes, **relative, **_negative(self, network)}


@dataclass(frozen=True)
class FisherDiagonal(_Diagonal):
    """Squared first derivatives for second ones: `h = 1/N sum_s g_s^2`, the empirical Fisher's diagonal.

    This project's first reading of OBD-SD (Harang & Sanders 2023), whose formula its abstract does not give.
    """

    words: ClassVar[str] = "empirical Fisher diagonal"

    def values(self, network: Network) -> list[Array]:
        """See `_Diagonal.values`."""
        from cbs.curvature.moments import fisher_diagonal

        return fisher_diagonal(network)

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`."""
        return {"gradient_samples": min(network.gradients, len(network.samples))}


@dataclass(frozen=True)
class GaussNewtonSpread(_Diagonal):
    """The standard deviation over samples of a weight's own Gauss-Newton diagonal `h_s`.

    `1/2 h w^2` is then the standard deviation of the per-sample damage `1/2 h_s w^2`: this project's second
    reading of OBD-SD (Harang & Sanders 2023), whose formula its abstract does not give. It is no model of the
    loss, and predicts none.
    """

    words: ClassVar[str] = "spread of the Gauss-Newton diagonal"

    def unfit(self, network: Network) -> str | None:
        """See `Curvature.unfit`: a single sample."""
        if len(network.samples) > 1:
            return None
        return "takes a spread over samples, of which there is 1; give 2 or more, or take method 'obd'"

    def values(self, network: Network) -> list[Array]:
        """See `_Diagonal.values`."""
        from cbs.curvature.moments import gauss_newton_spread

        return gauss_newton_spread(network)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`: none."""
        return None
