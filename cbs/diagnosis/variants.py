"""Ablation: one network and many variants of it on the same inputs, their common beginning computed once.

A variant has other values in some modules. Whatever runs before the first of these is the same in it and in
the network itself, so its modules' outputs are taken from the network's run: on average half of the work.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.diagnosis.pair import Groups, Tensors
from cbs.network.evaluate import evaluating, forward

MEMORY = 2**28
"""Bytes of outputs that are kept of a network's run; the batches are made as small as that takes."""


def copied(values: Any) -> Any:
    """What a module gives, its tensors with values of their own: others may change them in place."""
    if isinstance(values, Tensor):
        return values.clone()
    if isinstance(values, tuple | list) and not hasattr(values, "_fields"):
        return type(values)(map(copied, values))
    return values


class Variants:
    """Runs a network and its variants.

    Args:
        model: the network, without masks, in evaluation mode; its weights are put back after every variant.
        variants: the tensors of each that differ, by their names in the state dict.
        names: further modules whose outputs in the network are wanted.

    Attributes:
        model: the network.
        base: of the network's last run, for the modules that a variant changes and those named, the outputs
            of every call.
        names: of all these modules.
        seen: the same of the variant's last run, for the modules that it changes; their raw outputs, before
            hooks.
        order: the modules that variants change, in the order in which they ran; those inside a module that
            does their work (as attention has it) where that one ran.
    """

    def __init__(self, model: nn.Module, variants: Sequence[Tensors], names: Sequence[str] = ()) -> None:
        self.model, self.variants = model, variants
        groups = Groups(model)
        self._sites = [{groups.of(key) for key in tensors} for tensors in variants]
        wanted = {name for sites in self._sites for name in sites} | {*names}
        self._modules = {name: module for name, module in model.named_modules() if name in wanted}
        self.names = [*self._modules]
        self._tensors = model.state_dict(keep_vars=True)
        members = {name for name, _ in model.named_modules(remove_duplicate=False)}
        self._group: dict[str, list[str]] = {name: [] for name in self._modules}
        for name in members:
            if (home := groups.of(f"{name}.x" if name else "x")) in self._group:
                self._group[home].append(name)
        self.base: dict[str, list[Any]] = {}
        self.seen: dict[str, list[Any]] = {}
        self._calls: dict[str, list[int]] = {}
        self._clock = itertools.count()
        self._stubs: dict[str, list[Any]] = {}
        self._basing = False

    @property
    def order(self) -> list[str]:
        """See the class."""
        return sorted(self._modules, key=lambda name: (self._span(name)[0], [*self._modules].index(name)))

    def outputs(self, inputs: Any) -> Iterator[Tensor]:
        """The network's outputs, and then those of every variant, for the inputs of one batch.

        Raises:
            ValueError: if the network refuses the inputs.
        """
        with self._watching():
            yield self._run(inputs, base=True)
            for tensors, sites in zip(self.variants, self._sites, strict=True):
                with self._swapped(tensors):
                    yield self._run(inputs, sites=sites)

    def _run(self, inputs: Any, *, base: bool = False, sites: Sequence[str] | set[str] = ()) -> Tensor:
        if base:
            self.base = {name: [] for name in self._modules}
            self._calls, self._clock = {}, itertools.count()
        self._basing = base
        self.seen = {name: [] for name in sites}
        start = min((self._span(name)[0] for name in sites), default=0)
        self._stubs = {
            name: [*self.base[name]]
            for name in self._modules
            if not base
            and self._span(name)[1] < start
            and all(isinstance(y, Tensor) for y in self.base[name])
        }
        with torch.no_grad():
            return forward(self.model, inputs.clone())

    def _span(self, name: str) -> tuple[int, int]:
        """When a site was first and last at work, in calls; from 0 to the end if that is not known."""
        first, last = [], []
        for member in self._group[name]:
            path = member
            while path and path not in self._calls:
                path = path.rpartition(".")[0]
            calls = self._calls.get(path, [0, 2**62])
            first.append(calls[0])
            last.append(calls[-1] if path == member else 2**62)
        return min(first), max(last)

    @contextmanager
    def _swapped(self, tensors: Tensors) -> Iterator[None]:
        with torch.no_grad():
            kept = {key: self._tensors[key].detach().clone() for key in tensors}
            try:
                for key, values in tensors.items():
                    self._tensors[key].copy_(values)
                yield
            finally:
                for key, values in kept.items():
                    self._tensors[key].copy_(values)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Note when modules run and what they give, and give what is known without running them."""
        told = {
            path
            for members in self._group.values()
            for name in members
            for path in (name, *_parents(name))
            if path
        }
        modules = dict(self.model.named_modules(remove_duplicate=False))
        handles = [modules[path].register_forward_pre_hook(self._noting(path), prepend=True) for path in told]
        before = {name: vars(module).get("forward") for name, module in self._modules.items()}
        try:
            for name, module in self._modules.items():
                module.forward = self._standing_in(name, module.forward)
            with evaluating(self.model):
                yield
        finally:
            for name, module in self._modules.items():
                del module.forward
                if before[name] is not None:
                    module.forward = before[name]
            for handle in handles:
                handle.remove()

    def _noting(self, path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            if self._basing:
                self._calls.setdefault(path, []).append(next(self._clock))

        return note

    def _standing_in(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not self._basing and self._stubs.get(name):
                return self._stubs[name].pop(0).clone()
            y = original(*args, **kwargs)
            kept = self.base[name] if self._basing else self.seen.get(name)
            if kept is not None:
                kept.append(copied(y))
            return y

        return run


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def batch_size(model: nn.Module, names: Sequence[str], samples: Samples, copies: int = 2) -> int:
    """How many samples at once keep the outputs of some modules within `MEMORY`.

    Args:
        model: the network, in evaluation mode.
        names: of the modules.
        samples: of which the first is run.
        copies: how many times they are kept.
    """
    bench = Variants(model, [], names)
    runs = bench.outputs(samples.first(1))
    next(runs)
    runs.close()  # type: ignore[attr-defined]
    size = sum(_bytes(y) for outputs in bench.base.values() for y in outputs)
    return max(1, min(samples.batch, MEMORY // max(1, copies * size)))


def _bytes(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    return sum(map(_bytes, values)) if isinstance(values, tuple | list) else 0
