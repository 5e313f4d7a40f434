"""What documents tell people to type, runs; what they link to, is there."""

import copy
import functools
import re
from pathlib import Path

import numpy as np
import pytest

import cbs
import cbs.zoo
from solvers import Budget, solve
from tests.cbs.networks import mlp, samples, seeded
from tests.solvers.oracles import make_problem

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
EXPERIMENTS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "experiments").rglob("README.md"))]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def snippets(name):
    return [code for language, code in FENCED.findall(text(name)) if language == "python"]


@functools.cache
def trained_once(seed):
    return cbs.zoo.trained_digits_mlp(seed)


@pytest.fixture
def digits_in_hand(monkeypatch):
    """The digits network is trained once for all pages: it is the same whenever it is trained."""
    monkeypatch.setattr(cbs, "trained_digits_mlp", lambda seed=0: copy.deepcopy(trained_once(seed)))


@pytest.mark.parametrize("name", [name for name in PAGES if snippets(name)])
def test_every_block_of_a_page_runs(name, digits_in_hand, tmp_path, monkeypatch):
    """In order, in one namespace, in an empty folder; a warning is an error."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    found = {"__name__": "__main__"}
    for number, code in enumerate(snippets(name), 1):
        exec(compile(code, f"{name}, block {number}", "exec"), found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def commands(name):
    """Calls of `cbs` in a page's blocks that are not Python, continued lines joined."""
    blocks = [
        code for language, code in FENCED.findall(text(name)) if language not in ("python", "json", "toml")
    ]
    plain = FENCED.sub("", text(name))
    blocks += ["\n".join(re.findall(r"^(?: {4}|\t)(.*)$", plain, re.MULTILINE))]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if found := re.match(r"\s*(?:\$ )?cbs ([a-z-]+)(.*)", line):
            yield (
                (found[1], *found[2].split()[:1]),
                re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", found[2].split(" #")[0].split("|")[0]),
            )


@pytest.mark.parametrize("name", [name for name in PAGES if any(commands(name))])
def test_commands_and_options_exist(name):
    import typer.main

    from cbs.cli.app import app

    known = typer.main.get_command(app).commands
    for (command, *rest), options in commands(name):
        assert command in known, f"{name}: cbs {command}"
        called = known[command]
        if inner := getattr(called, "commands", None):
            assert set(rest) <= set(inner), f"{name}: cbs {command} {rest}"
            called = inner[rest[0]] if rest else called
        takes = {flag for one in called.params for flag in (*one.opts, *one.secondary_opts)}
        assert set(options) <= {*takes, "--help"}, f"{name}: cbs {command}"


def slug(heading):
    """A heading's anchor, as mkdocs and forges make it."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower())


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", *EXPERIMENTS])
def test_links_lead_somewhere(name):
    plain = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text(name)))
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        made = there.suffix == ".md" and there.with_suffix(".ipynb").is_file()
        assert there.exists() or made, f"{name}: {target}"
        if anchor and there.suffix == ".md" and "docs/api" not in str(there):
            page = FENCED.sub("", there.read_text(encoding="utf-8"))
            anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
            assert anchor in anchors, f"{name}: {target}"


def test_best_subset_selection():
    (code,) = snippets("docs/mathematics.md")
    found = {}
    exec(code, found)
    dense = ((found["y"] - found["X"] @ found["ols"]) ** 2).sum()
    assert found["rss"] == pytest.approx(found["solution"].value + dense, rel=1e-9)
    kept = found["kept"]
    again = np.linalg.lstsq(found["X"][:, kept], found["y"], rcond=None)[0]
    np.testing.assert_allclose(found["solution"].weights[0, kept], again, rtol=1e-8)
    assert found["solution"].gap <= 1e-4


def test_solvers_and_methods_of_ones_own(rng):
    found = {}
    for code in snippets("docs/extending.md"):
        exec(code, found)
    problem = make_problem(rng, Budget.per_layer(5))
    solution = solve(problem, found["Smallest"]())
    assert solution.solver == "smallest"
    assert abs(problem.W[solution.mask]).max() <= abs(problem.W[~solution.mask]).min()
    result = cbs.prune(seeded(mlp), samples(), method=found["wanda"], sparsity=0.5)
    assert result.sparsity == 0.5


def test_every_method_has_its_page():
    pages = {path.stem for path in (ROOT / "docs/methods").glob("*.md")} - {"index"}
    assert pages == set(cbs.methods())


def test_the_architecture_names_every_folder():
    tree = text("docs/architecture.md")
    for package in ("cbs", "solvers"):
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert {folder for folder in folders if f" {folder}/" not in tree} == set()


@pytest.mark.parametrize("package", ["cbs", "solvers"])
def test_a_name_is_on_its_page_once(package):
    names = re.findall(r"^::: (\S+)$", text(f"docs/api/{package}.md"), re.MULTILINE)
    assert len(names) == len(set(names))
