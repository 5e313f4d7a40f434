"""The first axis of a method: what it knows of the loss, from nothing at all to the whole network's Fisher.

A curvature is a small frozen value. `network(curvature)` computes its quadratic models once and keeps them by
that value; the computing is in the modules beside this one, which import PyTorch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from torch import nn

    from cbs.network.network import Network
    from cbs.quadratic import Quadratic
    from cbs.request import Request


class Curvature(ABC):
    """What a method knows of the loss. Subclasses are frozen dataclasses without data."""

    words: ClassVar[str]
    """In the table of methods, and in a report: what tells it from others of its class is part of it."""
    requires: ClassVar[tuple[str, ...]] = ()
    """What it needs of data and network, a word or two each, for the table of methods."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Modules that must be installed beyond the project's own dependencies."""
    coupled: ClassVar[bool] = True
    """Whether weights interact, so that there is something to solve, and an inverse."""
    flat: ClassVar[bool] = False
    """Whether a model lays its layers' weights out in a single row."""
    scaled: ClassVar[bool] = False
    """Whether layers are only comparable once each row is scaled by `E[(dL/da_r)^2]`."""
    biased: ClassVar[bool] = False
    """Whether a layer's bias, where it has one that may move, is part of its model."""

    embeds: ClassVar[bool] = True
    """Whether it can be had of an Embedding, whose inputs are tokens."""

    @property
    def whole(self) -> bool:
        """Whether all layers are one model."""
        return False

    def within(self, request: Request) -> Curvature:
        """This curvature for a request, whose scope may decide which layers are one model."""
        return self

    def damped(self, damping: float) -> Curvature:
        """This curvature with a damping where it has none of its own."""
        return self

    def unfit(self, network: Network) -> str | None:
        """What it would take of a network that the network has not, and what to do instead; or None."""
        return None

    @abstractmethod
    def quadratics(self, network: Network) -> Sequence[Quadratic]:
        """A model of every layer in the network's order, or one of the whole network."""

    def toward(self, network: Network) -> Sequence[Quadratic]:
        """The models of `quadratics`, drawn toward the outputs of `network.reference`.

        By default they are as they are: not every curvature has a gradient to go with it.
        """
        return network(self)

    def prediction(self, network: Network, request: Request) -> str | None:
        """The model, in words, by which the loss increase is predicted, undamped; None if it is not."""
        return None

    def stats(self, network: Network) -> Mapping[str, Any]:
        """What a result tells of the models."""
        return {}


class LayerCurvature(Curvature):
    """A curvature of single layers, with models too of those whose inputs have changed by pruning others."""

    @abstractmethod
    def paired(self, network: Network, index: int, pruned: nn.Module) -> Quadratic:
        """A layer's model on the inputs that it has in a pruned network, drawn to its dense outputs.

        Args:
            network: the dense network.
            index: place of the layer.
            pruned: a copy of the network, partly pruned.
        """


def check_damping(damping: object) -> None:
    """Raise ValueError for a curvature's own damping that is neither None nor finite and not negative."""
    number = isinstance(damping, Real) and not isinstance(damping, bool)
    if damping is not None and not (number and 0 <= damping < float("inf")):  # type: ignore[operator]
        raise ValueError(f"damping must be a finite number >= 0, or None for the request's, got {damping!r}")


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ValueError for a field that is no whole number, or less than it may be."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:  # type: ignore[operator]
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def own_words(damping: float | None) -> str:
    """What a curvature with a damping of its own says of it."""
    return "" if damping is None else f", damping {damping:g}"


@dataclass(frozen=True)
class Identity(Curvature):
    """Every weight matters alike."""

    words: ClassVar[str] = "identity"
    coupled: ClassVar[bool] = False

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        import numpy as np

        from cbs.curvature.diagonal import diagonal_quadratics

        return diagonal_quadratics(network, [np.broadcast_to(1.0, dense.W.shape) for dense in network.dense])


@dataclass(frozen=True)
class Gram(LayerCurvature):
    """The layer's input second moments, `H = E[x x']`: how much its output moves, squared, when weights do.

    The bias moves with the survivors. With scope `network` each row counts by its scale `E[(dL/da_r)^2]`.

    Attributes:
        damping: added to the diagonal of the weights' part, relative to its mean; None for the request's.
    """

    damping: float | None = None

    requires: ClassVar[tuple[str, ...]] = ("inputs",)
    scaled: ClassVar[bool] = True
    biased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_damping(self.damping)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"layer Gram{own_words(self.damping)}"

    def damped(self, damping: float) -> Gram:
        """See `Curvature.damped`."""
        return self if self.damping is not None else replace(self, damping=damping)

    def quadratics(self, network: Network) -> Sequence[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.gram import gram_quadratics

        assert self.damping is not None
        return gram_quadratics(network, self.damping)

    def paired(self, network: Network, index: int, pruned: nn.Module) -> Quadratic:
        """See `LayerCurvature.paired`."""
        from cbs.curvature.paired import paired_quadratic

        assert self.damping is not None
        return paired_quadratic(network, index, pruned, self.damping)

    def toward(self, network: Network) -> Sequence[Quadratic]:
        """See `Curvature.toward`: `1/2 E|V z - W x|^2`, W and x of the dense layer, z in this network.

        Not of a network that was refitted as a whole: its layers have other outputs than the dense ones, and
        that is what made it better.
        """
        from cbs.curvature.toward import drawn_to_outputs

        assert network.reference is not None
        models = network(self)
        return models if network.reference.refitted else drawn_to_outputs(network, models)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`: the row scales, which it takes, are a pass of their own."""
        return "1/2 sum_r E[(dL/da_r)^2] D_r H D_r', H the layer Gram" if request.pooled else None


@dataclass(frozen=True)
class GaussNewtonDiagonal(Curvature):
    """The diagonal of the generalized Gauss-Newton matrix: OBD's second derivatives (LeCun et al. 1990)."""

    words: ClassVar[str] = "Gauss-Newton diagonal"
    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    coupled: ClassVar[bool] = False

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.diagonal import diagonal_quadratics, network_diagonal

        return diagonal_quadratics(network, network_diagonal(network))

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        return "1/2 sum_P h w^2, h the Gauss-Newton diagonal"


@dataclass(frozen=True)
class PerSample(Curvature):
    """A curvature of rows, one or more a sample: a factor that is never formed. Biases have no part in it.

    Layers are models of their own, or one model where they share one budget.

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's.
        apart: keep layers apart even where they share one budget.
    """

    damping: float | None = None
    apart: bool = False

    called: ClassVar[str]
    """The matrix."""
    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    flat: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_damping(self.damping)

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Curvature.words`."""
        return f"{self.called}{', a block a layer' if self.apart else ''}{own_words(self.damping)}"

    @property
    def whole(self) -> bool:
        """See `Curvature.whole`."""
        return not self.apart

    def within(self, request: Request) -> Self:
        """See `Curvature.within`."""
        return self if request.pooled else replace(self, apart=True)

    def damped(self, damping: float) -> Self:
        """See `Curvature.damped`."""
        return self if self.damping is not None else replace(self, damping=damping)

    def stats(self, network: Network) -> Mapping[str, Any]:
        """See `Curvature.stats`."""
        return {"gradient_samples": min(network.gradients, len(network.samples))}


@dataclass(frozen=True)
class Fisher(PerSample):
    """The empirical Fisher `F = 1/N sum_s g_s g_s'` of per-sample gradients, a factor that is never formed.

    Layers are models of their own, or one model where they share one budget. Biases have no part in it.

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's.
        apart: keep layers apart even where they share one budget.
    """

    called: ClassVar[str] = "empirical Fisher"

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.fisher import fisher_quadratics

        return fisher_quadratics(network, self)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        whole = self.whole and len(network.layers) > 1
        return f"1/2 D' F D, F the empirical Fisher of {'the network' if whole else 'each layer'}"


@dataclass(frozen=True)
class GaussNewton(PerSample):
    """The generalized Gauss-Newton matrix `H = 1/N sum_s J_s' B_s J_s`, OBS's curvature, never formed.

    `J_s` are the derivatives of the outputs of sample s by the weights, `B_s = d2L/do2`: one row for every
    sample and output, of the squared error `dF/dw` (Hassibi & Stork 1992), of the cross entropy scaled by
    its second derivative (Hassibi et al. 1994). Of a convex loss it is the Hessian without the curvature of
    the network itself, which vanishes where the errors do.

    Attributes:
        damping: added to the diagonal, relative to its mean over the model; None for the request's. In the
            papers' recursion over samples (Hassibi & Stork 1992, equation 16) it is alpha.
        apart: keep layers apart even where they share one budget.
    """

    called: ClassVar[str] = "Gauss-Newton"

    def quadratics(self, network: Network) -> list[Quadratic]:
        """See `Curvature.quadratics`."""
        from cbs.curvature.gauss_newton import gauss_newton_quadratics

        return gauss_newton_quadratics(network, self)

    def toward(self, network: Network) -> Sequence[Quadratic]:
        """See `Curvature.toward`: with the mean gradient of the divergence of the network's outputs."""
        from cbs.curvature.toward import drawn_by_divergence

        assert network.reference is not None
        models = network(self)
        return models if network.reference.divergence is None else drawn_by_divergence(network, models)

    def prediction(self, network: Network, request: Request) -> str | None:
        """See `Curvature.prediction`."""
        whole = self.whole and len(network.layers) > 1
        return f"1/2 D' H D, H the Gauss-Newton matrix of {'the network' if whole else 'each layer'}"
