"""The `cbs` command: its subcommands, and how it ends."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from typing import Annotated, Any, cast

import typer

from cbs.cli import curve, export, listing, prune, solve, verify
from cbs.cli.output import complain

UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""What the parser raises for bad arguments: Typer keeps it in a module without a public name."""

app = typer.Typer(
    name="cbs",
    help="Prune trained networks by the combinatorial Optimal Brain Surgeon, with certified gaps.",
    epilog="Exit status: 0 done (also at a limit), 1 a certificate refuted, 2 bad input, "
    "130 interrupted with the best found written.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prune")(prune.prune)
app.command("solve")(solve.solve)
app.command("bound")(solve.bound)
app.command("curve")(curve.curve)
app.command("verify")(verify.verify)
app.command("export")(export.export)
app.command("solvers")(listing.solvers)
app.command("methods")(listing.methods)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print it and exit.")] = False,
) -> None:
    if version:
        print(importlib.metadata.version("combinatorial-brain-surgeon"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run one `cbs` command.

    Args:
        argv: arguments after `cbs`; by default those of the process.

    Returns:
        The exit status: 0 done, 1 a certificate refuted, 2 bad input (one line on standard error says
        what), 130 interrupted.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        status: Any = app(args=argv, prog_name="cbs", standalone_mode=False)
    except UsageError as error:
        return complain(cast(Any, error).format_message())
    except OSError as error:
        return complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        return complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    return status if isinstance(status, int) else 0
