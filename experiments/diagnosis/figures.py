"""The figures of README.md from the study's store.

python experiments/diagnosis/figures.py [STORE]
"""

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cbs.study import Store
from cbs.study.frames import records

HERE = Path(__file__).parent


def main() -> None:
    with Store.open(sys.argv[1] if len(sys.argv) > 1 else HERE / "diagnosis.sqlite") as store:
        rows = records(store.frame())
        for row in rows:
            for name, data in store.arrays(row["key"]).items():
                kind = name.removeprefix("figure_")
                if kind != "stability" or row["stability"]["changed"]:
                    (HERE / f"results/{kind}_{row['method']}.png").write_bytes(data.tobytes())
    figure = Figure(figsize=(6, 4.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in rows:
        points = [
            (point["samples"], 100 * point["changed"]) for point in row.get("stability", {}).get("sizes", [])
        ]
        if any(changed for _, changed in points):
            axes.loglog(*zip(*points, strict=True), marker="o", label=row["method"])
    axes.set_xlabel("calibration images")
    axes.set_ylabel("% of entries that differ between two draws")
    axes.legend(frameon=False)
    figure.savefig(HERE / "results/sizes.png")


if __name__ == "__main__":
    main()
