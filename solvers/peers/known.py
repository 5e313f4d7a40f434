"""The peers that there are, and those that can't be had: for each what it is, and where it was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from solvers.peers.peer import Peer


@dataclass(frozen=True)
class OKRidge(Peer):
    """Branch and bound for k-sparse ridge regression (Liu, Rosa, Rudin, NeurIPS 2023)."""

    name: ClassVar[str] = "okridge"
    summary: ClassVar[str] = "OKRidge's k-sparse ridge regression, in an environment of its own"
    requires: ClassVar[tuple[str, ...]] = ("okridge",)


@dataclass(frozen=True)
class L0BnB(Peer):
    """Branch and bound with a price on every entry (Hazimeh, Mazumder, Saab, Math. Programming 2022).

    The price is that at which the row's number of entries is its best choice, by our local search; where the
    answer has another number, entries are taken out or added greedily, and `stats["completed"]` counts it.
    """

    name: ClassVar[str] = "l0bnb"
    summary: ClassVar[str] = "L0BnB's priced regression, in an environment of its own"
    requires: ClassVar[tuple[str, ...]] = ("l0bnb",)
    priced: ClassVar[bool] = True
    least: ClassVar[int] = 5


@dataclass(frozen=True)
class El0ps(Peer):
    """Branch and bound with a price on every entry (Guyard, Herzet, Elvira 2024), as L0BnB otherwise."""

    name: ClassVar[str] = "el0ps"
    summary: ClassVar[str] = "El0ps' priced regression, in an environment of its own"
    requires: ClassVar[tuple[str, ...]] = ("el0ps",)
    priced: ClassVar[bool] = True


@dataclass(frozen=True)
class Abess(Peer):
    """Best subsets by splicing, a heuristic without a bound (Zhu et al., PNAS 2020)."""

    name: ClassVar[str] = "abess"
    summary: ClassVar[str] = "abess' splicing, a heuristic, in an environment of its own"
    requires: ClassVar[tuple[str, ...]] = ("abess",)


PEERS: tuple[Peer, ...] = (OKRidge(), L0BnB(), El0ps(), Abess())
LEFT_OUT: Mapping[str, str] = {
    "l0learn": "its wheels end with Python 3.10, and it has no source archive to build from",
    "sparsegpt": "its authors publish no package; the solver of that name is this project's own",
}
"""Peers that one might look for, and why they are not here."""
