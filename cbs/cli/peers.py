"""`cbs peers`: solvers of others in environments of their own, made, listed and deleted."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.everywhere import Group
from cbs.cli.options import Json, flag

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Peers; default: all.")]
Named = Annotated[list[str], typer.Argument(metavar="NAME", help="Peers.")]


def install(
    names: Names = None,
    again: Annotated[bool, flag("--again", help="Make it anew if it is there.")] = False,
) -> int:
    """Make the environments of peers, each with exact versions, by your own pip and its configuration.

    They are made in the folder that CBS_PEERS names, or in your cache folder. What is there already is
    kept; what fails leaves nothing behind, and the others are made all the same.

    For example:

    `cbs peers install okridge l0bnb`
    """
    from solvers.peers.environment import install as make
    from solvers.peers.environment import state

    console, failed = output.progress(), 0
    for name in _known(names):
        if (facts := state(name)) is not None and not again:
            console.print(f"{name}: {facts['version']} is there")
            continue
        try:
            make(name, again=again, tell=console.print)
        except ValueError as error:
            failed = output.complain(str(error))
    return failed


def list_peers(as_json: Json = False) -> None:
    """List the peers: which are installed, in what version and where.

    For example:

    `cbs peers list --json`
    """
    from solvers.peers.environment import folder, outdated, state
    from solvers.peers.known import LEFT_OUT, PEERS

    found: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        facts = state(peer.name)
        found[peer.name] = {
            "summary": peer.summary, "installed": facts is not None, "install": peer.install_hint(),
            "version": facts and facts["version"], "python": facts and facts["python"],
            "folder": str(folder() / peer.name), "outdated": outdated(peer.name),
        }  # fmt: skip
    if as_json:
        output.print_json({"peers": found, "left_out": dict(LEFT_OUT)})
        return
    output.print_table(
        ("peer", "version", "what it is"),
        [(name, facts["version"] or "-", facts["summary"]) for name, facts in found.items()],
    )
    if missing := [(name, facts) for name, facts in found.items() if not facts["installed"]]:
        output.results().print("\nnot installed:")
        again = {True: " (it is of another release)", False: ""}
        output.print_table(
            ("", ""), [(name, facts["install"] + again[facts["outdated"]]) for name, facts in missing]
        )
    output.results().print("\nnot to be had:")
    output.print_table(("", ""), list(LEFT_OUT.items()))
    output.results().print(f"\nin {folder()}", soft_wrap=True)


def remove(names: Named) -> None:
    """Delete the environments of peers.

    For example:

    `cbs peers remove l0bnb`
    """
    from solvers.peers.environment import remove as delete

    for name in _known(names):
        there = delete(name)
        output.progress().print(f"{name}: {'deleted' if there else 'was not installed'}")


def _known(names: Sequence[str] | None) -> list[str]:
    """The peers that are meant, each once; ValueError for a name that is none."""
    from solvers.peers.known import LEFT_OUT, PEERS

    known = [peer.name for peer in PEERS]
    for name in names or ():
        if name in LEFT_OUT:
            raise ValueError(f"peer {name!r} can't be installed: {LEFT_OUT[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"unknown peer {name!r}; "
                + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
            )
    return list(dict.fromkeys(names or known))


GROUP = Group(
    "What there is",
    "Solvers of others in environments of their own: install, list, remove.",
    {"install": install, "list": list_peers, "remove": remove},
)
