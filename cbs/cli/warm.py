"""`cbs warm`: compiled code is made ready before the first problem is solved."""

from __future__ import annotations

import time
from typing import Annotated

from cbs.cli import output
from cbs.cli.options import HOW, Json, flag, listed, option, solver_names


def warm(
    solver: Annotated[
        list[str] | None,
        option(
            panel=HOW,
            metavar="NAMES",
            autocompletion=solver_names,
            help="Solvers to make ready. Repeat it or use commas.  [default: what auto takes]",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        option(
            panel=HOW,
            metavar="KINDS",
            help="Only for these variants (joint, selection) and budgets (per_row, n_of_m ...).",
        ),
    ] = None,
    forget: Annotated[
        bool, flag("--forget", panel=HOW, help="Delete all compiled code that this did not take.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile ahead what solvers run compiled, so that no first solve waits for it.

    It is kept in the user's folder of caches, for this processor and these versions of Python and numba, by
    what it was made of: `NUMBA_CACHE_DIR` names another folder. What is there already is only loaded.

    For example:

    `cbs warm --kind joint,per_row`
    """  # fmt: skip
    from solvers.runtime import warming
    from solvers.runtime.caches import folder_of_code

    todo = warming.tasks(
        listed("--solver", solver) if solver else warming.USUAL, listed("--kind", kind) if kind else ()
    )
    began, before, used = time.perf_counter(), {*warming.kept()}, set()
    for done, (task, files) in enumerate(warming.perform(todo), 1):
        used |= files
        output.remark(f"{done} of {len(todo)}, {time.perf_counter() - began:.0f} s: {task}")
    gone = warming.forget(used) if forget else 0
    ready = warming.kept()
    if not used & {*ready}:
        raise ValueError(f"compiled code can't be kept in {str(folder_of_code())!r}; set NUMBA_CACHE_DIR")
    found = {
        "folder": str(folder_of_code()), "files": len(ready), "bytes": sum(ready.values()),
        "compiled": len({*ready} - before), "deleted": gone,
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip
    if as_json:
        output.print_json(found)
        return
    output.results().print(
        f"{found['compiled']} compiled, {gone} deleted: {len(ready)} files of "
        f"{sum(ready.values()) / 2**20:.1f} MiB in {folder_of_code()}"
    )
