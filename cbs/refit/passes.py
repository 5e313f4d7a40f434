"""Passes over the data: a divergence's mean, its gradient, and products with its Gauss-Newton matrix.

With the Jacobian `J_s` of a sample's outputs by what moves, and the curvature `B_s` of the divergence by the
outputs, the matrix is `G = 1/N sum_s J_s' B_s J_s`; a product is a pass forward with a tangent, and one back
(Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent").
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cbs.data import Samples, first_line
from cbs.network.answers import functional, twice
from cbs.refit.divergence import Divergence
from cbs.refit.movable import Movable

TRIED = 2
"""Samples on which derivatives are tried before the work."""


class Halted(Exception):
    """A pass was left before its end: the time is up, or the user has asked."""


@dataclass(eq=False)
class Passes:
    """Runs a network with a vector in the place of what moves.

    Attributes:
        model: without masks, in evaluation mode, in single or double precision.
        movable: what moves of it.
        divergence: what is measured.
        until: when to leave a pass, by `time.perf_counter`.
        stopped: whether to leave it before that.
    """

    model: nn.Module
    movable: Movable
    divergence: Divergence
    until: float = float("inf")
    stopped: Callable[[], bool] = lambda: False
    _forward_mode: bool = field(default=True, init=False)

    @torch.no_grad()
    def value(self, vector: Tensor, samples: Samples) -> float:
        """The mean divergence; `samples` have what is known as targets."""
        parameters, total = self.movable.parameters(vector), 0.0
        for x, known in self.batches(samples):
            outputs = functional(self.model, parameters, x)
            total += float(self.divergence.values(outputs, known).sum())
        return total / len(samples)

    def gradient(self, vector: Tensor, samples: Samples) -> tuple[float, Tensor]:
        """The mean divergence, and its gradient by what moves, `[p]` in double precision.

        Raises:
            ValueError: in one line, if the network can't be differentiated.
        """
        found, total = torch.zeros_like(vector), 0.0
        for x, known in self.batches(samples):
            outputs, leaves = self.run(vector, x)
            with torch.no_grad():
                total += float(self.divergence.values(outputs, known).sum())
                slope = self.divergence.gradient(outputs, known)
            found += self.pull(outputs, leaves, slope)
        return total / len(samples), found / len(samples)

    def product(self, vector: Tensor, v: Tensor, samples: Samples) -> Tensor:
        """`G v` at a vector, `[p]` in double precision.

        Raises:
            ValueError: in one line, if the network can't be differentiated.
        """
        found, tangents = torch.zeros_like(vector), self.movable.tangents(v)
        for x, known in self.batches(samples):
            outputs, leaves, moved = self._pushed(vector, tangents, x)
            with torch.no_grad():
                bent = self.divergence.product(outputs, known, moved)
            found += self.pull(outputs, leaves, bent)
        return found / len(samples)

    def run(self, vector: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs with their history, and the parameters that they come from."""
        leaves = {name: values.requires_grad_() for name, values in self.movable.parameters(vector).items()}
        with torch.enable_grad(), _differentiating():
            return functional(self.model, leaves, x), leaves

    def pull(self, outputs: Tensor, leaves: dict[str, Tensor], by: Tensor) -> Tensor:
        """`J' u`, summed over a batch: `u` of the outputs' shape back to a vector."""
        if not outputs.requires_grad:
            raise ValueError(f"refit 'network': model's outputs have no derivatives; {WITHOUT}")
        with _differentiating():
            found = torch.autograd.grad(outputs, list(leaves.values()), by, allow_unused=True)
        parts = {
            name: torch.zeros_like(leaf) if part is None else part
            for (name, leaf), part in zip(leaves.items(), found, strict=True)
        }
        return self.movable.vector(parts)

    def _pushed(
        self, vector: Tensor, tangents: dict[str, Tensor], x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Outputs and parameters as `run` has them, and `J v`, of the outputs' shape.

        Forward where the network's operations can do that, else by differentiating `J' u` by `u`.
        """
        if self._forward_mode:
            try:
                return self._dual(vector, tangents, x.clone())
            except Exception:
                self._forward_mode = False
        outputs, leaves = self.run(vector, x)
        u = torch.zeros_like(outputs, requires_grad=True)
        with torch.enable_grad(), _differentiating():
            pulled = torch.autograd.grad(
                outputs, list(leaves.values()), u, create_graph=True, allow_unused=True
            )
            pairs = [(g, tangents[name]) for name, g in zip(leaves, pulled, strict=True) if g is not None]
            (moved,) = torch.autograd.grad([g for g, _ in pairs], u, [t for _, t in pairs], retain_graph=True)
        return outputs, leaves, moved

    def _dual(
        self, vector: Tensor, tangents: dict[str, Tensor], x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Outputs with their history, parameters, and `J v`, by a single pass of dual numbers."""
        leaves = {name: values.requires_grad_() for name, values in self.movable.parameters(vector).items()}
        with torch.enable_grad(), twice(), forward_ad.dual_level(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)  # torch's own
            duals = {name: forward_ad.make_dual(leaf, tangents[name]) for name, leaf in leaves.items()}  # type: ignore[no-untyped-call]
            outputs, moved = forward_ad.unpack_dual(functional(self.model, duals, x))  # type: ignore[no-untyped-call]
        if moved is None:
            raise RuntimeError("the outputs have no tangent")
        return outputs, leaves, moved.detach()

    def batches(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """The samples, batch by batch, as long as there is time.

        Raises:
            Halted: when there is none.
        """
        for batch in samples.batches():
            if time.perf_counter() >= self.until or self.stopped():
                raise Halted
            yield batch

    def attempt(self, vector: Tensor, samples: Samples) -> None:
        """Take all derivatives once, of a few samples.

        Raises:
            ValueError: in one line, if there are none.
        """
        few = samples.few(TRIED)
        self.gradient(vector, few)
        self.product(vector, vector, few)


WITHOUT = "take refit 'layer', or none"
"""What to do where there are no derivatives."""


class _differentiating:
    """Says in one line that there are no derivatives, instead of autograd's error."""

    def __enter__(self) -> None:
        self.plainly = twice()
        self.plainly.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.plainly.__exit__(None, None, None)
        if isinstance(error, Exception) and not isinstance(error, ValueError | Halted):
            raise ValueError(
                f"refit 'network': model can't be differentiated ({first_line(error)}); {WITHOUT}"
            ) from error
