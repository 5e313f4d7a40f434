"""The `cbs` command: its subcommands, and how it ends."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import traceback
import warnings
from typing import Annotated, Any, cast

import typer

from cbs.cli import curve, export, listing, prune, quantize, solve, verify
from cbs.cli.output import complain, telling_of_plugins, telling_the_log
from cbs.cli.signals import stopping
from cbs.cli.streams import standard_streams, unheard

UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""What the parser raises for bad arguments: Typer keeps it in a module without a public name."""

INTERRUPTED = 130
FAULT = 70
"""Exit status of an exception that nobody expected; 1 would say that a certificate is refuted."""

app = typer.Typer(
    name="cbs",
    help="Prune trained networks by the combinatorial Optimal Brain Surgeon, with certified gaps.",
    epilog="Exit status: 0 done (also at a limit), 1 a certificate refuted, 2 bad input or a file that could "
    "not be written, 130 interrupted with the best found written (143 by SIGTERM, 129 by SIGHUP).",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prune")(prune.prune)
app.command("quantize")(quantize.quantize)
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


@app.command("help", hidden=True)
def _help(context: typer.Context) -> None:
    """The commands, as `cbs --help` lists them."""
    print(context.find_root().get_help())


def main(argv: list[str] | None = None) -> int:
    """Run one `cbs` command.

    Args:
        argv: arguments after `cbs`; by default those of the process.

    Returns:
        The exit status: 0 done, 1 a certificate refuted, 2 bad input or a file that could not be written
        (one line on standard error says what), 130 interrupted (143 by SIGTERM, 129 by SIGHUP), 141 nobody
        reads standard output, 70 a fault of this program, with a traceback.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says where it can't keep its fonts
    with standard_streams(), stopping() as signals, telling_the_log(), telling_of_plugins():
        status = _status(argv)
        if status == INTERRUPTED and signals:
            status = 128 + signals[0]
    return status


def _status(argv: list[str] | None) -> int:
    try:
        status: Any = app(args=argv, prog_name="cbs", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        return complain(cast(Any, error).format_message())
    except BrokenPipeError as error:
        return unheard(error)
    except SystemExit as error:  # Typer's answer to a broken pipe, or a module's of the user
        if isinstance(error.__context__, BrokenPipeError):
            return unheard(error.__context__)
        return complain(f"code that was called here ended the process (status {error.code!r})")
    except OSError as error:
        return complain(
            f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        )
    except ValueError as error:
        return complain(str(error))
    except MemoryError as error:
        return complain(f"not enough memory for this ({error})")
    except RecursionError:
        return complain("the input is nested too deeply")
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAULT
    return status if isinstance(status, int) else 0
