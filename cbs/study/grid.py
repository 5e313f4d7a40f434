"""From a study to its cells: what is crossed with what, and what is left out because nobody can do it."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from cbs.names import unknown
from cbs.study import calls
from cbs.study.cell import Cell, canonical
from cbs.study.schema import FACTS, fits
from cbs.study.sources import Instance, instances
from cbs.study.studyfile import Study
from solvers import Solver, get_solver
from solvers.peers.environment import state
from solvers.peers.peer import Peer
from solvers.solve import check_support, registry

Told = Callable[[str], None]
"""Hears what is being read or made."""


@dataclass(frozen=True)
class Grid:
    """A study's cells.

    Attributes:
        cells: instance by instance, so that what is there early can be compared.
        left_out: in words, what of the grid has no cell, and why, with the number of cells.
        whole: whether these are all cells of the study.
    """

    cells: list[Cell]
    left_out: dict[str, int]
    whole: bool = True

    def only(self, pattern: str | None) -> Grid:
        """The cells whose instance or solver has a text in it, or matches a shell pattern; None for all.

        Raises:
            ValueError: if there are none.
        """
        if pattern is None:
            return self
        wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
        cells = [
            cell
            for cell in self.cells
            if fnmatch.fnmatchcase(cell.instance, wanted) or fnmatch.fnmatchcase(cell.solver, wanted)
        ]
        if not cells:
            raise ValueError(f"only {pattern!r} meets no cell, neither its instance nor its solver")
        return Grid(cells, self.left_out, whole=False)


def grid(study: Study, data_dir: Path | None = None, told: Told = lambda what: None) -> Grid:
    """Everything that a study asks for.

    Args:
        study: what is asked.
        data_dir: folder of data sets, for networks and functions.
        told: hears what is being read or made.

    Raises:
        ValueError: in one line, for a solver that is unknown or not installed (and not optional), an unknown
            option, or instances, networks and functions that can't be had.
    """
    left_out: dict[str, int] = {}
    cells = [
        *_solves(study, data_dir, told, left_out), *_prunings(study, data_dir, told),
        *_calls(study, data_dir),
    ]  # fmt: skip
    return Grid(cells, left_out)


def _solves(study: Study, data_dir: Path | None, told: Told, left_out: dict[str, int]) -> Iterator[Cell]:
    named: list[tuple[Mapping[str, Any], Solver, dict[str, Any]]] = []
    for table in study.solvers:
        known = registry()
        if table["name"] in known and not known[table["name"]].installed() and table["optional"]:
            left_out[f"solver {table['name']} is not installed"] = 0
            continue
        named.append((table, *_with_options(table)))
    problems: dict[str, Instance] = {}
    for source in study.instances:
        told(f"instances: {source['source']} {source[source['source']]}")
        for instance in instances(source, study.folder, data_dir):
            if instance.name in problems and problems[instance.name].digest != instance.digest:
                raise ValueError(f"{source['where']}: two instances are called {instance.name!r}")
            problems.setdefault(instance.name, instance)
    for instance in problems.values():
        problem = instance.problem() if named else None
        for table, solver, options in named:
            label = table["label"] or table["name"]
            if table["most_n"] is not None and instance.facts["n"] > table["most_n"]:
                why = f"{label}: more than {table['most_n']} inputs"
                left_out[why] = left_out.get(why, 0) + 1
                continue
            try:
                assert problem is not None
                check_support(solver, problem)
            except ValueError as error:
                left_out[str(error)] = left_out.get(str(error), 0) + 1
                continue
            limits, seeds = (
                table["time_limits"] or study.top["time_limits"],
                table["seeds"] or study.top["seeds"],
            )
            for limit, seed in product(limits, seeds):
                yield Cell(
                    "solve", instance.name, instance.digest, label, options, limit, study.top["gap"], seed,
                    {"solver": table["name"], **({"certify": True} if table["certify"] else {}),
                     **_wheels(solver)},
                    instance.facts,
                    _solve_payload(instance, solver, limit, study.top["gap"], seed, table["certify"]),
                )  # fmt: skip


def _solve_payload(
    instance: Instance, solver: Solver, limit: float | None, gap: float, seed: int, certify: bool
) -> Callable[[], Mapping[str, Any]]:
    return lambda: {
        "problem": instance.problem(), "solver": solver, "time_limit": limit, "gap": gap, "seed": seed,
        "certify": certify,
    }  # fmt: skip


def _with_options(table: Mapping[str, Any]) -> tuple[Solver, dict[str, Any]]:
    """A solver with the options that a study gives it.

    Raises:
        ValueError: for an unknown solver or option (with the nearest), or one that can't be had.
    """
    solver, options = get_solver(table["name"]), dict(table["options"])
    known = {field.name: field.default for field in fields(solver) if field.init}  # type: ignore[arg-type]
    kinds = get_type_hints(type(solver))
    for name, value in options.items():
        if name not in known:
            said = unknown("option", name, list(known)) if known else f"unknown option {name!r}; it has none"
            raise ValueError(f"solver {table['name']!r}: {said}")
        if not _is(value, kinds[name]):
            told = f"option {name} can't be {value!r:.60}; its default is {known[name]!r}"
            raise ValueError(f"solver {table['name']!r}: {told}")
    try:
        return replace(solver, **options), options  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise ValueError(f"solver {table['name']!r}: {error}") from None


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of TOML is of an option's kind; kinds that TOML does not have take anything."""
    parts = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    plain = [part for part in parts if part in (bool, int, float, str)]
    if len(plain) < len([part for part in parts if part is not type(None)]):
        return True
    wanted = tuple(plain) + ((int,) if float in plain else ())
    return isinstance(value, wanted) and (bool in plain or not isinstance(value, bool))


def _wheels(solver: Solver) -> dict[str, str]:
    """Versions of what a solver of others requires, which decide what it does."""
    if isinstance(solver, Peer):
        made = state(solver.name)
        return {} if made is None else {"wheel": f"{solver.name} {made['version']}"}
    found = {}
    wheel = solver.wheel.split(">")[0].split("=")[0].split("[")[0]
    if wheel:
        try:
            found["wheel"] = f"{wheel} {importlib.metadata.version(wheel)}"
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def _prunings(study: Study, data_dir: Path | None, told: Told) -> Iterator[Cell]:
    if not study.models:
        return
    from cbs.names import check_name
    from cbs.prune import requests
    from cbs.report.identity import identity
    from cbs.request import Request
    from cbs.study.models import network

    known = [each.name for each in fields(Request) if each.name not in ("sparsity", "method", "seed")]
    for method in study.methods:
        for name in method["models"] or ():
            check_name("model", name, [model["label"] or model["name"] for model in study.models])
    for model in study.models:
        label = model["label"] or model["name"]
        place = calls.absolute(model["name"], study.folder)
        told(f"network: {label}")
        net, train, test, layers = network(place, model["seed"], data_dir)
        data = train.choose(model["samples"], model["seed"]) if model["samples"] else train
        held_out = test if not model["test"] or test is None else test.choose(model["test"], 0)
        digest = hashlib.sha256(canonical(identity(net, data, held_out)).encode()).hexdigest()
        layers = list(model["layers"]) if model["layers"] else layers
        for method, schedule in product(study.methods, study.schedules):
            if method["models"] and label not in method["models"]:
                continue
            options = {**method["options"], **schedule["options"]}
            for name in options:
                if name not in known:
                    own = method["label"] or method["name"]
                    raise ValueError(f"[[methods]] {own}: {unknown('option', name, known)}")
            told_of = {**options, **({"layers": layers} if layers else {})}
            try:
                requests(
                    list(method["sparsities"]),
                    [method["name"]],
                    **{"layers": layers, **options} if layers else options,
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"[[methods]] {method['label'] or method['name']}: {error}") from None
            named = " ".join(part for part in (method["label"] or method["name"], schedule["label"]) if part)
            for sparsity, seed in product(method["sparsities"], method["seeds"] or study.top["seeds"]):
                yield Cell(
                    "prune", label, digest, named, told_of, options.get("time_limit"), options.get("gap"),
                    seed, {"method": method["name"], "sparsity": sparsity, "samples": len(data)},
                    {"family": label, "sparsity": sparsity, "budget": options.get("budget", "unstructured")},
                    _prune_payload(place, model, method["name"], sparsity, seed, told_of, data_dir),
                )  # fmt: skip


def _prune_payload(
    place: str, model: Mapping[str, Any], method: str, sparsity: float, seed: int, options: Mapping[str, Any],
    data_dir: Path | None,
) -> Callable[[], Mapping[str, Any]]:  # fmt: skip
    return lambda: {
        "model": place, "model_seed": model["seed"], "samples": model["samples"], "test": model["test"],
        "method": method, "sparsity": sparsity, "seed": seed, "options": options,
        "data_dir": None if data_dir is None else str(data_dir),
    }  # fmt: skip


def _calls(study: Study, data_dir: Path | None) -> Iterator[Cell]:
    labels: dict[str, str] = {}
    for i, table in enumerate(study.calls):
        where = f"[[calls]] {i + 1}"
        place = calls.absolute(table["function"], study.folder)
        made = calls.function(place)
        label = table["label"] or place.rpartition(":")[2]
        if labels.setdefault(label, place) != place:
            raise ValueError(f"[[calls]] has {label!r} for two functions; give one of them a label")
        seeded = "seed" in calls.signature_of(place, made).parameters
        spanned = [
            (parameters, {**parameters, "seed": seed} if own else parameters)
            for parameters in calls.grid(table, where)
            for own in [seeded and "seed" not in parameters]
            for seed in (study.top["seeds"] if own else (0,))
        ]
        for parameters, given in spanned:
            calls.check_parameters(place, made, given)
            case = " ".join(f"{name}={_short(value)}" for name, value in parameters.items())
            facts = {name: parameters[name] for name in FACTS if fits(name, parameters.get(name))}
            yield Cell(
                "call", case or label, "", label, {}, table["time_limit"], None, int(given.get("seed", 0)),
                {"function": f"{study.name}/{table['function']}", "parameters": parameters,
                 "revision": table["revision"]}, facts,
                _call_payload(place, given, data_dir),
            )  # fmt: skip


def _call_payload(
    place: str, parameters: Mapping[str, Any], data_dir: Path | None
) -> Callable[[], Mapping[str, Any]]:
    return lambda: {
        "function": place, "parameters": parameters, "data_dir": None if data_dir is None else str(data_dir),
    }  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
