"""Options that several commands have, described once, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

INPUT, HOW, LIMITS, OUTPUT, MORE = "Network and data", "How", "Limits", "Output", "Everywhere"
"""Panels of the help."""


def completed(known: Iterable[tuple[str, str]], begun: str) -> list[tuple[str, str]]:
    """Names with their helps that what is typed may become, the last one of a list with commas."""
    before, comma, last = begun.rpartition(",")
    return [(f"{before}{comma}{name}", told) for name, told in known if name.startswith(last)]


def method_names(incomplete: str) -> list[tuple[str, str]]:
    """Shell completion of methods."""
    import cbs

    return completed(((name, facts["selection"]) for name, facts in cbs.methods().items()), incomplete)


def solver_names(incomplete: str) -> list[tuple[str, str]]:
    """Shell completion of solvers."""
    import solvers

    return completed(
        ((name, str(facts["summary"])) for name, facts in solvers.available().items()), incomplete
    )


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """Shell completion of models: those that come with the package; files come by themselves."""
    known = (("digits", "an MLP on scikit-learn's digits"), ("mlpnet", "784-40-20-10 on MNIST"))
    return completed(known, incomplete)


def option(*names: str, panel: str | None = None, **settings: Any) -> Any:
    """An option, in a panel of the help."""
    return typer.Option(*names, rich_help_panel=panel, **settings)


def flag(*names: str, panel: str | None = None, **settings: Any) -> Any:
    """An option that is there or not, and takes no value."""
    return typer.Option(*names, rich_help_panel=panel, metavar="", **settings)


SOURCE = "FILE.py:NAME or package.module:NAME"
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"digits, mlpnet, or your own: {SOURCE} of a torch.nn.Module or of a function that makes one.",
        autocompletion=model_names,
    ),
]
Weights = Annotated[
    Path | None,
    option(
        panel=INPUT, metavar="FILE", help="State dict, .safetensors or .pt; embedded models train without."
    ),
]
Data = Annotated[
    str | None,
    option(
        panel=INPUT,
        metavar="FILE.py:NAME",
        help="Calibration data, or a function that returns it; so --test.",
    ),
]
Test = Annotated[
    str | None, option(panel=INPUT, metavar="FILE.py:NAME", help="Held-out data for the accuracy.")
]
DataDir = Annotated[
    Path | None,
    option(panel=INPUT, metavar="FOLDER", help="Folder of the MNIST files for mlpnet.", envvar="CBS_DATA"),
]
Layers = Annotated[
    list[str] | None,
    option(
        panel=INPUT, metavar="NAMES",
        help="Layers to take. Repeat it or use commas.  [default: all]",
    ),
]  # fmt: skip
File = Annotated[
    Path, typer.Argument(metavar="FILE.npz", help="Instance file; docs/instances.md says its fields.")
]
Limit = Annotated[
    float | None,
    option("--time-limit", panel=LIMITS, metavar="SECONDS", help="Wall time; no limit if absent."),
]
Seed = Annotated[int, option(panel=HOW, metavar="NUMBER", help="Of every random choice.", min=0)]
Device = Annotated[
    str, option(panel=HOW, metavar="NAME", help="Torch device for the network and for array work.")
]
Json = Annotated[bool, flag("--json", panel=OUTPUT, help="Print one JSON object; what is infinite is null.")]
Wide = Annotated[bool, flag("--wide", panel=OUTPUT, help="Print all columns, however wide they get.")]


def listed(name: str, values: list[str] | None) -> list[str]:
    """The parts of an option that may be repeated, and hold several with commas between them.

    Args:
        name: of the option, for the complaint.
        values: what was given, or None.

    Raises:
        ValueError: if something was given, but names nothing.
    """
    parts = [part.strip() for value in values or [] for part in value.split(",")]
    found = list(dict.fromkeys(part for part in parts if part))
    if values and not found:
        raise ValueError(f"{name} names nothing, got {' '.join(values)!r}; leave it out for the default")
    return found
