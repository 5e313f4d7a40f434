"""What every command takes beside its own options: a configuration file, and how much it says."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from cbs.cli import configuration
from cbs.cli.options import MORE, flag, option
from cbs.cli.tone import speaking

Quiet = Annotated[bool, flag("--quiet", "-q", panel=MORE, help="Answers only: neither progress nor remarks.")]
Verbose = Annotated[
    bool, flag("--verbose", "-v", panel=MORE, help="Log every pass and search on standard error.")
]
NoColor = Annotated[
    bool, flag("--no-color", panel=MORE, help="No colours, as where NO_COLOR is set or output is piped.")
]
OWN = ("config", "quiet", "verbose", "no_color")


@dataclass(frozen=True)
class Group:
    """A command with commands of its own, as `cbs study` has `run` and `show`.

    Attributes:
        panel: of the help of `cbs`, where it is listed.
        summary: one line of help.
        commands: by name.
    """

    panel: str
    summary: str
    commands: Mapping[str, Callable[..., Any]]


class Command(TyperCommand):
    """A command whose help has `--help` where all commands have the same, at its end."""

    def get_help_option(self, ctx: Any) -> Any:
        """See Typer."""
        found: Any = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel, found.metavar = MORE, ""
        return found


def shared(function: Callable[..., Any], names: Callable[[], list[str]]) -> Callable[..., Any]:
    """A command with the options that every command takes.

    Args:
        function: the command.
        names: gives those of all commands, whose tables a configuration file may have.
    """
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())
    kinds = {parameter.name: _kind(parameter.annotation) for parameter in own}
    kinds |= dict.fromkeys(OWN[1:], (bool, False))

    def configure(context: typer.Context, value: Path | None) -> Path | None:
        if value is not None and not context.resilient_parsing:
            known = {
                _spelled(parameter): configuration.Known(parameter.name, *kinds[parameter.name])
                for parameter in context.command.params
                if parameter.name in kinds and not parameter.is_eager
            }
            told = configuration.settings(value, context.command_path.partition(" ")[2], names(), known)
            context.default_map = {**(context.default_map or {}), **told}
        return value

    config = option(
        "--config", panel=MORE, metavar="FILE.toml", callback=configure, is_eager=True,
        help="Take options that are not typed from a file: by name, at its top or in a table a command.",
    )  # fmt: skip
    hints: dict[str, Any] = {
        "config": Annotated[Path | None, config], "quiet": Quiet, "verbose": Verbose, "no_color": NoColor,
    }  # fmt: skip
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter(name, kind, default=None if name == "config" else False, annotation=hint)
        for name, hint in hints.items()
    ]

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        said = {name: given.pop(name) for name in OWN}
        with speaking(quiet=said["quiet"], verbose=said["verbose"], no_color=said["no_color"]):
            return function(**given)

    positioned = [parameter.replace(kind=kind) for parameter in own]
    command.__signature__ = inspect.Signature([*positioned, *more])  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, **hints}
    return command


def _spelled(parameter: Any) -> str:
    """A parameter's name as it is typed, without dashes in front."""
    if parameter.param_type_name == "argument":
        return str(parameter.name).replace("_", "-")
    return str(max(parameter.opts, key=len)).lstrip("-")


def _kind(annotation: Any) -> tuple[type, bool]:
    """What a parameter's values are, and whether it takes several."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (types.UnionType, Union):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is list:
        return get_args(annotation)[0], True
    return (annotation if annotation in (bool, int, float, Path) else str), False
