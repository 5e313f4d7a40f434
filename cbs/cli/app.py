"""The `cbs` command: its subcommands, and how it ends."""

from __future__ import annotations

import atexit
import importlib.metadata
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, NoReturn, cast

import typer
import typer.main

from cbs.cli import (
    bench,
    curve,
    diagnose,
    doctor,
    export,
    instances,
    listing,
    peers,
    prune,
    quantize,
    report,
    solve,
    study,
    verify,
    warm,
)  # fmt: skip
from cbs.cli.everywhere import Command, Group, shared
from cbs.cli.output import complain, telling_of_plugins
from cbs.cli.signals import stopping
from cbs.cli.streams import standard_streams, unheard

UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""What the parser raises for bad arguments: Typer keeps it in a module without a public name."""

INTERRUPTED = 130
FAULT = 70
"""Exit status of an exception that nobody expected; 1 would say that a certificate is refuted."""

COMPLETE = "_CBS_COMPLETE"
"""Environment variable by which a shell asks what a word may become."""
COMMANDS: dict[str, dict[str, Callable[..., Any]]] = {
    "Networks": {
        "prune": prune.prune, "quantize": quantize.quantize, "export": export.export, "bench": bench.bench,
        "diagnose": diagnose.diagnose, "audit": diagnose.audit,
    },
    "One problem": {
        "solve": solve.solve, "bound": solve.bound, "curve": curve.curve, "verify": verify.verify,
    },
    "Studies": {"report": report.report},
    "What there is": {"solvers": listing.solvers, "methods": listing.methods, "doctor": doctor.doctor,
                      "warm": warm.warm},
}  # fmt: skip
"""By panel of the help."""
GROUPS: dict[str, Group] = {
    "study": study.GROUP, "instances": instances.GROUP, "peers": peers.GROUP,
}  # fmt: skip
"""Commands with commands of their own."""

app = typer.Typer(
    name="cbs",
    help="Prune trained networks by the combinatorial Optimal Brain Surgeon, with certified gaps.",
    epilog="Exit status: 0 done (also at a limit), 1 a certificate refuted (by `cbs doctor --solve` a "
    "solver, by `cbs study` a cell that failed), 2 bad input or a file that could not be written, 130 "
    "interrupted with the best found written "
    "(143 by SIGTERM, 129 by SIGHUP).",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def _command() -> Any:
    """The command as the parser has it; making it takes longer than most commands."""
    return typer.main.get_command(app)


def command_names() -> list[str]:
    """Names of the subcommands; those of a group after its own, as `study run`."""
    plain = [name for commands in COMMANDS.values() for name in commands]
    return plain + [f"{name} {part}" for name, group in GROUPS.items() for part in group.commands]


for _panel, _commands in COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_panel)(shared(_function, command_names))

for _name, _group in GROUPS.items():
    _inner = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True, help=_group.summary)
    for _part, _function in _group.commands.items():
        _inner.command(_part, cls=Command)(shared(_function, command_names))
    app.add_typer(_inner, name=_name, rich_help_panel=_group.panel)


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
    if COMPLETE in os.environ:
        return _completed()
    arguments = sys.argv[1:] if argv is None else list(argv)
    with standard_streams(), stopping() as signals, telling_of_plugins():
        status = _status(arguments, signals)
        if status == INTERRUPTED and signals:
            status = 128 + signals[0]
    if argv is None and status == INTERRUPTED:
        _end(status)
    return status


def _end(status: int) -> NoReturn:
    """End the process with a status of its own.

    One that saw Ctrl-C in code that it executed from text, as modules with dataclasses do, would else be
    ended by that signal again.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(status)


def _completed() -> int:
    """Answer a shell's question; nothing else may be printed."""
    try:
        app(prog_name="cbs", complete_var=COMPLETE)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except Exception:  # a shell has no use for complaints
        return 1
    return 0


def _status(argv: list[str], signals: Sequence[int]) -> int:
    try:
        status: Any = _command()(args=argv, prog_name="cbs", standalone_mode=False, obj=argv)
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
        return (
            INTERRUPTED
            if signals
            else complain(
                f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            )
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
        if signals:  # it came amid an import, say, which then failed
            return INTERRUPTED
        traceback.print_exc()
        return FAULT
    return status if isinstance(status, int) else 0
