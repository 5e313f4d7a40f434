"""The `cbs` command, a file a group of subcommands."""

from cbs.cli.app import main

__all__ = ["main"]
