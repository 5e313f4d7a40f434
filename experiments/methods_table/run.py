"""Prune the digits MLP by every method and put the table into the README: `make table`."""

import json
import tomllib
from pathlib import Path

import cbs
from cbs.cli.output import plain
from cbs.cli.ticker import Ticker
from cbs.report import draw, markdown, report

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- methods table: begin (made by `make table`) -->", "<!-- methods table: end -->"


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    shown = config.pop("shown")
    model, split = cbs.trained_digits_mlp()
    methods = list(cbs.methods())
    with Ticker(len(config["sparsities"]) * len(methods)) as ticker:
        results = cbs.compare(model, split.train, methods=methods, test=split.test, callback=ticker, **config)
    if any(result.status == "interrupted" for result in results):
        raise SystemExit("interrupted: nothing was written")
    dense = results[0].test_before.accuracy
    table = markdown(results)
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / "table.md").write_text(table)
    draw(results).savefig(out / "plot.png")
    facts = plain(report(results, config))
    for result in facts["results"]:
        for layer in result["layers"]:
            del layer["rows"]
    (out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    some = markdown([result for result in results if result.asked == shown])
    put(README, f"Dense accuracy {100 * dense:.2f}%.\n\n{some}")
    print(table)


def put(path: Path, text: str) -> None:
    """Replace what stands between the two markers of a document."""
    before, rest = path.read_text().split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
