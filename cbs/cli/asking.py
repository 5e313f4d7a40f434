"""An option of `cbs prune` for every field of `Request`, in panels, with a line of help and all of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from cbs.arguments import helps
from cbs.checks import GRANULARITIES, MATCHES, PIPELINES, REFITS, SCOPES
from cbs.cli.options import HOW, INPUT, LIMITS, completed, flag, method_names, option, solver_names
from cbs.request import Request

F = TypeVar("F", bound=Callable[..., Any])
WHAT, REFIT = "What to prune", "After pruning"
PANELS = {
    INPUT: ("samples", "loss", "output", "padding"),
    WHAT: ("sparsity", "method", "scope", "budget", "granularity", "layers", "exclude", "along"),
    LIMITS: (
        "gap",
        "time_limit",
        "patience",
        "memory",
        "certify",
        "max_loss_increase",
        "max_accuracy_drop",
    ),
    REFIT: ("refit", "match", "labels", "norms", "reselect", "finetune"),
}
"""By panel of the help, the fields in it; all others are in that of `HOW`."""
SHORT = {
    "sparsity": "Fraction of the weights, or of the neurons, to prune.",
    "method": "See `cbs methods`.",
    "scope": "Where the sparsity is met: `row`, `layer` or `network`.",
    "budget": "`unstructured`, N:M such as `2:4`, or `columns`.",
    "granularity": "`weights` or `neurons`; if absent what the method prunes.",
    "solver": "See `cbs solvers`.",
    "gap": "Relative gap at which a search may stop.",
    "time_limit": "For the searches of one pruning; none if absent.",
    "patience": "To prove one layer, where there is no time limit; 0 for no end.",
    "damping": "Added to every curvature's diagonal, relative to its mean.",
    "samples": "How many to calibrate on; if absent all, or 1000 for per-sample gradients.",
    "layers": "Layers to prune, or patterns such as `encoder.*`.",
    "exclude": "Layers to leave out, by name or pattern.",
    "max_loss_increase": "Instead of a sparsity: the largest one that costs no more than this.",
    "max_accuracy_drop": "The same for the accuracy, a fraction: 0.01 is a percentage point.",
    "along": "Neighbours of N:M in a convolution: `channels` or `kernel`.",
    "loss": "Of torch.nn.functional, as `mse_loss`, or FILE.py:NAME.",
    "certify": "Bounds where the method has none; slow for wide layers.",
    "pipeline": "`one-shot`, or `sequential`: on what pruned layers give.",
    "refit": "What moves once more: `layer` or `network`; if absent nothing.",
    "match": "`probabilities` or `outputs`, for refit `network`.",
    "labels": "Refit `network` to the labels instead.",
    "norms": "Batch norms' statistics anew; if absent where it helps.",
    "reselect": "Masks anew by the network's curvature; if absent where it can be done.",
    "stages": "Prunings that lead there, as 5, 5:cubic or 0.5,0.8,0.9.",
    "finetune": "Training after every stage.",
    "output": "Which of a model's outputs is looked at: a place, or a name.",
    "padding": "Entry of a batch that marks real places, or after `~` padding.",
    "memory": "GiB to take beyond what the process holds; if absent 2.5 or so.",
    "seed": "Of every random choice.",
    "device": "Torch device for the network and for array work.",
    "executor": "Whose workers solve: `processes:4`, `dask:tcp://HOST:PORT` ...",
}
"""A line about a field; of others the help has the first sentence of what `Request` says."""
TYPED = {"output": "model_output"}
"""Fields that are typed by another name than their own: `--output` is where files go."""
METAVARS = {
    "sparsity": "FRACTION", "time_limit": "SECONDS", "patience": "SECONDS", "finetune": "EPOCHS",
    "stages": "STAGES",
}  # fmt: skip
KINDS = {int: "NUMBER", float: "NUMBER", str: "NAME"}
CHOICES = {
    "scope": SCOPES, "budget": ("unstructured", "2:4", "columns"), "granularity": GRANULARITIES,
    "pipeline": PIPELINES, "refit": REFITS, "match": MATCHES,
}  # fmt: skip
"""What a shell offers."""


def asking(command: F) -> F:
    """Give a command an option for every field of `Request` that it does not have already.

    Args:
        command: that takes them as its `**options`; in its help they follow `layers`.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    names = [parameter.name for parameter in own]
    asked = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
            annotation=Annotated[_type(str(field.type)), field_option(field.name, *_typed(field.name))],
        )
        for field in fields(Request)
        if field.name not in names
    ]  # fmt: skip
    ranks = list(PANELS)
    asked.sort(key=lambda p: ranks.index(panel(p.name)) if panel(p.name) in ranks else len(ranks))
    at = names.index("layers") + 1
    kind = inspect.Parameter.KEYWORD_ONLY
    ordered = [parameter.replace(kind=kind) for parameter in (*own[:at], *asked, *own[at:-1])]
    command.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    return command


def _typed(name: str) -> list[str]:
    """How a field is typed, where that is not by its name."""
    return [f"--{TYPED[name].replace('_', '-')}"] if name in TYPED else []


def field_option(name: str, *declarations: str, more: str = "") -> Any:
    """The option of a field.

    Args:
        name: of the field.
        declarations: how it is typed, if not by its name.
        more: what the command line adds to its help.
    """
    kind = _type(next(str(field.type) for field in fields(Request) if field.name == name))
    about: dict[str, Any] = {"panel": panel(name), "help": short(name) + more}
    if kind in (bool, bool | None):
        return flag(*declarations, **about)
    offered = {"method": method_names, "solver": solver_names}.get(name)
    if name in CHOICES:
        offered = partial(completed, [(choice, "") for choice in CHOICES[name]])
    plain = next((plain for plain in KINDS if kind in (plain, plain | None)), None)
    metavar = METAVARS.get(name) or ("NAMES" if plain is None else KINDS[plain])
    return option(*declarations, metavar=metavar, autocompletion=_of_one(offered), **about)


def panel(name: str) -> str:
    """Of the help, in which a field is."""
    return next((panel for panel, names in PANELS.items() if name in names), HOW)


def short(name: str) -> str:
    """A field in one line."""
    first, _, _ = helps()[name].partition(". ")
    return SHORT.get(name) or f"{first[:1].upper()}{first[1:].rstrip('.')}."


def help_all(context: typer.Context, value: bool) -> None:
    """Show the help with all that `Request` says of its fields, and end."""
    if not value or context.resilient_parsing:
        return
    texts, before = helps(), {}
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in texts:
            before[parameter] = told = getattr(parameter, "help", None) or ""
            full = f"{texts[name][:1].upper()}{texts[name][1:]}"
            parameter.help = full + told.removeprefix(short(name))  # type: ignore[attr-defined]
    try:
        print(context.get_help())
    finally:
        for parameter, told in before.items():
            parameter.help = told  # type: ignore[attr-defined]
    raise typer.Exit


def _of_one(offered: Callable[[str], Any] | None) -> Callable[[str], Any] | None:
    """What is offered for a word, as a function whose argument has the name that Typer looks for."""
    if offered is None:
        return None

    def complete(incomplete: str) -> Any:
        return offered(incomplete)

    return complete


def _type(annotation: str) -> Any:
    """Of an option whose field has this annotation: the part of it that can be typed, or None."""
    parts = annotation.split(" | ")
    if not any(kind.__name__ in parts for kind in (str, int, float, bool)):
        return list[str] | None  # a sequence of names
    kind, *_ = (kind for kind in (str, int, float, bool) if kind.__name__ in parts)
    return kind | None if "None" in parts else kind
