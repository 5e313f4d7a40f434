"""`cbs instances`: libraries of instances: made, listed, exported, solved, checked, and claims taken in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.clock import Clock
from cbs.cli.everywhere import Group
from cbs.cli.options import HOW, INPUT, LIMITS, OUTPUT, Json, Seed, Wide, flag, option, solver_names
from cbs.cli.which import (
    WHICH,
    Budget,
    Family,
    Folder,
    Least,
    Most,
    Names,
    Open,
    Proven,
    Variant,
    chosen,
    number,
    opened,
    there,
)  # fmt: skip

if TYPE_CHECKING:
    from solvers.instances.item import Item
    from solvers.instances.library import Library

FORMATS = ("npz", "mps", "lp", "qplib")


def make(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="digits, standard, or a TOML file.")
    ] = "digits",
    to: Annotated[
        Path, option("--output", "-o", panel=OUTPUT, metavar="FOLDER", help="Of the library.")
    ] = Path("instances"),
    data_dir: Annotated[
        Path | None,
        option(panel=INPUT, metavar="FOLDER", help="With the networks and their data.", envvar="CBS_DATA"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Make a library of instances: rows, layers and whole networks, by a recipe.

    What the folder has stays; what it lacks is made, so that an interrupted run goes on where it was.

    For example:

    `cbs instances make digits -o instances`
    """
    from cbs.instances import make as run
    from cbs.instances import read_recipe

    asked = read_recipe(recipe)
    with _keeping(), Clock("network") as clock:
        done = run(
            asked, to, data_dir=data_dir,
            callback=lambda step: clock.tell(f"{step.network}/{step.layer}", step.index, step.count),
        )  # fmt: skip
    if as_json:
        output.print_json(
            {
                "instances": done.instances, "kept": len(done.kept), "data": done.data,
                "differing": done.differing,
            }
        )  # fmt: skip
    else:
        print(f"{len(done.instances)} instances made, {len(done.kept)} were there, in {to}")
    for name in done.differing:
        output.remark(
            f"data {name}: made here it holds other numbers than those of the index (other versions, or "
            "another machine); it is not written"
        )
    return 0


def list_(
    folder: Folder,
    names: Names = None, family: Family = None, variant: Variant = None, budget: Budget = None,
    least: Least = None, most: Most = None, only_open: Open = False, proven: Proven = False,
    summary: Annotated[
        bool, flag("--summary", panel=OUTPUT, help="A line for every network, budget and variant.")
    ] = False,
    wide: Wide = False, as_json: Json = False,
) -> None:  # fmt: skip
    """List instances with their best values, bounds and gaps; with --open the widest gaps first.

    For example:

    `cbs instances list instances --open --variant joint`

    `cbs instances list instances --summary`
    """
    items = [*chosen(opened(folder), names, family, variant, budget, least, most, only_open, proven)]
    if only_open:
        items.sort(key=lambda item: -item.known.gap)
    if summary:
        _summarise(items, wide, as_json)
        return
    if as_json:
        output.print_json({"instances": [item.facts() for item in items]})
        return
    headings = ("instance", "m", "n", "value", "bound", "gap", "status")
    rows = [
        (
            item.name, str(item.m), str(item.n), number(item.value), number(item.bound),
            output.percent(item.known.gap), item.status,
        )
        for item in items
    ]  # fmt: skip
    output.print_table(headings, rows, right=True, wide=wide)
    if not items:
        output.remark("no instance is so")


def export(
    folder: Folder,
    to: Annotated[Path, option("--output", "-o", panel=OUTPUT, metavar="FOLDER", help="Where to.")],
    format: Annotated[
        str, option("--format", panel=OUTPUT, metavar="NAME", help=", ".join(FORMATS))
    ] = "npz",
    names: Names = None, family: Family = None, variant: Variant = None, budget: Budget = None,
    least: Least = None, most: Most = None, only_open: Open = False, proven: Proven = False,
) -> int:  # fmt: skip
    """Write instances as files: `.npz` for `cbs solve`, `.mps` and `.lp`, or `.qplib`; and a `.solu` file.

    For example:

    `cbs instances export instances --format qplib -o files --variant selection`
    """
    from solvers import instances
    from solvers.instances.library import SOLU
    from solvers.instances.qplib import write_qplib
    from solvers.instances.solu import Solu, write_solu

    if format not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}")
    to.mkdir(parents=True, exist_ok=True)
    said, count = {}, 0
    library = opened(folder)
    items = [*chosen(library, names, family, variant, budget, least, most, only_open, proven)]
    items = there(library, items)
    with output.telling_interruption(), Clock("instance") as clock:
        for done, item in enumerate(items):
            problems, unit = item.problems(), 1.0
            for i, problem in enumerate(problems):
                end = "" if len(problems) == 1 else f".{i}"
                path = to / f"{item.name}{end}.{format}"
                if format == "npz":
                    instances.save(path, problem)
                elif format == "qplib":
                    write_qplib(path, problem, item.name)
                else:
                    unit = instances.export(path, problem)
                count += 1
            if len(problems) == 1:
                known = item.known
                value, bound = (None if x is None else x / unit for x in (known.value, known.bound))
                said[item.name] = Solu(value, bound, known.status == "proven")
            clock.tell(item.name, done, len(items))
    write_solu(to / SOLU, said)
    print(f"{count} files of {len(items)} instances, and {SOLU}, in {to}")
    return 0


def solve(
    folder: Folder,
    time_limit: Annotated[
        float, option("--time-limit", panel=LIMITS, metavar="SECONDS", help="For each instance.")
    ] = 60.0,
    solver: Annotated[
        str, option("--solver", "-s", panel=HOW, metavar="NAME", help="See `cbs solvers`.",
                    autocompletion=solver_names)
    ] = "auto",
    seed: Seed = 0,
    no_certificates: Annotated[
        bool, flag("--no-certificates", panel=OUTPUT, help="Ask for none, not even of small instances.")
    ] = False,
    unsolved: Annotated[
        bool, flag("--new", panel=WHICH, help="Those that our solvers have not been run on.")
    ] = False,
    names: Names = None, family: Family = None, variant: Variant = None, budget: Budget = None,
    least: Least = None, most: Most = None, only_open: Open = False, proven: Proven = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Improve best masks, bounds and certificates by our solvers; what got better is kept at once.

    For example:

    `cbs instances solve instances --open --time-limit 600`
    """
    import solvers
    from solvers.control import Control, check_limits, interruptible
    from solvers.instances.improve import improve

    solvers.get_solver(solver)
    check_limits(time_limit, 1e-4, seed)
    library = opened(folder)
    items = [*chosen(library, names, family, variant, budget, least, most, only_open, proven)]
    items = there(library, [item for item in items if not (unsolved and item.known.seconds)])
    changes: list[dict[str, Any]] = []
    status = 0
    asked = Control()  # hears Ctrl-C also where a search ends by itself at that moment
    with _keeping(), interruptible(asked), Clock("instance") as clock:
        for done, item in enumerate(items):
            found = improve(
                library, item, solver=solver, time_limit=time_limit, seed=seed, certify=not no_certificates
            )
            after = found.after
            changes.append(
                {
                    "name": item.name, "value": after.value, "bound": after.bound, "gap": after.gap,
                    "status": after.status, "certificate": after.certificate,
                    "better": found.before.value != after.value or found.before.bound != after.bound,
                }
            )  # fmt: skip
            clock.tell(f"{item.name}: {output.percent(after.gap)} gap, {after.status}", done, len(items))
            if asked.interrupted or found.status is solvers.Status.INTERRUPTED:
                output.remark("interrupted; what is done is kept")
                status = 130
                break
    if as_json:
        output.print_json({"instances": changes})
    else:
        better = sum(change["better"] for change in changes)
        closed = sum(change["status"] == "proven" for change in changes)
        print(f"{len(changes)} instances: {better} better than before, {closed} proven")
    return status


def check(
    folder: Folder,
    names: Names = None, family: Family = None, variant: Variant = None, budget: Budget = None,
    least: Least = None, most: Most = None, only_open: Open = False, proven: Proven = False,
    no_proofs: Annotated[bool, flag("--no-proofs", panel=HOW, help="Leave the certificates alone.")] = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Recompute digests and values of a library, and verify its certificates by the independent checker.

    Exit status 1 if anything does not hold, with a line for each.

    For example:

    `cbs instances check instances`
    """
    from solvers.instances.evidence import check as run

    library = opened(folder)
    items = [*chosen(library, names, family, variant, budget, least, most, only_open, proven)]
    items = there(library, items)
    wrong: dict[str, list[str]] = {}
    complaint = _solutions(library)
    with output.telling_interruption(), Clock("instance") as clock:
        for done, item in enumerate(items):
            if found := run(library, item, proofs=not no_proofs):
                wrong[item.name] = found
            clock.tell(item.name, done, len(items))
    if complaint:
        output.complain(complaint)
    if as_json:
        output.print_json({"checked": len(items), "wrong": wrong, "solutions": complaint})
    else:
        print(f"{len(items)} instances checked, {len(items) - len(wrong)} hold")
    for name, lines in wrong.items():
        for line in lines:
            output.complain(line if line.startswith(f"instance {name!r}") else f"instance {name!r}: {line}")
    return 1 if wrong or complaint else 0


def _solutions(library: Library) -> str | None:
    """What is wrong with the solution file of a library, or None."""
    try:
        if not library.solutions_agree():
            return f"library {str(library.folder)!r}: index.solu says other values than index.json"
    except ValueError as error:
        return str(error)
    return None


def claim(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the instance.")],
    mask: Annotated[
        Path | None,
        option(panel=INPUT, metavar="FILE", help="A better mask: `cbs solve --json`, or .npz with `mask`."),
    ] = None,
    certificate: Annotated[
        Path | None, option(panel=INPUT, metavar="FILE", help="A proof of a better bound.")
    ] = None,
    by: Annotated[str, option(panel=INPUT, metavar="WHO", help="Whose find it is.")] = "",
    as_json: Json = False,
) -> int:
    """Check a better mask or bound, and take it into the library.

    The value of a mask is recomputed; a bound must come with a certificate that the independent checker
    verifies. What is no better than what is known is refused.

    For example:

    `cbs instances claim instances digits-0-r2-joint-row-75 --mask found.json --by me`
    """
    from solvers.instances.evidence import claim as run
    from solvers.instances.evidence import read_masks

    library = opened(folder)
    item = library[name]
    masks = None if mask is None else read_masks(mask, item)
    taken = run(library, name, masks=masks, certificate=certificate, by=by)
    before, after = taken.before, taken.after
    if as_json:
        output.print_json(
            {
                "name": name, "value": after.value, "bound": after.bound, "gap": after.gap,
                "status": after.status, "before": {"value": before.value, "bound": before.bound},
            }
        )  # fmt: skip
        return 0
    for what, old, new in (("value", before.value, after.value), ("bound", before.bound, after.bound)):
        if old != new:
            print(f"{what} {number(old)} -> {number(new)}")
    print(f"gap {output.percent(before.gap)} -> {output.percent(after.gap)}: {after.status}")
    return 0


def _summarise(items: list[Item], wide: bool, as_json: bool) -> None:
    """How many instances of each kind there are, how many are proven, and the gaps of those that are open."""
    from solvers.instances.item import summary

    told = summary(items)
    if as_json:
        output.print_json({"summary": told})
        return
    headings = ("network", "budget", "variant", "inputs", "instances", "proven", "median gap", "widest gap")
    rows = []
    for line in told:
        gaps = [line["median_gap"], line["widest_gap"]]
        rows.append(
            (
                line["network"], line["budget"], line["variant"], ", ".join(map(str, line["inputs"])),
                str(line["instances"]), str(line["proven"]),
                *("-" if gap is None else output.percent(gap) for gap in gaps),
            )
        )  # fmt: skip
    output.print_table(headings, rows, right=True, wide=wide)


@contextmanager
def _keeping() -> Iterator[None]:
    """Say so on standard error when Ctrl-C ends a command that keeps what is done."""
    try:
        yield
    except KeyboardInterrupt:
        output.remark("interrupted; what is done is kept, and the same command goes on from there")
        raise


GROUP = Group(
    "One problem",
    "Libraries of instances: rows, layers and networks with best values, bounds and certificates.",
    {"make": make, "list": list_, "export": export, "solve": solve, "check": check, "claim": claim},
)
"""Commands of `cbs instances`."""
