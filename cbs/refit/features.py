"""Features: what the layers inside a network are given, matched beside its outputs.

A few outputs a sample do not determine the survivors of a deep network: with some thousands of samples they
are fewer than what moves, and a refit to the outputs alone overfits at once. The inputs of its layers are
many more, and to come near to the dense ones' is what the outputs need anyway: knowledge distillation by
hints (Romero et al. 2015, "FitNets"), here by Gauss-Newton steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.answers import CHOICE, answer, choose_output, count_of, pick
from cbs.refit.divergence import Squares

SAMPLED = 512
"""Samples from which features are scaled."""
SAME = 1e-6
"""Relative distance up to which an input is no feature: nothing before it was pruned."""


class Features(Squares):
    """`1/2 sum_f |z_f - x_f|^2 / E |x_f - E x_f|^2` over features f: z in the network, x in the dense one.

    A network that `watched` answers with all features of a sample in a row. What is known of a sample is its
    input, from which the dense network's are computed where they are needed.

    Args:
        dense: the dense network, a copy, that `watched` answers too.
    """

    words = "the outputs and the inputs of the layers, by squared distances relative to their variances"

    def __init__(self, dense: nn.Module) -> None:
        self.network = dense
        self._last: tuple[Any, Tensor] | None = None  # value and gradient want them both

    def values(self, o: Tensor, known: Any) -> Tensor:
        """See `Divergence`; `known` are inputs `[N, ...]`."""
        return super().values(o, self._features(known))

    def gradient(self, o: Tensor, known: Any) -> Tensor:
        """See `Divergence`."""
        return super().gradient(o, self._features(known))

    @torch.no_grad()
    def _features(self, x: Any) -> Tensor:
        if self._last is None or self._last[0] is not x:
            self._last = x, answer(self.network, x.clone())
        return self._last[1]


@torch.no_grad()
def find_features(
    dense: nn.Module, pruned: nn.Module, layers: Sequence[str], samples: Samples
) -> list[tuple[str, float]]:
    """Layers whose inputs the pruning has changed, and the outputs as `""`, each with its scale.

    Args:
        dense: the dense network, in evaluation mode.
        pruned: the pruned one, without masks.
        layers: names of the layers whose inputs are looked at, in both; of those given the same the first.
        samples: inputs, of which the first `SAMPLED` are run.

    Returns:
        Names and `1 / sqrt(E |x - E x|^2)`. Constant features, which no scale makes comparable, are left out,
        as are layers that run more than once or not at all.
    """
    sums: dict[str, list[Any]] = {}
    names = [*layers, ""]
    count = 0
    for x, _ in samples.batches():
        parts = [_run(model, names, x.clone()) for model in (dense, pruned)]
        for name in names:
            if any(len(part.get(name, ())) != 1 for part in parts):
                sums[name] = []
                continue
            a, b = (part[name][0].reshape(len(x), -1).double() for part in parts)
            known = sums.setdefault(name, [0.0, 0.0, 0.0])
            if known and a.shape == b.shape:
                known[0] = known[0] + a.sum(dim=0)
                known[1] = known[1] + a.square().sum(dim=0)
                known[2] = known[2] + float((a - b).square().sum())
        count += len(x)
        if count >= SAMPLED:
            break
    found = []
    for name, known in sums.items():
        if not known or isinstance(known[0], float):
            continue
        energy = float(known[1].sum())
        variance = energy / count - float((known[0] / count).square().sum())
        moved = known[2] > SAME**2 * energy or not name
        if moved and 0 < variance < float("inf") and variance > SAME * energy / count:
            found.append((name, variance**-0.5))
    return found


def watched(model: nn.Module, features: Sequence[tuple[str, float]]) -> nn.Module:
    """Have a network answer with its features, scaled, a sample in a row `[N, all]`; in place, for good."""
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            held[name] = (args[0] if args else kwargs["input"]).clone()  # may be changed in place later

        return hook

    choice = getattr(model, CHOICE, None)

    def features_of(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> Tensor:
        outputs = held[""] = pick(choice, outputs, count_of((args, kwargs)))
        rows = [scale * held[name].reshape(len(outputs), -1) for name, scale in features]
        held.clear()
        return torch.cat(rows, dim=1)

    for name, _ in features:
        if name:
            model.get_submodule(name).register_forward_pre_hook(keep(name), with_kwargs=True)
    model.register_forward_hook(features_of, with_kwargs=True)
    choose_output(model, None)  # it answers with one tensor from now on
    return model


def _run(model: nn.Module, names: Sequence[str], x: Any) -> dict[str, list[Tensor]]:
    """What layers are given in a pass, of those given the same tensor the first, and the outputs as `""`."""
    seen: dict[str, list[Tensor]] = {}
    with _listening(model, names, seen):
        seen[""] = [answer(model, x)]
    return seen


@contextmanager
def _listening(model: nn.Module, names: Sequence[str], seen: dict[str, list[Tensor]]) -> Iterator[None]:
    given: list[Tensor] = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            if not any(x is other for other in given):
                given.append(x)
                seen.setdefault(name, []).append(x.clone())

        return keep

    handles = [
        model.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True)
        for name in names
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
