"""Methods as values: composed ones beside the table's rows, one's own parts, and what is refused."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import cbs
from cbs.methods import get_method, table
from cbs.request import Request
from solvers import Outcome, Solver
from solvers.heuristics.published.swapping import Swapping
from solvers.runtime.plugins import PluginWarning
from tests.cbs.networks import mlp, samples, seeded
from tests.solvers.distributions import distribution

ASK = {"sparsity": 0.5, "scope": "row", "certify": False}


def masks(result):
    return {name: mask.flatten(1).numpy() for name, mask in result.masks.items()}


COMPOSED = {
    "magnitude": cbs.Method(cbs.Identity(), cbs.Scores("magnitude"), cbs.Survivors()),
    "obd": cbs.Method(cbs.GaussNewtonDiagonal(), cbs.Scores("obd"), cbs.Survivors()),
    "woodfisher": cbs.Method(cbs.Fisher(apart=True), cbs.Scores("obs"), cbs.Singles()),
    "wanda": cbs.Method(cbs.Gram(), cbs.Scores("wanda"), cbs.Nothing()),
    "sparsegpt": cbs.Method(cbs.Gram(damping=1e-2), cbs.Solve("sparsegpt"), cbs.Survivors()),
    "joint": cbs.Method(cbs.Gram(), cbs.Solve(), cbs.Survivors()),
    "cbs": cbs.Method(cbs.Fisher(), cbs.Solve(Swapping(), "selection", "loss"), cbs.Survivors()),
}


@pytest.mark.parametrize("scope", ["row", "network"])
@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_method_is_the_row_of_the_table(name, scope):
    """Survivors on a curvature in which weights do not interact, a damping spelled out: the same."""
    model, data = seeded(mlp), samples()
    ask = {**ASK, "scope": scope}
    known, found = (cbs.prune(model, data, method=method, **ask) for method in (name, COMPOSED[name]))
    assert found.method == "custom"
    assert found.value == known.value
    for layer, mask in masks(known).items():
        assert (masks(found)[layer] == mask).all()
        a, b = (result.state[f"{layer}.weight"] for result in (known, found))
        assert (a == b).all()


def test_a_refit_after_wandas_selection_is_a_method_in_one_line():
    model, data = seeded(mlp), samples()
    plain = cbs.prune(model, data, method="wanda", **ASK)
    method = cbs.Method(curvature=cbs.Gram(), selection=cbs.Scores("wanda"), compensation=cbs.Survivors())
    refitted = cbs.prune(model, data, method=method, **ASK)
    assert all((masks(refitted)[name] == mask).all() for name, mask in masks(plain).items())
    assert refitted.value < plain.value


@dataclass(frozen=True)
class Last(Solver):
    """A user's own: the last columns go, from `start` on."""

    start: int = 0

    name: ClassVar[str] = "last"
    summary: ClassVar[str] = "the last columns"
    budgets: ClassVar[tuple[str, ...]] = ("per_row",)

    def run(self, problem, control):
        scores = np.tile(-((np.arange(problem.n) - self.start) % problem.n).astype(float), (problem.m, 1))
        return Outcome(problem.pools.smallest(scores))


@pytest.mark.parametrize("scope", ["row", "network"])
@pytest.mark.parametrize("pipeline", ["one-shot", "sequential"])
def test_a_solver_of_ones_own_selects(scope, pipeline):
    method = cbs.Method(cbs.Gram(), cbs.Solve(Last(start=1)), cbs.Survivors(), name="last")
    ask = {**ASK, "scope": scope, "pipeline": pipeline}
    result = cbs.prune(seeded(mlp), samples(), method=method, solver="tabu", **ask)
    assert result.method == "last"
    for mask in masks(result).values():
        n = mask.shape[1]
        order = np.argsort(-((np.arange(n) - 1) % n))
        for row in mask:
            assert row[order[: row.sum()]].all()
    assert {layer.solver for layer in result.layers} == {"last"}
    with pytest.raises(ValueError, match="method 'last': solver 'last' does not do the budget 'per_layer'"):
        cbs.prune(seeded(mlp), samples(), method=method, **{**ASK, "scope": "layer"})


def test_what_tells_methods_apart_is_in_their_words():
    solvers = ["auto", "tabu", Last(), Last(start=2)]
    choices = [cbs.Solve(s, p, j) for s in solvers for p in ("joint", "selection") for j in ("model", "loss")]
    curvatures = [kind(damping=d) for kind in (cbs.Gram, cbs.Fisher) for d in (None, 0.1, 0.2)]
    made = [cbs.Method(c, s, cbs.Nothing()) for c in (*curvatures, cbs.Fisher(apart=True)) for s in choices]
    assert len({str(method.describe()) for method in made}) == len(made)


def test_a_solver_that_the_method_names_is_run_whatever_the_request_asks_for():
    greedy = cbs.prune(seeded(mlp), samples(), method="obc", solver="magnitude", **ASK)
    assert {layer.solver for layer in greedy.layers} == {"greedy"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((cbs.Gram, cbs.Scores("obd"), cbs.Nothing()), r"curvature must be .* got Gram; call it: Gram\(\)"),
        ((cbs.Gram(), "wanda", cbs.Nothing()), "selection must be a cbs Selection, got 'wanda'"),
        ((cbs.Gram(), cbs.Scores("obd"), None), "compensation must be a cbs Compensation, got None"),
        (
            (cbs.Identity(), cbs.Scores("obs"), cbs.Nothing()),
            r"Scores\('obs'\) needs an inverse, which identity",
        ),
        ((cbs.GaussNewtonDiagonal(), cbs.Solve(), cbs.Nothing()), "Solve needs weights that interact, which"),
        (
            (cbs.Identity(), cbs.Scores("magnitude"), cbs.Singles()),
            "Singles needs an inverse, which identity",
        ),
    ],
)
def test_parts_that_make_no_method_are_refused(parts, message):
    with pytest.raises(ValueError, match=f"^method 'mine': {message}") as error:
        cbs.Method(*parts, name="mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cbs.Scores("wandas"), "unknown rule 'wandas'; did you mean 'wanda'"),
        (lambda: cbs.Solve(problem="joined"), "unknown problem 'joined'; did you mean 'joint'"),
        (lambda: cbs.Solve(judge="los"), "unknown judge 'los'; did you mean 'loss'"),
        (lambda: cbs.Gram(damping=-1.0), "damping must be a finite number >= 0, or None .*, got -1.0"),
        (lambda: cbs.Fisher(damping="0.1"), "damping must be .*, got '0.1'"),
        (lambda: replace(get_method("obd"), granularity="weight"), "unknown granularity 'weight'"),
    ],
)
def test_parts_refuse_bad_settings(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "ask", "message"),
    [
        ("magnitude", {"pipeline": "sequential"}, "takes the layer Gram as curvature, not identity"),
        ("cbs", {"pipeline": "sequential"}, "takes the layer Gram as curvature, not empirical Fisher"),
        ("cbs-s", {"solver": "obs"}, "solver 'obs' does not do the selection variant, only joint"),
        ("joint", {"solver": "sparsegpt", "budget": "columns"}, "does not do budget 'columns'"),
        ("chita", {"budget": "columns"}, "does not do budget 'columns' .*; these do: magnitude"),
        (
            cbs.Method(cbs.Fisher(apart=True), cbs.Solve("chita"), cbs.Survivors()), {"scope": "network"},
            "keeps layers apart, so that no solver can share out scope 'network'",
        ),
        (
            cbs.Method(cbs.Gram(), cbs.Solve("greedy", judge="loss"), cbs.Nothing()), {},
            "solver 'greedy' has no field `score`, which judge 'loss' needs",
        ),
        (replace(get_method("obd"), needs=("nowhere",)), {}, "needs nowhere, which is not installed"),
        (
            "joint", {"pipeline": "sequential", "refit": "layer"},
            "refit 'layer' is for what pipeline 'one-shot' pruned",
        ),
        ("joint", {"pipeline": "sequentiel"}, "unknown pipeline 'sequentiel'; did you mean 'sequential'"),
    ],
)  # fmt: skip
def test_requests_that_a_method_cannot_meet_are_refused_before_any_work(method, ask, message):
    with pytest.raises(ValueError, match=message) as error:
        get_method(method).check(Request(0.5, **ask))
    assert "\n" not in str(error.value)


def test_installed_packages_add_methods(tmp_path, monkeypatch):
    source = (
        "import cbs\n"
        "mine = cbs.Method(cbs.Gram(), cbs.Scores('wanda'), cbs.Survivors(), name='mine')\n"
        "other = cbs.Method(cbs.Gram(), cbs.Scores('obd'), cbs.Survivors(), name='joint')\n"
    )
    entries = "[cbs.methods]\nmine = added:mine\njoint = added:other\nbroken = nowhere:mine\n"
    distribution(tmp_path, "added", entries, source)
    monkeypatch.syspath_prepend(tmp_path)
    table.cache_clear()
    try:
        with pytest.warns(PluginWarning) as told:
            assert list(table())[-2:] == ["joint", "mine"]
        assert sorted(str(one.message).split("'")[1] for one in told) == ["broken", "joint"]
        assert cbs.methods()["mine"]["selection"] == "separable, |w| sqrt(H_jj)"
        assert cbs.prune(seeded(mlp), samples(), method="mine", **ASK).method == "mine"
    finally:
        table.cache_clear()


def test_methods_that_prove_run_first():
    request = Request(0.5)
    assert {name for name, method in table().items() if method.proves(request)} == {"joint"}
    assert not get_method("joint").proves(Request(0.5, solver="tabu"))
    assert not get_method("joint").proves(Request(0.5, pipeline="sequential"))
    own = cbs.Method(cbs.Gram(), cbs.Solve("relaxation"), cbs.Nothing(), name="mine")
    assert own.proves(request)
    assert not replace(own, curvature=cbs.Gram(damping=0.5)).proves(request)
    steps = []
    results = cbs.compare(
        seeded(mlp), samples(), sparsities=[0.5], methods=["magnitude", own], scope="row",
        callback=lambda step: steps.append(step.method),
    )  # fmt: skip
    assert [result.method for result in results] == ["magnitude", "mine"]
    after_measuring = [name for name in steps[1:] if name]
    assert after_measuring[0] == "mine"
    assert results[0].bound == results[1].bound


def test_bounds_of_another_damping_are_not_taken_for_the_objectives():
    """With much more of it every mask costs more, and so would be bounded above what the others cost."""
    model, data = seeded(mlp), samples()
    heavy = cbs.Method(cbs.Gram(damping=100.0), cbs.Solve("branch-and-bound"), cbs.Survivors())
    results = cbs.compare(model, data, sparsities=[0.5], methods=[heavy, "joint"], scope="row")
    alone = cbs.prune(model, data, sparsity=0.5, method="joint", scope="row")
    assert results[1].value == alone.value
    assert results[0].bound <= alone.value


def test_by_default_those_are_compared_that_can_do_what_is_asked():
    ask = {"sparsities": [0.5], "budget": "columns", "certify": False, "solver": "greedy"}
    with pytest.warns(cbs.LeftOut, match="does not do budget 'columns'") as told:
        results = cbs.compare(seeded(mlp), samples(), **ask)
    left = {name for name, facts in cbs.methods().items() if facts["granularity"] == "neurons"}
    left |= {"obs", "obs-joint", "sparsegpt", "chita"}
    assert len(told) == len(left)
    assert {result.method for result in results} == set(cbs.methods()) - left


@pytest.mark.parametrize("refit", ["joint", "selection"])
@pytest.mark.parametrize("compensation", [cbs.Nothing(), cbs.Survivors()])
def test_a_fisher_is_solved_row_by_row_by_the_default_solver(refit, compensation):
    """All of a layer's rows are one of the solver's, whose seconds are not those of a row."""
    method = cbs.Method(cbs.Fisher(), cbs.Solve(problem=refit), compensation)
    result = cbs.prune(seeded(mlp), samples(), method=method, patience=0.5, **ASK)
    for layer in result.layers:
        assert len({row.pruned for row in layer.rows}) == 1
        assert all(row.seconds is None for row in layer.rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 3}, "a method's name must be a word or more in one line, got 3"),
        ({"name": " "}, "a method's name must be"),
        ({"name": "a\nb"}, "a method's name must be"),
        ({"paper": None}, "paper must be text, '-' for none, got None"),
        ({"needs": "torch"}, "needs must be a tuple of modules, got 'torch'"),
    ],
)
def test_fields_of_another_kind_make_no_method(given, message):
    with pytest.raises(ValueError, match=message) as error:
        cbs.Method(cbs.Gram(), cbs.Scores("wanda"), cbs.Nothing(), **given)
    assert "\n" not in str(error.value)


def test_a_module_of_a_package_that_is_not_there_is_missing():
    method = cbs.Method(cbs.Gram(), cbs.Scores("wanda"), cbs.Nothing(), needs=("no_such.module",))
    with pytest.raises(ValueError, match=r"needs no_such\.module, which is not installed"):
        cbs.prune(seeded(mlp), samples(), method=method, **ASK)
