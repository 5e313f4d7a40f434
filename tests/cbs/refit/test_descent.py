"""Steps: exact on a quadratic, taken only downhill, judged by what was held back, and never half done."""

import math

import pytest
import torch
from torch import nn

from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit import descent
from cbs.refit.descent import descend
from cbs.refit.divergence import Squares
from cbs.refit.movable import find_movable
from cbs.refit.normal_equations import find_structure
from cbs.refit.passes import Passes
from tests.cbs.networks import masked, seeded
from tests.cbs.refit.test_passes import DIVERGENCES, MAKE, problem


def both(name, divergence="classes", **options):
    """A descent by normal equations and one by conjugate gradients."""
    passes, vector, data = problem(name, DIVERGENCES[divergence], batch=100)
    options = {"curvature": 100, "held": None, "steps": 3} | options
    held = options.pop("held")
    structure = find_structure(passes, vector, data)
    return [descend(passes, vector, data, held, structure=how, **options) for how in (structure, None)]


def test_one_step_of_a_linear_network_is_least_squares(monkeypatch):
    model = masked(nn.Sequential(nn.Linear(6, 4, dtype=torch.float64)))
    movable = find_movable(model, clone(model))
    passes, vector = Passes(clone(model), movable, Squares()), movable.vector(movable.base)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = Samples(x, y)
    expected = 0.0
    for row in range(4):
        keep = model[0].weight_mask[row].bool()
        Z = torch.cat([x[:, keep], torch.ones(30, 1, dtype=torch.float64)], dim=1)
        expected += 0.5 * float(
            (Z @ torch.linalg.lstsq(Z, y[:, row : row + 1]).solution - y[:, row : row + 1]).square().mean()
        )
    for structure in (find_structure(passes, vector, data), None):
        found = descend(passes, vector, data, None, curvature=30, structure=structure, steps=1, damping=1e-12)
        assert found.after == pytest.approx(expected, rel=1e-9)
        assert found.steps[0].ratio == pytest.approx(1, rel=1e-6)
        assert found.chosen == 1


@pytest.mark.parametrize("name", MAKE)
def test_both_ways_go_downhill(name):
    for found in both(name, steps=3):
        assert found.after < 0.5 * found.before
        assert found.chosen == 3


def test_the_same_diagonal_gives_the_same_step(monkeypatch):
    monkeypatch.setattr("cbs.refit.conjugate_gradients.PROGRESS", 0)
    passes, vector, data = problem("residual", DIVERGENCES["classes"], batch=100)
    _, g = passes.gradient(vector, data)
    G = descent.normal_matrix(passes, vector, data, find_structure(passes, vector, data))
    written, multiplied = descent.Written(G, g), descent.Multiplied(passes, vector, g, data, 0, 500)
    written.D = multiplied.factors.damped
    (one, foresaw), (two, too) = written.step(0.01), multiplied.step(0.01)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7 * float(one.abs().max()))
    assert foresaw == pytest.approx(too, rel=1e-6)
    assert foresaw == pytest.approx(float(g @ one + 0.5 * one @ G @ one), rel=1e-9)


def test_what_was_held_back_decides_what_is_returned():
    """Held-back samples that want something else: the fit falls step by step, and nothing is taken."""
    passes, vector, data = problem("mlp", DIVERGENCES["numbers"], batch=100)
    held = Samples(data.inputs, passes.model(data.inputs).detach())
    found = descend(passes, vector, data, held, curvature=9, structure=find_structure(passes, vector, data))
    assert found.chosen == 0
    assert torch.equal(found.best, vector)
    assert (found.before, found.after) == (0.0, 0.0)
    assert [step.fit for step in found.steps] == sorted((step.fit for step in found.steps), reverse=True)
    assert len(found.steps) == descent.PATIENCE
    assert found.why == "nothing more is gained on the samples held back"


def test_steps_that_fail_raise_the_damping(monkeypatch):
    passes, vector, data = problem("mlp", DIVERGENCES["numbers"], batch=100)
    step = descent.Written.step
    tried = []

    def poor(model, damping):
        tried.append(damping)
        found, foreseen = step(model, damping)
        return (found * math.nan if len(tried) == 1 else -found if len(tried) == 2 else found), foreseen

    monkeypatch.setattr(descent.Written, "step", poor)
    structure = find_structure(passes, vector, data)
    found = descend(passes, vector, data, None, curvature=9, structure=structure, steps=1)
    assert tried == [0.01, 0.04, 0.16]
    assert (found.steps[0].tries, found.steps[0].damping) == (3, 0.16)
    monkeypatch.setattr(descent.Written, "step", lambda model, damping: (-step(model, damping)[0], -1.0))
    found = descend(passes, vector, data, None, curvature=9, structure=structure)
    assert (found.chosen, found.why, found.steps) == (0, "no step lowers the divergence", [])
    assert torch.equal(found.best, vector)


def test_products_are_dear_so_shorter_steps_are_tried_first(monkeypatch):
    passes, vector, data = problem("mlp", DIVERGENCES["numbers"], batch=100)
    step, solved = descent.Multiplied.step, []

    def long(model, damping):
        solved.append(damping)
        found, foreseen = step(model, damping)
        return 3 * found, 3 * foreseen

    monkeypatch.setattr(descent.Multiplied, "step", long)
    found = descend(passes, vector, data, None, curvature=9, structure=None, steps=1, damping=1e-3)
    (taken,) = found.steps
    assert len(solved) == 1
    assert taken.tries > 1
    assert taken.damping == 1e-3


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("how", ["interrupt", "stop", "time"])
def test_what_ends_it_early_keeps_the_best(how, after, monkeypatch):
    passes, vector, data = problem("convnet", DIVERGENCES["classes"], batch=100)
    structure = find_structure(passes, vector, data)
    options = {"curvature": 7, "structure": structure}
    whole = descend(passes, vector, data, data, steps=after, **options)
    gradient, calls = passes.gradient, []

    def ends(*args):
        calls.append(args)
        if len(calls) > after:
            if how == "interrupt":
                raise KeyboardInterrupt
            if how == "stop":
                passes.stopped = lambda: True
            passes.until = -math.inf
        return gradient(*args)

    monkeypatch.setattr(passes, "gradient", ends)
    found = descend(passes, vector, data, data, **options)
    assert torch.equal(found.best, whole.best)
    assert (found.after, found.chosen) == (whole.after, after)
    assert found.why == {"interrupt": "interrupted", "stop": "stopped", "time": "time limit"}[how]
    assert found.interrupted is (how == "interrupt")


def test_a_divergence_that_is_not_finite_is_left_alone():
    model = seeded(MAKE["mlp"])
    masks = masked(seeded(MAKE["mlp"]))
    plain = clone(masks)
    with torch.no_grad():
        plain[4].bias[0] = math.inf
    movable = find_movable(masks, plain, ["0", "2"])
    passes, vector = Passes(plain, movable, Squares()), movable.vector(movable.base)
    x = torch.zeros(4, 6, dtype=torch.float64)
    data = Samples(x, model(x).detach())
    found = descend(passes, vector, data, None, curvature=4, structure=None)
    assert (found.chosen, found.why) == (0, "the divergence is not finite at first")


def test_nothing_to_gain_is_nothing_done():
    passes, vector, data = problem("mlp", DIVERGENCES["numbers"])
    same = Samples(data.inputs, passes.model(data.inputs).detach())
    found = descend(passes, vector, same, None, curvature=9, structure=None)
    assert (found.chosen, found.why) == (0, "the gradient is zero")


def test_a_true_answer_ends_it():
    passes, vector, data = problem("mlp", DIVERGENCES["numbers"])
    told = []
    found = descend(
        passes, vector, data, None, curvature=9, structure=None, told=lambda s, k: told.append((s, k)) or True
    )
    assert told == [(found.steps[0], descent.STEPS)]
    assert (found.chosen, found.why) == (1, "stopped by the callback")
