"""Prune the digits MLP by every method, and put the figures into the documents: `make table`.

With `--documents` only the documents are rewritten, from the results that are there.
"""

import argparse
import json
import tomllib
from pathlib import Path

import cbs
from cbs.cli.output import plain
from cbs.cli.ticker import Ticker
from cbs.report import draw, markdown, report

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- {}: begin (made by `make table`) -->", "<!-- {}: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", action="store_true", help="only rewrite the documents")
    config = tomllib.loads((HERE / "config.toml").read_text())
    shown, some = config.pop("shown"), config.pop("some")
    if not parser.parse_args().documents:
        compute(config)
    document(shown, some)


def compute(config) -> None:
    """Runs every method and writes `results/`."""
    model, split = cbs.trained_digits_mlp()
    methods = list(cbs.methods())
    with Ticker(len(config["sparsities"]) * len(methods)) as ticker:
        results = cbs.compare(model, split.train, methods=methods, test=split.test, callback=ticker, **config)
    if any(result.status == "interrupted" for result in results):
        raise SystemExit("interrupted: nothing was written")
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
    print(table)


def document(shown, some) -> None:
    """Puts the methods `some` at sparsity `shown` into the README, and each method's rows on its page."""
    head, rule, *rows = (HERE / "results/table.md").read_text().splitlines()
    facts = json.loads((HERE / "results/results.json").read_text())
    dense = facts["results"][0]["measured"]["test_before"]["accuracy"]
    by_method = {}
    for row in rows:
        by_method.setdefault(row.split("|")[2].strip(), []).append(row)
    pick = [row for name in some for row in by_method[name] if row.startswith(f"| {100 * shown:.1f}% ")]
    lines = [f"Dense accuracy {100 * dense:.2f}%.", "", head, rule, *pick]
    put(ROOT / "README.md", "methods table", lines)
    for name, own in by_method.items():
        page = ROOT / f"docs/methods/{name}.md"
        put(page, "figures", [f"Dense accuracy {100 * dense:.2f}%.", "", head, rule, *own])
    put(ROOT / "docs/methods/index.md", "all methods", [head, rule, *rows])


def put(path: Path, name: str, lines: list[str]) -> None:
    """Replace what stands between two markers of a document."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = path.read_text().split(begin)
    after = rest.split(end)[1]
    path.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{after}"]))


if __name__ == "__main__":
    main()
