"""Hold what the solvers say about many small random problems against exact rational brute force."""

import argparse
import os
import sys
import time
import tomllib
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.solvers.claims.held import Ledger, hold  # noqa: E402

STATEMENTS = {
    "bounds above": "bounds of solutions, curves and shared budgets, and those that certificates prove",
    "told bounds above": "bounds told to callbacks while searching",
    "told values below": "incumbents told to callbacks while searching",
    "values off": "values of masks",
    "false proofs": "masks called optimal, counts called proven",
    "certificates refused": "certificates written and verified",
    "errors": "problems refused, in one line; everything else is an error",
}
"""A kind of fault, and what is held against the exact answer to find it."""


def work(part: range) -> tuple[Counter, dict[str, list[str]]]:
    """Hold the problems of some seeds."""
    ledger = Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in part:
            hold(seed, ledger)
    return ledger.counts, ledger.faults


def main() -> int:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=config["cases"], help="problems to draw")
    parser.add_argument("--first", type=int, default=config["first"], help="seed of the first one")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.cases)
    parts = [seeds[i : i + config["chunk"]] for i in range(0, len(seeds), config["chunk"])]
    counts: Counter = Counter()
    faults: dict[str, list[str]] = {kind: [] for kind in Ledger.KINDS}
    start = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for done, (found, wrong) in enumerate(pool.map(work, parts), 1):
            counts += found
            for kind, lines in wrong.items():
                faults[kind] += lines
            total = sum(map(len, faults.values()))
            print(f"{done * 100 // len(parts):3d}%  {total} faults", end="\r", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    lines = ["| what was held against the exact answer | how many | wrong |", "| --- | ---: | ---: |"]
    lines += [f"| {text} | {counts[kind]:,} | {len(faults[kind])} |" for kind, text in STATEMENTS.items()]
    intro = (
        f"{counts['problems']:,} problems of seeds {seeds[0]} to {seeds[-1]}, and {counts['refused']:,} "
        f"more that were refused. {counts['no split']} answers were refused for want of a certified split, "
        f"{counts['no certificate']} had no certificate. "
        f"{seconds / 60:.0f} minutes in {arguments.workers} processes."
    )
    text = "\n".join([intro, "", *lines, ""])
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)
    wrong = [f"{kind}: {line}" for kind, found in faults.items() for line in found]
    (HERE / "results" / "faults.txt").write_text("".join(f"{line}\n" for line in wrong))
    print(text)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
