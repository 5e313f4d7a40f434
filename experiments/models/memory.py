"""The most memory that a pruning of MiniLM takes, method by method, each in a process of its own.

    python experiments/models/memory.py [--cache FOLDER] [--only NAME ...]

Writes `results/memory.json`: GiB held before the pruning and at most, of the whole process, and its seconds.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS: dict[str, dict[str, Any]] = {
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt", "scope": "layer"},
    "obc": {"method": "obc", "scope": "layer", "time_limit": 120},
    "joint": {"method": "joint", "time_limit": 120},
    "joint, by layer, sequential": {
        "method": "joint", "scope": "layer", "pipeline": "sequential", "time_limit": 120,
    },
    "cbs-s": {"method": "cbs-s"},
}  # fmt: skip


def held(name: str) -> float:
    """GiB, `VmRSS` now or `VmHWM` at most."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith(name + ":")]
    return int(line.split()[1]) / 2**20


def measure(name: str, cache: Path | None) -> None:
    """Print a row as JSON."""
    from cases import minilm

    import cbs

    case = minilm(cache)
    model = case.build()
    before, began = held("VmRSS"), time.perf_counter()
    found: dict[str, Any] = {"before": round(before, 2)}
    try:
        result = cbs.prune(model, case.data, sparsity=0.5, certify=False, layers=case.layers, **ROWS[name])
    except ValueError as error:
        found["refused"] = str(error)
    else:
        found |= dict(result.history[0].stats["memory"])
    found["most"] = round(held("VmHWM"), 2)
    print(json.dumps(found | {"seconds": round(time.perf_counter() - began)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder of the packages; the user's cache if absent")
    parser.add_argument("--only", nargs="*", help="rows")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.inside, arguments.cache)
        return
    path = HERE / "results" / "memory.json"
    rows = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.only or ROWS:
        command = [sys.executable, __file__, "--inside", name]
        command += [] if arguments.cache is None else ["--cache", str(arguments.cache)]
        told = subprocess.run(command, capture_output=True, text=True)
        if told.returncode:
            raise SystemExit(told.stderr)
        rows[name] = json.loads(told.stdout.splitlines()[-1])
        path.write_text(json.dumps(rows, indent=1) + "\n")
        print(name, rows[name], flush=True)


if __name__ == "__main__":
    main()
