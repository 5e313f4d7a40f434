"""A library of instances: a folder with an index, data that the instances of a layer share, and results.

index.json          every instance: digest, provenance, best value and bound (`solvers.instances.index`)
index.solu          the same values, as MIPLIB's tools read them
data/NAME.npz       rows and curvature of a layer (`solvers.instances.layer_data`)
masks/NAME.npz      the best mask of an instance, as packed bits
certificates/NAME.npz   the proof of its bound, for `cbs verify`
"""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solvers.instances.index import INDEX, NAME, empty, locked, read_index, write_index
from solvers.instances.item import NETWORK, STATUSES, VARIANTS, Item, Known, budget_of, merged
from solvers.instances.layer_data import LayerData
from solvers.instances.masks import packed, unpacked
from solvers.instances.solu import Solu, read_solu, write_solu
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.writing import replacing

SOLU = "index.solu"
BUDGETS = ("per_row", "per_layer", "n_of_m", "columns", NETWORK)


class Library:
    """A library of instances in a folder.

    Args:
        folder: where it is.

    Raises:
        ValueError: in one line, if it has no index, or one that can't be read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        self._held: dict[str, LayerData] = {}

    @classmethod
    def start(cls, folder: str | os.PathLike[str]) -> Library:
        """The library in a folder, which is made with an empty index where there is none.

        Raises:
            ValueError: if there is one that can't be read, or the folder can't be made.
        """
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / INDEX).exists():
                write_index(path, empty())
        except OSError as error:
            raise ValueError(f"library {os.fspath(folder)!r} can't be made ({error.strerror})") from None
        return cls(folder)

    def __repr__(self) -> str:
        return f"Library({os.fspath(self.folder)!r}, {len(self)} instances)"

    def __len__(self) -> int:
        return len(self.index["instances"])

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    def __contains__(self, name: object) -> bool:
        return name in self.index["instances"]

    def __getitem__(self, name: str) -> Item:
        """An instance by name.

        Raises:
            ValueError: if there is none, with the nearest name.
        """
        if name not in self:
            near = difflib.get_close_matches(str(name), self.index["instances"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`cbs instances list` shows all"
            raise ValueError(f"library {os.fspath(self.folder)!r} has no instance {name!r}; {hint}")
        return self._item(name)

    def items(
        self,
        *,
        names: str | Sequence[str] | None = None,
        n: Sequence[int | None] | int | None = None,
        variant: str | None = None,
        budget: str | None = None,
        family: str | None = None,
        status: str | None = None,
        sparsity: float | None = None,
    ) -> Iterator[Item]:
        """Instances in the order of the index, all or those that meet every condition.

        Args:
            names: patterns of names, as `digits-*`.
            n: number of inputs, or the least and the most, either of which may be None.
            variant: `joint` or `selection`.
            budget: `per_row`, `per_layer`, `n_of_m`, `columns` or `network`.
            family: pattern of network and layer, as `digits/*`, or a network alone.
            status: `proven` or `open`.
            sparsity: share pruned, which counts round: to half an entry of a row.

        Raises:
            ValueError: for a word that is none of these, with the nearest.
        """
        for what, value, known in (
            ("variant", variant, VARIANTS), ("budget", budget, BUDGETS), ("status", status, STATUSES),
        ):  # fmt: skip
            if value is not None and value not in known:
                near = difflib.get_close_matches(str(value), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"unknown {what} {value!r}; {hint}")
        patterns = [names] if isinstance(names, str) else names
        low, high = (n, n) if n is None or isinstance(n, int) else n
        for name, entry in self.index["instances"].items():
            layers, width = entry["layers"], entry["n"]
            home = entry["network"] if len(layers) > 1 else f"{entry['network']}/{layers[0]}"
            if (
                (patterns is not None and not any(fnmatch.fnmatchcase(name, part) for part in patterns))
                or (low is not None and width < low)
                or (high is not None and width > high)
                or (variant is not None and entry["variant"] != variant)
                or (budget is not None and entry["budget"].get("kind") != budget)
                or (family is not None and not _matches(home, family))
                or (sparsity is not None and abs(entry["sparsity"] - sparsity) > 0.5 / width + 1e-9)
            ):
                continue
            item = self._item(name)
            if status is None or item.status == status:
                yield item

    def data(self, name: str) -> LayerData:
        """Data of a layer, which is held against its digest when it is read.

        Raises:
            ValueError: in one line, if it is not there, damaged, or other numbers than the index says.
        """
        if name not in self._held:
            path = self.data_path(name)
            if not path.is_file():
                raise ValueError(
                    f"library {os.fspath(self.folder)!r}: data {path.name} is not there; `cbs instances "
                    "make` makes what is missing"
                )
            found = LayerData.load(path)
            if found.digest() != self.index["data"][name]["digest"]:
                raise ValueError(
                    f"library {os.fspath(self.folder)!r}: data {path.name} holds other numbers than those "
                    "that the index was made of"
                )
            while len(self._held) > 3:
                self._held.pop(next(iter(self._held)))
            self._held[name] = found
        return self._held[name]

    def data_path(self, name: str) -> Path:
        """Where data of a layer is, or would be."""
        return self.folder / "data" / f"{name}.npz"

    def missing(self, name: str) -> list[str]:
        """Names of an instance's data that are not there, as where they were too large to pass on."""
        return [part for part in self.index["instances"][name]["data"] if not self.data_path(part).is_file()]

    def mask_path(self, name: str) -> Path:
        """Where the best mask of an instance is, or would be."""
        return self.folder / "masks" / f"{name}.npz"

    def certificate_path(self, name: str) -> Path:
        """Where the certificate of an instance is, or would be."""
        return self.folder / "certificates" / f"{name}.npz"

    def put_data(self, name: str, data: LayerData, about: Mapping[str, Any]) -> bool:
        """Add data of a layer, or see that what is there is the same.

        Args:
            name: of the data.
            data: the numbers.
            about: their provenance.

        Returns:
            Whether the numbers are those of the index. Where the index has others, nothing is written.
        """
        known = self.index["data"].get(name)
        same = known is None or known["digest"] == data.digest()
        if same:
            path = self.data_path(name)
            path.parent.mkdir(exist_ok=True)
            data.save(path)
            self._held[name] = data
        if known is None:
            with locked(self.folder):
                self.index = read_index(self.folder)
                self.index["data"][name] = {"digest": data.digest(), **about}
                write_index(self.folder, self.index)
        return same

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Add instances, as the index has them; those that are there stay as they are.

        Raises:
            ValueError: for a name that is not one of a file.
        """
        for name in entries:
            if not NAME.fullmatch(name):
                raise ValueError(f"instance name {name!r} must be of letters, digits, dots, dashes")
        with locked(self.folder):
            self.index = read_index(self.folder)
            there = self.index["instances"]
            there.update({name: dict(entry) for name, entry in entries.items() if name not in there})
            self._write()

    def note_part(self, settings: Mapping[str, Any], data: Sequence[str]) -> None:
        """Note that all instances of a part of a recipe are there.

        Args:
            settings: of the part.
            data: names of its data.
        """
        with locked(self.folder):
            self.index = read_index(self.folder)
            parts = [part for part in self.index.get("parts", []) if part["settings"] != settings]
            self.index["parts"] = [*parts, {"settings": dict(settings), "data": list(data)}]
            self._write()

    def record(
        self,
        name: str,
        known: Known,
        masks: Sequence[Mask] | None = None,
        *,
        before: Known | None = None,
        proof: bytes | None = None,
    ) -> Known:
        """Write down the best that is known of an instance; mask and proof are written before the index.

        Args:
            name: of the instance.
            known: the best value and bound.
            masks: of that value, one a layer; None where the value has not changed.
            before: what was known when the work began. If somebody has found something since, the better of
                both is kept, value and bound each for itself.
            proof: the certificate file of the bound; None where it has not changed.

        Returns:
            What is known now.
        """
        with locked(self.folder):
            self.index = read_index(self.folder)
            if before is not None:
                known, masks, proof = merged(self.known(name), before, known, masks, proof)
            if proof is not None:
                place = self.certificate_path(name)
                place.parent.mkdir(exist_ok=True)
                with replacing(place) as file:
                    file.write(proof)
            if masks is not None:
                path = self.mask_path(name)
                path.parent.mkdir(exist_ok=True)
                with replacing(path) as file:
                    np.savez(file, allow_pickle=False, **packed(masks))
            facts = {
                "value": known.value, "bound": known.bound, "value_by": known.value_by,
                "bound_by": known.bound_by, "certificate": known.certificate,
                "seconds": known.seconds,
            }  # fmt: skip
            entry = self.index["instances"][name]
            self.index["instances"][name] = entry | facts
            self._write()
        return known

    def known(self, name: str) -> Known:
        """The best value and bound of an instance."""
        entry = self.index["instances"][name]
        told = {field: entry.get(field) for field in ("value", "bound", "certificate")}
        return Known(
            **told,
            value_by=entry.get("value_by") or "",
            bound_by=entry.get("bound_by") or "",
            seconds=float(entry.get("seconds") or 0.0),
        )

    def problems(self, name: str) -> list[SubsetProblem]:
        """The problems of an instance, one a layer.

        Raises:
            ValueError: if its data can't be read, or does not make a problem.
        """
        entry = self.index["instances"][name]
        found = []
        try:
            for data, rows, budget in zip(entry["data"], entry["rows"], _budgets(entry), strict=True):
                layer = self.data(data)
                if max(rows) >= len(layer.weights):
                    raise ValueError(f"row {max(rows)} of {len(layer.weights)}")
                found.append(
                    SubsetProblem(
                        layer.weights[rows], layer.hessian, budget, refit=entry["variant"] == "joint"
                    )
                )
        except ValueError as error:
            raise ValueError(f"instance {name!r}: {error}") from None
        return found

    def masks(self, name: str) -> list[Mask] | None:
        """The best masks of an instance, one a layer; None where there are none.

        Raises:
            ValueError: in one line, if the file is damaged.
        """
        path = self.mask_path(name)
        if self.known(name).value is None or not path.is_file():
            return None
        return unpacked(path)

    def _write(self) -> None:
        write_index(self.folder, self.index)
        write_solu(self.folder / SOLU, self._solutions())

    def _solutions(self) -> dict[str, Solu]:
        """What the solution file says."""
        entries = {name: self.known(name) for name in self.index["instances"]}
        return {
            name: Solu(known.value, known.bound, known.status == "proven") for name, known in entries.items()
        }

    def solutions_agree(self) -> bool:
        """Whether the solution file says what the index says.

        Raises:
            ValueError: if it can't be read.
        """
        said = {
            name: Solu(known.value, known.value if known.optimal else known.bound, known.optimal)
            for name, known in self._solutions().items()
        }
        return read_solu(self.folder / SOLU) == said

    def _item(self, name: str) -> Item:
        entry = self.index["instances"][name]
        layers, known = entry["layers"], self.known(name)
        about = {
            layer: {field: value for field, value in self.index["data"][data].items() if field != "digest"}
            for layer, data in zip(layers, entry["data"], strict=True)
        }
        certificate = None
        if known.certificate is not None:
            certificate = str(self.folder / "certificates" / known.certificate)
        return Item(
            name, entry["digest"],
            entry["network"] if len(layers) > 1 else f"{entry['network']}/{layers[0]}",
            entry["network"], tuple(layers), entry["m"], entry["n"], entry["variant"],
            str(entry["budget"].get("kind")), float(entry["sparsity"]), about, known, certificate,
            load=lambda: self.problems(name), load_masks=lambda: self.masks(name),
        )  # fmt: skip


def _budgets(entry: Mapping[str, Any]) -> list[Any]:
    """The budget of every layer of an instance."""
    facts = entry["budget"]
    if facts.get("kind") != NETWORK:
        return [budget_of(facts)]
    shares = facts.get("shares")
    if not isinstance(shares, list) or len(shares) != len(entry["layers"]):
        raise ValueError(f"budget {NETWORK!r} with shares {shares!r}; need a number for every layer")
    return [budget_of({"kind": "per_layer", "prune": share}) for share in shares]


def _matches(home: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(home, pattern) or home.split("/")[0] == pattern
