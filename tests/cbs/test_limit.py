import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import cbs
from cbs import limit
from cbs.limit import _Bracket, _t
from cbs.request import MOST, Request
from tests.cbs.networks import confident, mlp, samples, seeded

QUICK = {"certify": False, "solver": "greedy"}
MODEL, DATA = confident(sizes=(6, 24, 12, 3))


def pruned(model, data, **options):
    return cbs.prune(model, data, **{"certify": False} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "magnitude"},
        {"method": "magnitude", "scope": "row"},
        {"method": "wanda", "scope": "layer"},
        {"method": "obc", **QUICK},
        {"method": "joint", **QUICK},
        {"method": "obd", "budget": "columns"},
        {"method": "magnitude", "granularity": "neurons"},
        {"method": "neuron-joint", "scope": "layer", **QUICK},
        pytest.param({"method": "magnitude", "refit": "network"}, marks=pytest.mark.slow),
        {"method": "magnitude", "stages": 2},
        {"method": "magnitude", "finetune": 1, "norms": True},
        {"method": "joint", "pipeline": "sequential", **QUICK},
    ],
    ids=str,
)
def test_the_limit_is_met_and_little_more_would_not_be(options):
    result = pruned(MODEL, DATA, max_loss_increase=0.1, **options)
    assert result.loss_increase <= 0.1
    assert result.search.status == "done"
    assert result.search.data == "calibration"
    within = [t for t in result.search.trials if t.meets and not t.passing]
    assert result.sparsity == max(t.achieved for t in within)
    (best,) = (t for t in within if t.sparsity == result.asked)
    assert best.loss_increase == pytest.approx(result.loss_increase, abs=1e-12)
    over = [t for t in result.search.trials if not t.meets and t.sparsity > best.sparsity and not t.passing]
    assert over
    assert all(trial.loss_increase > 0.1 for trial in over)
    assert min(_t(t.sparsity) for t in over) - _t(best.sparsity) <= limit.RESOLUTION + 1e-12
    assert result.request.max_loss_increase == 0.1
    again = pruned(MODEL, DATA, sparsity=result.asked, **options)
    assert again.loss_increase == pytest.approx(result.loss_increase, abs=1e-9)
    assert all(torch.equal(again.masks[name], mask) for name, mask in result.masks.items())


def test_it_is_measured_on_test_data_if_there_are_any():
    test = DATA.take(range(300, 400))
    result = pruned(MODEL, DATA.few(300), test=test, max_loss_increase=0.05, method="magnitude")
    assert result.search.data == "test"
    assert result.test_after.loss - result.test_before.loss <= 0.05
    measured = {t.loss_increase for t in result.search.trials if t.meets}
    assert result.test_after.loss - result.test_before.loss in measured


def test_a_limit_on_the_accuracy():
    result = pruned(MODEL, DATA, max_accuracy_drop=0.1, method="magnitude")
    assert 0.9 <= result.after.accuracy < 0.97
    both = pruned(MODEL, DATA, max_accuracy_drop=0.1, max_loss_increase=0.01, method="magnitude")
    assert both.sparsity < result.sparsity
    assert both.loss_increase <= 0.01


def test_where_the_loss_is_not_monotone_what_comes_back_was_measured():
    """Inputs come in equal pairs with weights that cancel: an odd number of zeros costs, an even one not."""
    x = torch.randn(50, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = torch.arange(1, 23, dtype=torch.float64)
    weight = torch.stack([sizes, -(sizes + 1e-3)], dim=1).flatten()
    model = nn.Sequential(nn.Linear(44, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(weight[None])
    inputs = x.repeat_interleave(2, dim=1)
    data = cbs.Samples(inputs, model(inputs).detach() + 1e-3)
    result = cbs.prune(model, data, max_loss_increase=0.5, method="magnitude", loss="mse_loss", certify=False)
    assert result.loss_increase <= 0.5
    trials = sorted(result.search.trials, key=lambda trial: trial.sparsity)
    assert [round(44 * t.achieved) % 2 == 0 for t in trials] == [t.meets for t in trials]
    assert {t.meets for t in trials} == {True, False}
    assert result.sparsity == max(t.achieved for t in trials if t.meets)


@pytest.mark.parametrize("seed", range(6))
def test_a_bracket_closes_on_any_function(seed):
    """Against steps, waves and noise: what it settles on was tried, is within, and what is next is not."""
    rng = torch.Generator().manual_seed(seed)
    shift, steep = (float(torch.rand((), generator=rng)) for _ in range(2))

    def excess(t):
        return [
            lambda: math.exp(3 * (t - 1 - shift)),
            lambda: 0.3 if t < 1 + shift else 7.0,
            lambda: t * (0.5 + steep) + 0.6 * math.sin(9 * t),
            lambda: -1.0 + 0.8 * t**2,
            lambda: math.inf if t > 2 * shift else -0.5,
            lambda: 0.0,
        ][seed]()

    bracket, tried = _Bracket(0.0, limit.FIRST, limit.FIRST), {0.0: 0.0}
    while (t := bracket.next()) is not None:
        assert t not in tried
        assert 0 < t <= _t(MOST)
        tried[t] = excess(t)
        bracket.learn(t, tried[t])
        assert len(tried) < limit.TRIALS
    assert tried[bracket.low] <= 1
    if seed == 5:
        assert bracket.low >= _t(MOST) - limit.RESOLUTION
    else:
        assert tried[bracket.high] > 1
        assert 0 < bracket.high - bracket.low <= limit.RESOLUTION


def test_near_a_guess_the_bracket_is_looked_for_by_small_steps():
    for root in (1.0, 1.31, 2.5):
        bracket, tried = _Bracket(0.0, 1.3, limit.NEAR), []
        while (t := bracket.next()) is not None:
            tried.append(t)
            bracket.learn(t, math.exp(2 * (t - root)))
        assert tried[0] == 1.3
        assert bracket.low <= root < bracket.high <= bracket.low + limit.RESOLUTION
        assert len(tried) <= 12
    assert abs(tried[1] - 1.3) == pytest.approx(limit.NEAR)


def test_cheaper_trials_only_narrow_it():
    result = pruned(
        MODEL, DATA, max_loss_increase=0.1, method="joint", scope="layer", layers=["4"], certify=True
    )
    passing = [trial for trial in result.search.trials if trial.passing]
    full = [trial for trial in result.search.trials if not trial.passing]
    assert passing
    assert full
    assert full[0].sparsity == max(t.sparsity for t in passing if t.meets)
    assert result.asked in {t.sparsity for t in full if t.meets}
    assert result.gap is not None
    assert result.loss_increase <= 0.1


def test_curvatures_are_computed_once():
    computed = []

    class Counting(cbs.Gram):
        def quadratics(self, network):
            computed.append(network)
            return super().quadratics(network)

    method = cbs.Method(Counting(), cbs.Scores("wanda"), cbs.Nothing(), name="counted")
    result = pruned(MODEL, DATA, max_loss_increase=0.1, method=method, scope="layer", certify=False)
    assert len(result.search.trials) > 3
    assert len(computed) == 1


def test_where_nothing_is_within_nothing_is_pruned():
    near = cbs.Samples(DATA.inputs, MODEL(DATA.inputs).detach() + 1e-3)
    with pytest.warns(cbs.LimitWarning, match="no sparsity that was tried is within max_loss_increase 0"):
        result = cbs.prune(MODEL, near, max_loss_increase=0, method="magnitude", loss="mse_loss")
    assert result.search.status == "nothing"
    assert (result.sparsity, result.loss_increase) == (0.0, 0.0)
    assert not any(trial.meets for trial in result.search.trials)
    dense = MODEL.state_dict()
    assert [*result.state] == [*dense]
    for name, values in dense.items():
        torch.testing.assert_close(result.state[name], values, rtol=0, atol=0)


def test_masks_that_a_network_comes_with_are_the_least():
    model = seeded(mlp, sizes=(6, 24, 12, 3))
    model.load_state_dict(MODEL.state_dict())
    for i in (0, 2, 4):
        torch_prune.l1_unstructured(model[i], "weight", 0.3)
    result = pruned(model, DATA, max_loss_increase=0.2, method="magnitude")
    assert result.sparsity > 0.3
    assert min(trial.sparsity for trial in result.search.trials) > 0.3
    with pytest.warns(cbs.LimitWarning):
        least = pruned(model, DATA, max_loss_increase=0, max_accuracy_drop=0, method="random")
    assert least.sparsity == pytest.approx(0.3, abs=0.01)


def test_ctrl_c_keeps_the_best_that_was_found():
    number = []
    result = pruned(
        MODEL, DATA, max_loss_increase=0.1, method="magnitude", scope="layer",
        callback=lambda step: step.stage == "trial" and (number.append(step.index) or step.index == 4),
    )  # fmt: skip
    assert number == [1, 2, 3, 4]
    assert result.status == result.search.status == "interrupted"
    assert len(result.search.trials) == 4
    assert result.loss_increase <= 0.1
    assert result.asked == max(trial.sparsity for trial in result.search.trials if trial.meets)


def test_past_the_time_limit_the_best_comes_back(clock):
    def turn(step):
        if step.stage == "trial":
            clock.advance(4)

    result = pruned(
        MODEL, DATA, max_loss_increase=0.1, method="magnitude", scope="layer", time_limit=10, callback=turn,
        certify=False,
    )  # fmt: skip
    assert result.search.status == "time_limit"
    assert len(result.search.trials) == 2
    assert result.loss_increase <= 0.1


def test_methods_are_compared_by_what_they_reach():
    options = {
        "sparsities": [None],
        "methods": ["magnitude", "obc"],
        "max_loss_increase": 0.1,
        "certify": False,
    }
    told = []
    results = cbs.compare(MODEL, DATA, on_result=told.append, **options)
    assert [result.method for result in results] == ["magnitude", "obc"]
    assert results[1].sparsity > results[0].sparsity
    assert all(result.loss_increase <= 0.1 for result in results)
    again = cbs.compare(MODEL, DATA, finished=results, **options)
    assert [r.search for r in again] == [r.search for r in results]
    assert [r.asked for r in again] == [r.asked for r in results]
    with pytest.raises(ValueError, match=r"has max_loss_increase 0\.1, not 0\.2"):
        cbs.compare(MODEL, DATA, finished=results, **options | {"max_loss_increase": 0.2})


def test_the_record_is_kept():
    result = pruned(MODEL, DATA, max_loss_increase=0.1, method="magnitude", scope="layer")
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    back = cbs.PruneResult.from_dict(record, result.model, result.saved)
    assert back.search == replace(result.search, trials=list(result.search.trials))
    assert "sparsity found in" in repr(result)
    assert "search" not in pruned(MODEL, DATA, sparsity=0.5, method="magnitude").to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loss_increase": -0.1}, "max_loss_increase must be a finite number >= 0 or None, got -0.1"),
        ({"max_loss_increase": math.inf}, "max_loss_increase must be a finite number"),
        ({"max_loss_increase": "5%"}, "max_loss_increase must be a finite number >= 0 or None, got '5%'"),
        ({"max_accuracy_drop": 1}, r"fraction in \[0, 1\) or None, got 1; 1 percentage points are 0.01"),
        ({"max_loss_increase": 0.1, "budget": "2:4"}, "but budget '2:4' prunes 0.5; drop one of the two"),
        ({"max_loss_increase": 0.1, "sparsity": 0.5}, "sparsity 0.5 says how much to prune"),
        (
            {"max_loss_increase": 0.1, "stages": cbs.Schedule(given=(0.5, 0.9))},
            "looks for the last sparsity, but stages give it, 0.9; give a number of stages",
        ),
        ({}, "sparsity must be given"),
    ],
)
def test_what_can_not_be_looked_for_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        pruned(MODEL, DATA, method="magnitude", **options)
    assert "\n" not in str(caught.value)


def test_an_accuracy_takes_labels():
    model = seeded(mlp)
    data = samples(20).inputs, torch.randn(20, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"max_accuracy_drop is 0\.1, but there is no accuracy"):
        cbs.prune(model, data, max_accuracy_drop=0.1, loss="mse_loss", method="magnitude")


def test_a_request_without_a_sparsity_knows_the_most():
    request = Request(max_loss_increase=0.1)
    assert request.limited
    assert request.fraction == MOST
    assert replace(request, sparsity=0.5).fraction == 0.5
