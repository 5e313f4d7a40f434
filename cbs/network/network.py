"""The dense network with its calibration data; what methods compute of the two is kept here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.change import Weights, layer_weights
from cbs.curvature.base import Curvature
from cbs.curvature.each import require_apart
from cbs.curvature.signal import require_signal, require_single
from cbs.data import Samples, first_line, gather
from cbs.memo import Memo
from cbs.network.activations import fitting
from cbs.network.answers import CHOICE, Output, choose_output, raw, tell_choice
from cbs.network.distance import OutputDistance, by_distance
from cbs.network.eligible import TYPES, masked_names, survey, tell, unwrap
from cbs.network.evaluate import Evaluation, answer, evaluate, evaluating, require_answers
from cbs.network.everything import Everything, WholeLoss
from cbs.network.kinds.opening import Opened, differing, open_model
from cbs.network.kinds.registry import STAYS
from cbs.network.layers import Layer, named_layers, visiting
from cbs.network.losses import LOW, Loss, is_known, require_probabilities, wide, wide_loss
from cbs.network.neurons import Found, Neurons, find_neurons
from cbs.network.padding import require_named
from cbs.network.probe import misbehaving
from cbs.network.surgery import Saved, clone, put_mask, read_masks, save
from cbs.quadratic import Quadratic
from solvers.control import is_number
from solvers.hessian import Array
from solvers.problem import Mask

if TYPE_CHECKING:
    from cbs.refit.divergence import Divergence

GRADIENTS = 1_000
"""Samples for per-sample gradients unless a number was asked for (Yu et al. 2022)."""
TRIED = 2
"""Samples on which layers are watched before the work."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The dense network that a stage's network came of, whose outputs it is to keep.

    Attributes:
        network: the dense one.
        divergence: of the outputs from those of the dense one; None where none goes with the loss.
        refitted: whether the stage's network was brought toward them as a whole, so that its layers no longer
            have the dense layers' outputs to keep.
    """

    network: Network
    divergence: Divergence | None = None
    refitted: bool = False


class Network:
    """A dense network, its prunable layers, and what was computed from them and the data.

    Nothing is computed before it is asked for, or twice; `memo` keeps it.

    Args:
        model: the trained network; it is copied, not changed.
        data: calibration data, see `cbs.data.gather`.
        loss: of outputs and targets, mean or sum over samples.
        layers: names of the layers to prune, or patterns; None for all.
        exclude: those to leave out, in the same way.
        damping: relative to the mean diagonal of a curvature; positive.
        samples: how many samples to take; None for all, but `GRADIENTS` for per-sample gradients.
        seed: of the draw of samples.
        device: torch device.
        reference: the dense network, where this one is what a stage before left of it. Models of curvatures
            that can, see `Curvature.toward`, are then drawn toward its outputs.
        output: which of the model's outputs is looked at; None for the rule of `cbs.network.answers.forward`.
        padding: name of the entry of a batch that says which places are real, see `cbs.request.Request`.
        across: whether neighbouring inputs of a convolution are channels at one place of its kernel.
        unfit: why a layer has no place in what is asked, which leaves it out unless it was named.
        rewrite: whether modules that are no single matrix are rewritten, see `cbs.network.kinds`.

    Raises:
        ValueError: in one line, for a model without prunable layers, data or targets that model or
            loss refuse, values that are not finite, or a negative damping.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        loss: Loss = F.cross_entropy,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        damping: float = 1e-2,
        samples: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        reference: Reference | None = None,
        output: Output | None = None,
        padding: str | None = None,
        across: bool = False,
        unfit: Callable[[Layer], str | None] | None = None,
        rewrite: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        model = unwrap(model)
        for name, values in model.named_parameters():
            if values.is_complex() or (values.is_floating_point() and values.dtype not in TYPES):
                raise ValueError(f"model has parameter {name!r} of {values.dtype}; convert it to float32")
        if not is_number(damping) or not 0 <= damping < float("inf"):
            raise ValueError(f"damping must be a finite number >= 0, got {damping!r}")
        opened = open_model(model) if rewrite else Opened(model, (), {})
        found = survey(opened.model).without(opened.left_out)
        self.across = across
        self.executor: Executor | None = None
        found.choose(layers, exclude)
        self._take(model, opened, device)
        self.layers = self._layers(found.choose(layers, exclude))
        self.padding = padding
        self.samples: Samples = gather(data, samples, seed, model).to(device).with_padding(padding)
        require_named(self.samples, padding)
        self.loss, self.damping, self.device = wide_loss(loss), damping, device
        self.labelled = self.samples.labelled
        if output is not None:
            choose_output(self.model, output)
        self.seed, self.gradients = seed, len(self.samples) if samples else GRADIENTS
        self.memo = Memo()
        if opened.names:
            plain = placed(clone(model), device).eval()
            here = replace(opened, model=self.model)
            if wrong := differing(plain, here, self.samples.first(TRIED)):
                opened = open_model(model, {**opened.left_out, **wrong})
                found = survey(opened.model).without(opened.left_out)
                found.choose(layers, exclude)
                self._take(model, opened, device)
                if output is not None:
                    choose_output(self.model, output)
                self.layers = self._layers(found.choose(layers, exclude))
        found = found.without(misbehaving(self.model, self.layers, self.samples.first(TRIED)))
        self._look_at(output)
        self.layers = self._layers(found.choose(layers, exclude))
        if unfit is not None and layers is None:
            reasons = {layer.path: why for layer in self.layers if (why := unfit(layer)) is not None}
            if reasons:
                found = found.without(reasons)
                self.layers = self._layers(found.choose(layers, exclude))
        if layers is None:
            gone = {} if exclude is None else found.excluded(exclude)
            tell({name: why for name, why in found.left_out.items() if name not in gone})
        self.left_out = found.stays([layer.name for layer in self.layers], exclude)
        self.saved: Saved = save(self.layers)
        self.samples = fitting(self.model, self.layers, self.samples)
        require_answers(self.model, self.samples, self.loss)
        self.before: Evaluation = evaluate(self.model, self.samples, self.loss)
        if not math.isfinite(self.before.loss):
            self._refuse_loss()
        self.reference = reference
        self.held_out: Samples | None = None
        self.test_before: Evaluation | None = None

    def _look_at(self, output: Output | None) -> None:
        """Decide which output is looked at, and what the loss is given."""
        chosen = getattr(self.model, CHOICE, None)
        whole = isinstance(chosen, Everything)
        if isinstance(self.loss, WholeLoss | OutputDistance):
            return  # of a stage before
        if output is None and (chosen is None or whole) and self.labelled and not is_known(self.loss):
            choose_output(self.model, None)
            with evaluating(self.model):
                outputs = raw(self.model, self.samples.first(TRIED))
            if not isinstance(outputs, Tensor):
                everything = Everything()
                choose_output(self.model, everything)
                self.loss = WholeLoss(self.loss, everything)
        elif output is None and chosen is None:
            with evaluating(self.model):
                tell_choice(raw(self.model, self.samples.first(TRIED)), TRIED)
        if not self.labelled:
            self.loss, self.samples = by_distance(self.model, self.samples)

    def _take(self, model: nn.Module, opened: Opened, device: str) -> None:
        """Work on a copy of the network, of which modules may have been rewritten."""
        where = next(model.parameters(), torch.empty(0)).device
        self.user = model
        self._earlier: list[Mask] | None = None
        self.masks = {name: read_masks(opened.model, name) for name in masked_names(opened.model)}
        self.model = placed(clone(opened.model), device).eval()
        self.composite = sorted(opened.names)
        self._origin = where, {name: module.training for name, module in opened.model.named_modules()}

    def _layers(self, names: Sequence[str]) -> list[Layer]:
        """Layers of the copy; a bias of which entries were pruned before stays as it is."""
        fixed, self._earlier = self.masks.get("bias", {}), None
        return [
            replace(layer, fixed_bias=layer.path in fixed or STAYS in vars(layer.module), across=self.across)
            for layer in named_layers(self.model, names)
        ]

    @property
    def earlier(self) -> list[Mask]:
        """For every layer the mask `[m, n]` that it came with, True where pruned."""
        if self._earlier is None:
            found = self.masks.get("weight", {})
            self._earlier = [
                layer.matrix(found[layer.path]).cpu().numpy()
                if layer.path in found
                else np.zeros(layer.shape, dtype=bool)
                for layer in self.layers
            ]
        return self._earlier

    @property
    def kept(self) -> Network:
        """That whose layers' outputs are to be kept: the reference, if layers still have these."""
        return self if self.reference is None or self.reference.refitted else self.reference.network

    def hold_out(self, samples: Samples) -> None:
        """Evaluate on `samples`, too."""
        self.held_out = samples.to(self.device).with_padding(self.padding)
        if isinstance(self.loss, OutputDistance):
            _, self.held_out = by_distance(self.model, self.held_out, self.loss)
        elif not self.held_out.labelled:
            raise ValueError("test has no labels, and the calibration data has; give test data with labels")
        for _, targets in self.held_out.groups():
            require_probabilities(self.loss, targets)
        if self.held_out.batch > self.samples.batch:
            self.held_out = replace(self.held_out, batch=self.samples.batch)
        self.test_before = evaluate(self.model, self.held_out, self.loss)

    def _refuse_loss(self) -> None:
        """Say which layer's output is not finite first, or whose labels do not count."""
        wrong: list[str] = []

        def visit(name: str, x: Tensor, y: Tensor) -> None:
            for what, values in (("input", x), ("output", y)):
                if not bool(torch.isfinite(values).all()):
                    wrong.append(f"the {what} of layer {name!r} is NaN or infinite")

        with torch.no_grad(), visiting(self.layers, visit):
            for inputs, _ in self.samples.batches():
                if not bool(torch.isfinite(answer(self.model, inputs)).all()):
                    wrong.append("its outputs are NaN or infinite, though no layer's is")
        why = wrong[0] if wrong else "no layer's output is; is there a batch of which no label counts?"
        raise ValueError(f"loss of the dense network is {self.before.loss} on this data: {why}")

    def restore(self, model: nn.Module) -> nn.Module:
        """Give a copy of the network the device, modes and other masks of the user's model, in place."""
        where, modes = self._origin
        pruned = {layer.path for layer in self.layers}
        for parameter, masks in self.masks.items():
            for name, mask in masks.items():
                if parameter != "weight" or name not in pruned:
                    put_mask(model.get_submodule(name), parameter, mask)
        for name, module in model.named_modules():
            module.training = modes[name]
        return model.to(where)

    @property
    def dense(self) -> list[Weights]:
        """Every layer's dense parameters."""
        return self.memo("dense", lambda: [layer_weights(layer) for layer in self.layers])

    @property
    def neurons(self) -> list[Neurons]:
        """The groups of neurons that can be removed, found once.

        Raises:
            ValueError: in one line, if there are none, or a layer's rows are tokens.
        """
        if tables := [layer.name for layer in self.layers if layer.tokens]:
            raise ValueError(
                f"layer {tables[0]!r} is an Embedding, whose rows are tokens and no neurons; leave it out "
                "of `layers`"
            )
        return self._found.groups

    @property
    def rows_that_stay(self) -> Mapping[str, str]:
        """For every layer whose rows can't be removed why."""
        return self._found.left_out

    @property
    def _found(self) -> Found:
        return self.memo("neurons", lambda: find_neurons(self))

    @property
    def gone(self) -> list[Mask]:
        """For every group of `neurons` those of which the masks that it came with leave nothing."""
        earlier = {layer.name: mask for layer, mask in zip(self.layers, self.earlier, strict=True)}
        return [group.gone(earlier) for group in self.neurons]

    def __call__(self, curvature: Curvature) -> Sequence[Quadratic]:
        """The models of a curvature, computed the first time and kept by the curvature's value."""
        damped = curvature.damped(self.damping)
        return self.memo(damped, lambda: damped.quadratics(self))

    def toward(self, curvature: Curvature) -> Sequence[Quadratic]:
        """The models of a curvature, drawn toward the reference's outputs if there is one."""
        damped = curvature.damped(self.damping)
        if self.reference is None:
            return self(damped)
        return self.memo(("toward", damped), lambda: damped.toward(self))

    def has(self, curvature: Curvature) -> bool:
        """Whether the models of a curvature are there without computing them."""
        return curvature.damped(self.damping) in self.memo

    def differentiable(self) -> tuple[nn.Module, list[Layer], Samples]:
        """A copy of the network, its layers and the samples, of single precision at least, for derivatives.

        Whatever the network keeps of a pass goes with the copy.
        """
        model = clone(self.model)
        low = any(values.dtype in LOW for values in model.parameters())
        layers = [layer.of(model) for layer in self.layers]
        samples = self.samples.cast(wide) if low else self.samples
        model = model.float() if low else model
        if low:
            require_single(model, samples)
        require_apart(model, samples)
        return model, layers, samples

    def checked(self, found: list[Array], what: str = "loss has") -> list[Array]:
        """Derivatives layer by layer, once they are found to say something of the weights."""
        require_signal(found, self.model, self.layers, self.samples, what)
        return found


def placed(model: nn.Module, device: str) -> nn.Module:
    """The network on a device.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} can't be used ({first_line(error)})") from error
