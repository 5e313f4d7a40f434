"""The `cbs` command, a file a group of subcommands."""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one `cbs` command, which `cbs.cli.app.main` does; Ctrl-C while that is imported ends it quietly.

    Args:
        argv: arguments after `cbs`; by default those of the process.

    Returns:
        The exit status.
    """
    try:
        from cbs.cli.app import main as run
    except KeyboardInterrupt:
        return 130
    return run(argv)
