"""What is matched: the divergence of a network's outputs from the dense ones, or the loss on labels.

Every one of them is a sum over samples of a function of a sample's outputs `o` with a gradient and a positive
semidefinite curvature `B = R R'` by them, which is what a Gauss-Newton step needs: `B` is the Hessian of the
divergence by the outputs, and of the Kullback-Leibler divergence also the Fisher information (Martens 2014,
"New insights and perspectives on the natural gradient method", section 6).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn import functional as F

from cbs.network.distance import OutputDistance
from cbs.network.everything import WholeLoss
from cbs.network.losses import Loss, counted, gradient, sample_losses, single_loss
from cbs.network.tokens import TOKENS, next_token_cross_entropy, token_cross_entropy

DENSE = 128
"""Most outputs of a sample of which a loss's Hessian is written out."""
UNIT = 1e-2
"""How far from 1 log-probabilities may sum up to."""


class Divergence(ABC):
    """A function of a network's outputs `o [N, ...]` and of what is known of each sample, `known [N, ...]`.

    Attributes:
        words: what it is.
        dense: whether `known` are the dense network's outputs; else the targets.
    """

    words: ClassVar[str]
    dense: ClassVar[bool] = True

    @abstractmethod
    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """`[N]` of every sample, in double precision."""

    @abstractmethod
    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """Of every sample by its outputs, of the outputs' shape."""

    @abstractmethod
    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """`B v` of every sample, of the outputs' shape."""

    @abstractmethod
    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """`R z` of every sample, of the outputs' shape; `R R' = B`."""

    def columns(self, o: Tensor, known: Tensor) -> Tensor:
        """All columns of `R`, `[k, N, ...]` for k outputs a sample."""
        k = o[0].numel()
        units = torch.eye(k, dtype=o.dtype, device=o.device).reshape(k, 1, *o.shape[1:])
        return torch.stack([self.rooted(o, known, unit.expand_as(o)) for unit in units])


class _Softmax(Divergence):
    """Of class probabilities `q = softmax(o)` over dimension 1: `B = diag(q) - q q'` at every position.

    The positions of a sample (pixels, places of a sequence) count as `weights` says; their sum is 1.
    """

    @abstractmethod
    def weights(self, o: Tensor, known: Tensor) -> Tensor | float:
        """How much every position counts, `[N, 1, ...]`, or all of them."""

    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """See `Divergence`."""
        q = o.softmax(dim=1)
        return self.weights(o, known) * q * (v - (q * v).sum(dim=1, keepdim=True))

    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """See `Divergence`: `R = diag(s) - q s'`, `s = sqrt(q)`."""
        q = o.softmax(dim=1)
        s, weights = q.sqrt(), self.weights(o, known)
        scale = weights.sqrt() if isinstance(weights, Tensor) else weights**0.5
        return scale * (s * z - q * (s * z).sum(dim=1, keepdim=True))


class Probabilities(_Softmax):
    """`KL(p || q) = sum_c p_c log(p_c / q_c)`, `p` and `q` the softmax of dense and present outputs.

    Outputs are logits or log-probabilities `[N, classes, ...]`; of several positions it is the mean.
    """

    words = "KL(p_dense || p) of the classes"

    def weights(self, o: Tensor, known: Tensor) -> float:
        """See `_Softmax`."""
        return o.shape[0] * o.shape[1] / o.numel()

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        logs, dense = o.double().log_softmax(dim=1), known.double().log_softmax(dim=1)
        parts = torch.where(dense.exp() > 0, dense.exp() * (dense - logs), 0.0)  # 0 log 0 = 0
        return parts.sum(dim=1).reshape(len(o), -1).mean(dim=1)

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`: `q - p`."""
        return self.weights(o, known) * (o.softmax(dim=1) - known.softmax(dim=1))


class Places(Divergence):
    """A divergence of classes in dimension 1, of outputs `[N, T, classes]` as of tokens.

    Args:
        inner: of outputs `[N, classes, T]`.
    """

    def __init__(self, inner: Divergence) -> None:
        self.inner = inner
        self.words = inner.words  # type: ignore[misc]

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return self.inner.values(o.movedim(-1, 1), known.movedim(-1, 1))

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return self.inner.gradient(o.movedim(-1, 1), known.movedim(-1, 1)).movedim(1, -1)

    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """See `Divergence`."""
        o, known, v = (values.movedim(-1, 1) for values in (o, known, v))
        return self.inner.product(o, known, v).movedim(1, -1)

    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """See `Divergence`."""
        o, known, z = (values.movedim(-1, 1) for values in (o, known, z))
        return self.inner.rooted(o, known, z).movedim(1, -1)


class Bernoullis(Divergence):
    """`sum_c KL(sigmoid(dense_c) || sigmoid(o_c))`: every output is the logit of a label of its own."""

    words = "KL(p_dense || p) of every label"

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        a, b = known.double(), o.double()
        p = a.sigmoid()
        parts = p * (F.logsigmoid(a) - F.logsigmoid(b)) + (1 - p) * (F.logsigmoid(-a) - F.logsigmoid(-b))
        return parts.reshape(len(o), -1).sum(dim=1)

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return o.sigmoid() - known.sigmoid()

    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """See `Divergence`."""
        q = o.sigmoid()
        return q * (1 - q) * v

    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """See `Divergence`."""
        q = o.sigmoid()
        return (q * (1 - q)).sqrt() * z


class Squares(Divergence):
    """`1/2 |o - dense|^2`, summed over a sample's outputs."""

    words = "half the squared distance of the outputs"

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return 0.5 * (o.double() - known.double()).square().reshape(len(o), -1).sum(dim=1)

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return o - known

    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """See `Divergence`."""
        return v

    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """See `Divergence`."""
        return z


class Classes(_Softmax):
    """The cross entropy of class labels, or of target probabilities, as `F.cross_entropy` has it.

    Args:
        loss: it, or `F.nll_loss`, of which the Gauss-Newton matrix is the same.
    """

    words = "the loss on labels"
    dense = False

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def weights(self, o: Tensor, known: Tensor) -> Tensor:
        """See `_Softmax`: labels that are ignored count for nothing."""
        if known.is_floating_point():
            counts = torch.ones_like(o[:, :1])
        else:
            counts = counted(self.loss, o, known).unsqueeze(1).to(o.dtype)
        total = counts.reshape(len(o), -1).sum(dim=1).clamp(min=1)
        return counts / total.reshape(-1, *[1] * (o.ndim - 1))

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return sample_losses(self.loss, o, known).double()

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return _slope(self.loss, o, known)


class Labels(Divergence):
    """Any loss on its targets.

    Negative curvature by the outputs, of which convex losses have none, is left out.

    Args:
        loss: of outputs and targets.
    """

    words = "the loss on labels"
    dense = False

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def values(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return sample_losses(self.loss, o, known).double()

    def gradient(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        return _slope(self.loss, o, known)

    def roots(self, o: Tensor, known: Tensor) -> Tensor:
        """`R [N, k, k]` of every sample."""

        def whole(flat: Tensor, y: Tensor) -> Tensor:
            return single_loss(self.loss, flat.reshape(1, *o.shape[1:]), y[None])

        with torch.enable_grad():
            H = torch.func.vmap(jacrev(jacrev(whole)))(o.reshape(len(o), -1), known)
        values, vectors = torch.linalg.eigh(H.detach())
        R: Tensor = vectors * values.clamp(min=0).sqrt()[:, None, :]
        return R

    def product(self, o: Tensor, known: Tensor, v: Tensor) -> Tensor:
        """See `Divergence`."""
        R = self.roots(o, known)
        return (R @ (R.mT @ v.reshape(len(o), -1, 1))).reshape(o.shape)

    def rooted(self, o: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """See `Divergence`."""
        return (self.roots(o, known) @ z.reshape(len(o), -1, 1)).reshape(o.shape)

    def columns(self, o: Tensor, known: Tensor) -> Tensor:
        """See `Divergence`."""
        R = self.roots(o, known)
        return R.permute(2, 0, 1).reshape(-1, *o.shape)


def choose(loss: Loss, match: str | None, labels: bool, outputs: Tensor, targets: Any) -> Divergence:
    """The divergence that goes with a loss, or that is asked for.

    Args:
        loss: of the network.
        match: `probabilities`, `outputs`, or None for what goes with the loss.
        labels: take the loss on the targets instead.
        outputs: of the dense network, for some samples.
        targets: of these.

    Raises:
        ValueError: in one line, for a loss that says nothing of the outputs, outputs that are no
            probabilities, or a loss without curvature.
    """
    kind = _function(loss)
    if labels:
        return _of_labels(loss, outputs, targets)
    if match is None:
        match = MATCH.get(kind)
        if match is None:
            raise ValueError(
                f"match must be given for loss {_name(loss)}, of which it is not known what its outputs are: "
                "'probabilities' (logits of classes), 'outputs' (numbers, by squared distance), or "
                "labels=True to minimise the loss on the labels"
            )
    if match == "outputs":
        return Squares()
    if isinstance(loss, WholeLoss) and loss.several:
        raise ValueError(
            "match 'probabilities' is of one output, but the loss sees several; name it with output="
        )
    if kind in TOKENS.values():
        return Places(Probabilities())
    if kind is F.binary_cross_entropy_with_logits:
        return Bernoullis()
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise ValueError(
            "match 'probabilities' takes outputs [N, classes, ...] of two classes or more, but the network's "
            f"are {list(outputs.shape)}; give match='outputs', or loss 'binary_cross_entropy_with_logits' if "
            "they are logits of single labels"
        )
    if kind is F.nll_loss:
        sums = outputs.double().logsumexp(dim=1).abs()
        if not float(sums.max()) <= UNIT:
            raise ValueError(
                "loss nll_loss takes log-probabilities, but the network's outputs are none: the logarithm of "
                f"their sum reaches {float(sums.max()):.3g}, not 0; give loss 'cross_entropy' for logits"
            )
    return Probabilities()


MATCH: dict[Callable[..., Any], str] = {
    F.cross_entropy: "probabilities",
    F.nll_loss: "probabilities",
    F.binary_cross_entropy_with_logits: "probabilities",
    token_cross_entropy: "probabilities",
    next_token_cross_entropy: "probabilities",
    OutputDistance: "outputs",
    F.mse_loss: "outputs",
    F.l1_loss: "outputs",
    F.smooth_l1_loss: "outputs",
    F.huber_loss: "outputs",
}
"""What goes with a loss."""
_MODULES: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
}


def _of_labels(loss: Loss, outputs: Tensor, targets: Tensor) -> Divergence:
    if loss is F.cross_entropy or loss is F.nll_loss or (
        type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss) and loss.weight is None and loss.reduction == "mean"  # type: ignore[attr-defined]
    ):  # fmt: skip
        return Classes(loss)
    if outputs[0].numel() > DENSE:
        raise ValueError(
            f"labels: loss {_name(loss)} of {outputs[0].numel()} outputs a sample has too large a Hessian, "
            f"its limit is {DENSE}; give match='outputs' or 'probabilities' without labels"
        )
    found = Labels(loss)
    if not bool(found.roots(outputs, targets).ne(0).any()):
        raise ValueError(
            f"labels: loss {_name(loss)} has no curvature by the outputs, so that there is no Gauss-Newton "
            "step; give match='outputs' or 'probabilities' without labels"
        )
    return found


def _slope(loss: Loss, o: Tensor, known: Tensor) -> Tensor:
    """The gradient of the sum of the samples' losses by the outputs."""
    found = gradient(lambda outputs, targets: sample_losses(loss, outputs, targets), o, known)
    return torch.zeros_like(o) if found is None else found


def _function(loss: Loss) -> Callable[..., Any]:
    """The function that a loss is of, out of `functools.partial` and modules."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return OutputDistance if isinstance(loss, OutputDistance) else _MODULES.get(type(loss), loss)  # type: ignore[arg-type]


def _name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
