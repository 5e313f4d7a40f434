"""One instance of a library: its facts, the problem itself, and the best that is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from solvers.budget import Budget
from solvers.instances.identity import digest_together
from solvers.problem import Mask, SubsetProblem

GAP = 1e-4
"""Largest `(value - bound) / |value|` of what counts as proven: the gap that solvers are asked for."""
NETWORK = "network"
"""The kind of a budget that several layers share, for `solvers.solve_together`."""
VARIANTS = ("joint", "selection")
STATUSES = ("proven", "open")


def budget_of(facts: Mapping[str, Any]) -> Budget:
    """A budget from its facts: `{"kind": "per_row", "prune": 12}`, `{"kind": "n_of_m", "keep": 2, "of": 4}`.

    Raises:
        ValueError: for another kind, or counts that are missing.
    """
    kind = facts.get("kind")
    wants = {"per_row": ("prune",), "per_layer": ("prune",), "columns": ("prune",), "n_of_m": ("keep", "of")}
    if kind not in wants or set(facts) != {"kind", *wants[kind]}:
        shown = {name: value for name, value in facts.items() if name != "kind"}
        raise ValueError(f"budget {kind!r} with {shown}; known: {', '.join(wants)} with their counts")
    make: Callable[..., Budget] = getattr(Budget, kind)
    return make(*(facts[name] for name in wants[kind]))


@dataclass(frozen=True)
class Known:
    """The best that is known of an instance.

    Attributes:
        value: of the best mask; None where no mask is known.
        bound: no mask of the budget costs less; None where nothing is known.
        value_by: who or what found the mask, and when.
        bound_by: who or what found the bound, and when.
        certificate: name of the file that proves the bound, or None where it is a solver's word.
        seconds: of our solvers on it, all together.
    """

    value: float | None = None
    bound: float | None = None
    value_by: str = ""
    bound_by: str = ""
    certificate: str | None = None
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """`(value - bound) / |value|`, 0 if they are equal, infinite where one is unknown."""
        if self.value is None or self.bound is None:
            return math.inf
        if self.value == self.bound:
            return 0.0
        return (self.value - self.bound) / abs(self.value) if self.value else math.inf

    @property
    def status(self) -> str:
        """`proven` where the gap is at most `GAP`, else `open`."""
        return "proven" if self.gap <= GAP else "open"


def merged(
    now: Known, before: Known, found: Known, masks: Sequence[Mask] | None, proof: bytes | None
) -> tuple[Known, Sequence[Mask] | None, bytes | None]:
    """What is known now and what was found since `before`: the better value, and the better bound."""
    after = replace(now, seconds=round(now.seconds + found.seconds - before.seconds, 2))
    if (
        masks is not None
        and now.value != before.value
        and now.value is not None
        and (found.value is None or found.value >= now.value)
    ):
        masks = None
    if masks is not None:
        after = replace(after, value=found.value, value_by=found.value_by)
    bounds = [(known.bound, known.certificate, known.bound_by) for known in (now, before, found)]
    if bounds[2] != bounds[1] and (
        bounds[0] == bounds[1]
        or now.bound is None
        or (found.bound is not None and found.bound > now.bound)
        or (now.bound == found.bound and now.certificate is None)
    ):
        after = replace(after, bound=found.bound, bound_by=found.bound_by, certificate=found.certificate)
    else:
        proof = None
    return after, masks, proof


@dataclass(frozen=True, eq=False)
class Item:
    """An instance of a library.

    Attributes:
        name: unique in its library.
        digest: of the problem's numbers, variant and budget; of all layers together for a network.
        family: network and layer, `digits/0`; the network alone where several layers share a budget.
        network: it comes from.
        layers: it comes from; one, but for a network's budget.
        m: rows, of all layers.
        n: inputs of a row, of the widest layer.
        variant: `joint` or `selection`.
        budget: kind of the budget: `per_row`, `per_layer`, `n_of_m`, `columns`, or `network`.
        sparsity: share of the weights that are pruned.
        provenance: how it was made: damping, seed, samples, versions.
        known: the best value and bound.
        certificate: path of the certificate of the bound, or None.
    """

    name: str
    digest: str
    family: str
    network: str
    layers: tuple[str, ...]
    m: int
    n: int
    variant: str
    budget: str
    sparsity: float
    provenance: Mapping[str, Any] = field(repr=False)
    known: Known = field(default_factory=Known)
    certificate: str | None = None
    load: Callable[[], Sequence[SubsetProblem]] = field(repr=False, kw_only=True)
    load_masks: Callable[[], Sequence[Mask] | None] = field(repr=False, kw_only=True, default=lambda: None)

    @property
    def value(self) -> float | None:
        """Of the best mask known."""
        return self.known.value

    @property
    def bound(self) -> float | None:
        """The best one known."""
        return self.known.bound

    @property
    def status(self) -> str:
        """`proven` or `open`."""
        return self.known.status

    def problem(self) -> SubsetProblem:
        """The problem, exactly as it was digested.

        Raises:
            ValueError: if its data can't be read, or several layers share its budget; then see `problems`.
        """
        found = self.load()
        if len(found) != 1:
            raise ValueError(
                f"instance {self.name!r} is {len(found)} layers with one budget; take problems(), for "
                "solve_together"
            )
        return found[0]

    def problems(self) -> Sequence[SubsetProblem]:
        """The problems of its layers; one, but for a network's budget.

        Raises:
            ValueError: if its data can't be read.
        """
        return self.load()

    def masks(self) -> Sequence[Mask] | None:
        """The best masks known, one a layer; None where there is none.

        Raises:
            ValueError: if they can't be read.
        """
        return self.load_masks()

    def intact(self) -> bool:
        """Whether the problem still has the digest."""
        return digest_together(self.load()) == self.digest

    def facts(self) -> dict[str, Any]:
        """All but the numbers, as JSON can hold it."""
        gap = self.known.gap
        return {
            "name": self.name, "digest": self.digest, "family": self.family, "network": self.network,
            "layers": list(self.layers), "m": self.m, "n": self.n, "variant": self.variant,
            "budget": self.budget, "sparsity": self.sparsity, "value": self.known.value,
            "bound": self.known.bound, "gap": gap if math.isfinite(gap) else None, "status": self.status,
            "value_by": self.known.value_by, "bound_by": self.known.bound_by,
            "certificate": self.certificate, "seconds": self.known.seconds,
            "provenance": dict(self.provenance),
        }  # fmt: skip


def summary(items: Iterable[Item]) -> list[dict[str, Any]]:
    """By network, budget and variant: instances, how many are proven, and the gaps of those that are open."""
    kinds: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        kinds.setdefault((item.network, item.budget, item.variant), []).append(item)
    told: list[dict[str, Any]] = []
    for (network, budget, variant), group in kinds.items():
        gaps = sorted(item.known.gap for item in group if item.status == "open")
        told.append(
            {
                "network": network, "budget": budget, "variant": variant, "instances": len(group),
                "inputs": sorted({item.n for item in group}), "proven": len(group) - len(gaps),
                "median_gap": gaps[len(gaps) // 2] if gaps else None,
                "widest_gap": gaps[-1] if gaps else None,
            }
        )  # fmt: skip
    return told
