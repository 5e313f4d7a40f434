"""Elimination-compensation, rules and methods together: against measured outputs and all masks there are."""

import itertools
import os

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.curvature import Gram, Identity, OutputDiagonal, OutputGram
from cbs.network.network import Network
from cbs.references import References
from cbs.request import Request
from cbs.selection import Job, Scores
from cbs.watch import Watch
from solvers import Budget
from solvers.form.reduction import reduce
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

METHODS = ("elimination", "elimination-nonlinear", "elimination-joint")


def scores(network, rule, curvature):
    """Every layer's scores."""
    request = Request(0.5, method="elimination", certify=False)
    watch = Watch("elimination", request, len(network.layers), None)
    damped = curvature.damped(network.damping)
    job = Job(network, damped, request, watch, References(network), np.random.default_rng(0))
    return [Scores(rule).scores(job, model)[0] for model in job.quadratics]


def output_error(dense, pruned, data):
    """`1/2 E|dy|^2`, measured."""
    with torch.no_grad():
        change = dense(data.inputs) - pruned(data.inputs)
    return 0.5 * float(change.square().flatten(1).sum(dim=1).mean())


def shrunk(make, at, size):
    """A network with small weights in one layer, so that the first order is all there is of them."""
    model = seeded(make)
    layers = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        layers[at].weight.mul_(size)
        layers[at].bias.add_(0.3)  # away from kinks
    return model


def best_ablation(model, data, name):
    """`min_db 1/2 E|dy|^2` of every weight of a layer: it is taken away, and the bias fitted to outputs."""
    module, x = model.get_submodule(name), data.inputs
    with torch.no_grad():
        y = model(x)
        flat = module.weight.view(len(module.weight), -1)
        found = np.zeros(flat.shape)
        for i, j in np.ndindex(*flat.shape):
            w, b = flat[i, j].clone(), module.bias[i].clone()
            flat[i, j] = 0.0

            def cost(shift, i=i, b=b):
                module.bias[i] = b + shift
                return 0.5 * float((model(x) - y).square().flatten(1).sum(dim=1).mean())

            step = float(w.abs())  # the cost is a parabola in the shift, to the order that matters
            left, middle, right = cost(-step), cost(0.0), cost(step)
            found[i, j] = middle - (right - left) ** 2 / (8 * (right - 2 * middle + left))
            flat[i, j], module.bias[i] = w, b
    return found


def prelu(sizes=(6, 5, 4, 3)):
    parts = [[nn.Linear(a, b), nn.PReLU()] for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for pair in parts for part in pair][:-1]).double().eval()


@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples(50)), (prelu, samples(50)), (convnet, image_samples(20))]
)
def test_the_linear_rule_is_the_first_order_of_the_best_bias_shift_on_measured_outputs(make, data):
    for at in range(3):
        network = Network(shrunk(make, at, 1e-4), data)
        found = scores(network, "elimination", OutputDiagonal())[at]
        expected = best_ablation(network.model, data, network.layers[at].name)
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4 * expected.max())


def test_on_a_linear_network_the_rule_is_exact_and_the_measured_one_the_same():
    data, model = samples(50), nn.Sequential(*[part for part in seeded(mlp) if isinstance(part, nn.Linear)])
    network = Network(model, data)
    linear, measured = scores(network, "elimination", OutputDiagonal()), scores(network, "ablation", Gram())
    for layer, a, b in zip(network.layers, linear, measured, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)
        np.testing.assert_allclose(a, best_ablation(network.model, data, layer.name), rtol=1e-6)


@pytest.mark.parametrize("method", ["elimination-joint", "elimination"])
def test_of_the_last_layer_the_model_is_the_measured_change_of_the_outputs(method):
    model, data = seeded(mlp, sizes=(6, 8, 3)), samples(60)
    result = cbs.prune(model, data, sparsity=0.5, method=method, layers=["2"])
    error = output_error(model, result.model, data)
    if method == "elimination-joint":
        assert result.measured.prediction == pytest.approx(error, rel=1e-9)
        assert result.layers[0].stats["objective"]["value"] == pytest.approx(error, rel=1e-9)
    z = torch.tanh(model[0](data.inputs)).detach()
    W, gone = model[2].weight.detach(), result.masks["2"]
    shift = ((W * gone) * z.mean(dim=0)).sum(dim=1)
    moved = result.model[2].bias - model[2].bias
    np.testing.assert_allclose(moved.detach(), shift, rtol=1e-9)  # all shifts of a row add up


def pareto(network):
    """Every row's least `1/2 D'HD` at every count, its bias fitted, over all its masks."""
    curves = []
    for model in network(OutputGram(damping=0.0)):
        for w, H in zip(model.W, model.H, strict=True):
            best = np.full(model.n + 1, np.inf)
            for chosen in itertools.product([False, True], repeat=model.n):
                D = np.append(np.where(chosen, -w[: model.n], 0.0), 0.0)
                D[-1] = -(H[-1, :-1] @ D[:-1]) / H[-1, -1]
                best[sum(chosen)] = min(best[sum(chosen)], 0.5 * D @ H @ D)
            curves.append(best)
    return curves


def least(curves, count):
    """The least sum of the curves at counts that sum to `count`."""
    total = np.array([0.0])
    for curve in curves:
        longer = np.full(len(total) + len(curve) - 1, np.inf)
        for k, value in enumerate(curve):
            longer[k : k + len(total)] = np.minimum(longer[k : k + len(total)], total + value)
        total = longer
    return total[count]


@pytest.mark.parametrize("solver", ["auto", "branch-and-bound", "local-search"])
@pytest.mark.parametrize("scope", ["row", "layer", "network"])
def test_the_combinatorial_rule_against_all_masks(scope, solver):
    model, data = seeded(mlp, sizes=(6, 4, 3)), samples(40)
    result = cbs.prune(model, data, sparsity=0.5, method="elimination-joint", scope=scope, solver=solver)
    curves = pareto(Network(model, data))
    if scope == "row":
        optimum = [sum(curve[3] for curve in curves[:4]), sum(curve[2] for curve in curves[4:])]
    elif scope == "layer":
        optimum = [least(curves[:4], 12), least(curves[4:], 6)]
    else:
        optimum = [least(curves, 18)]
    own = [layer.stats["objective"] for layer in result.layers]
    assert result.measured.prediction == pytest.approx(sum(part["value"] for part in own), rel=1e-9)
    if scope == "network":
        assert sum(part["value"] for part in own) >= optimum[0] * (1 - 1e-9)
        if solver != "local-search":
            assert sum(part["value"] for part in own) <= optimum[0] * (1 + 1e-4)
            whole = result.history[0].stats["objective"]
            assert whole["bound"] <= optimum[0] <= whole["value"] * (1 + 1e-9)
    else:
        for part, best in zip(own, optimum, strict=True):
            assert part["bound"] <= best * (1 + 1e-9)
            assert best * (1 - 1e-9) <= part["value"] <= best * (1.05 if solver == "local-search" else 1.0001)
            if solver != "local-search":
                assert part["gap"] <= 1e-4


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(40)), (convnet, image_samples(20))])
def test_the_diagonal_of_the_combinatorial_rule_is_the_linear_rule(make, data):
    network = Network(seeded(make), data)
    linear = scores(network, "elimination", OutputDiagonal())
    for model, known in zip(network(OutputGram(damping=0.0)), linear, strict=True):
        problem = reduce(model.problem(Budget.per_layer(0), refit=False, bias=True)).problem
        own = 0.5 * problem.hessian.diagonal() * problem.W**2
        np.testing.assert_allclose(own, known, rtol=1e-7, atol=1e-10 * known.max())


def test_it_claims_nothing_of_the_layer_gram_by_which_others_are_judged():
    model, data = seeded(mlp), samples(40)
    alone = cbs.prune(model, data, sparsity=0.5, method="joint", scope="row")
    both = cbs.compare(model, data, sparsities=[0.5], methods=["elimination-joint", "joint"], scope="row")
    assert not cbs.methods()["elimination-joint"]["curvature"].startswith("layer Gram")
    assert both[1].bound == pytest.approx(alone.bound, rel=1e-4)
    assert max(result.bound for result in both) <= alone.value
    assert both[0].bound <= both[0].value
    assert both[0].value >= both[1].value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["row", "layer", "network"])
def test_a_cnn_with_batch_norm_and_layers_without_biases(method, scope):
    model, data = seeded(convnet), image_samples(20)
    model[3].bias = None
    result = cbs.prune(model, data, sparsity=0.5, method=method, scope=scope)
    gone = torch.cat([mask.flatten() for mask in result.masks.values()])
    assert int(gone.sum()) == round(0.5 * len(gone))
    gone = result.masks["3"]
    assert (result.model[3].weight[gone] == 0).all()
    assert (result.model[3].weight[~gone] == model[3].weight[~gone]).all()
    assert result.model[3].bias is None
    assert not torch.equal(result.model[0].bias, model[0].bias)


@pytest.mark.parametrize("method", METHODS)
def test_masks_that_a_network_comes_with_stay(method):
    model, data = seeded(mlp), samples(40)
    torch.nn.utils.prune.random_unstructured(model[0], "weight", 6)
    earlier = model[0].weight_mask == 0
    result = cbs.prune(model, data, sparsity=0.5, method=method, scope="network")
    assert result.masks["0"][earlier].all()
    sizes = sum(mask.numel() for mask in result.masks.values())
    assert sum(int(mask.sum()) for mask in result.masks.values()) == round(0.5 * sizes)


@pytest.mark.parametrize("method", METHODS)
def test_columns_and_patterns(method):
    model, data = seeded(mlp, sizes=(6, 4, 4)), samples(40)
    columns = cbs.prune(model, data, sparsity=0.5, method=method, budget="columns")
    assert all((mask == mask[0]).all() for mask in columns.masks.values())
    pattern = cbs.prune(model, data, method=method, budget="1:2")
    for mask in pattern.masks.values():
        assert (mask.reshape(-1, 2).sum(dim=1) == 1).all()


def test_the_digits_lose_less_than_by_magnitude_and_the_joint_choice_the_least():
    model, split = cbs.trained_digits_mlp()
    results = cbs.compare(
        model, split.train, sparsities=[0.7], methods=["magnitude", *METHODS], certify=False
    )  # fmt: skip
    found = {result.method: output_error(model, result.model, split.train) for result in results}
    assert found["elimination-joint"] < min(found["elimination"], found["elimination-nonlinear"])
    assert max(found["elimination"], found["elimination-nonlinear"]) < found["magnitude"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Identity(), Scores("magnitude"), cbs.OwnBias()), "OwnBias needs a curvature with the bias in it"),
        ((cbs.Fisher(), Scores("elimination"), cbs.Nothing()), "needs the bias in its curvature"),
        ((cbs.Fisher(), Scores("ablation"), cbs.Nothing()), "needs the bias in its curvature"),
        ((cbs.Fisher(), cbs.Solve(problem="own-bias"), cbs.Nothing()), "needs the bias in its curvature"),
        ((OutputDiagonal(), cbs.Solve(), cbs.OwnBias()), "needs weights that interact"),
    ],
)
def test_parts_that_make_no_method_are_refused_in_one_line(parts, message):
    with pytest.raises(ValueError, match=message) as error:
        cbs.Method(*parts)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_mnist_keeps_more_by_elimination_than_by_magnitude():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST")
    split = cbs.mnist(folder)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *prelu((784, 32, 32, 10)).float())
    train = split.train.choose(12_000)
    cbs.train(model, train, epochs=5, weight_decay=0.0)
    data = train.choose(1_000)
    results = cbs.compare(
        model, data, sparsities=[0.8], methods=["magnitude", *METHODS], test=split.test, certify=False
    )
    losses = {result.method: result.measured.test_after.loss for result in results}
    assert losses["elimination-joint"] < min(losses["elimination"], losses["elimination-nonlinear"])
    assert max(losses["elimination"], losses["elimination-nonlinear"]) < losses["magnitude"]
    error = {result.method: output_error(model, result.model, data) for result in results}
    assert error["elimination-joint"] == min(error.values())
