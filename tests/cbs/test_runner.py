"""The sequential pipeline, against a loop written by hand on the networks' own activations."""

import copy

import numpy as np
import pytest
import torch

import cbs
from solvers import Budget, SubsetProblem, solve
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DAMPING = 0.02


def rows_of(layer, x):
    """Inputs of a layer as rows, by PyTorch's own unfolding."""
    if isinstance(layer, torch.nn.Linear):
        return x.reshape(-1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = torch.nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    patches = torch.nn.functional.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def inputs_of(model, at, x):
    for module in model[:at]:
        x = module(x)
    return rows_of(model[at], x).detach().numpy()


def by_hand(model, data, prune):
    """Every layer's mask and weights, each from the moments of what those before it leave."""
    pruned, found = copy.deepcopy(model), {}
    for at, module in enumerate(model):
        if not hasattr(module, "weight") or module.weight.ndim < 2:
            continue
        X, Z = (inputs_of(net, at, data.inputs) for net in (model, pruned))
        X, Z = (np.column_stack([A, np.ones(len(A))]) for A in (X, Z))
        N, n = len(data), Z.shape[1] - 1
        K, C = Z.T @ Z / N, X.T @ Z / N
        W = np.column_stack([module.weight.detach().flatten(1).numpy(), module.bias.detach().numpy()])
        H = K + np.diag(np.append(np.full(n, DAMPING * np.diagonal(K)[:n].mean()), 0.0))
        mask, V = prune(W, H, W @ (K - C), n)
        found[str(at)] = mask, V
        with torch.no_grad():
            pruned[at].weight.copy_(torch.from_numpy(V[:, :n]).reshape(module.weight.shape))
            pruned[at].bias.copy_(torch.from_numpy(V[:, n]))
    return found


def joint(W, H, G, n):
    problem = SubsetProblem(W, H, Budget.per_row(n // 2), gradient=G, movable=[n])
    solution = solve(problem, "local-search")
    return solution.mask[:, :n], solution.weights


def wanda(W, H, G, n):
    damping = DAMPING / (1 + DAMPING) * np.diagonal(H)[:n].mean()
    scores = (np.diagonal(H)[:n] - damping) * W[:, :n] ** 2
    mask = Budget.per_row(n // 2).laid_over(*scores.shape).smallest(scores)
    return mask, np.where(np.pad(mask, ((0, 0), (0, 1))), 0.0, W)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(30))])
@pytest.mark.parametrize(("method", "prune"), [("joint", joint), ("wanda", wanda)])
def test_each_layer_is_pruned_on_what_those_before_it_leave(make, data, method, prune):
    model = seeded(make)
    ask = {"sparsity": 0.5, "scope": "row", "solver": "local-search", "damping": DAMPING, "certify": False}
    result = cbs.prune(model, data, method=method, pipeline="sequential", **ask)
    shot = cbs.prune(model, data, method=method, **ask)
    for name, (mask, V) in by_hand(model, data, prune).items():
        assert (result.masks[name].flatten(1).numpy() == mask).all()
        weight, bias = (result.state[f"{name}.{part}"].numpy() for part in ("weight", "bias"))
        np.testing.assert_allclose(weight.reshape(mask.shape), V[:, :-1], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(bias, V[:, -1], rtol=1e-6, atol=1e-9)
    first, *_, last = result.masks
    assert torch.equal(result.masks[first], shot.masks[first])
    assert not torch.equal(result.state[f"{last}.weight"], shot.state[f"{last}.weight"]) or method == "wanda"


@pytest.mark.parametrize("method", ["joint", "sparsegpt", "wanda"])
def test_a_networks_budget_is_shared_by_the_dense_curves(method):
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.6, "scope": "network", "solver": "greedy", "certify": False, "method": method}
    one, other = (cbs.prune(model, data, pipeline=p, **ask) for p in ("one-shot", "sequential"))
    counts = [[row.pruned for layer in result.layers for row in layer.rows] for result in (one, other)]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == round(0.6 * (30 + 20 + 12))


@pytest.mark.parametrize("scope", ["row", "layer", "network"])
def test_sequential_results_are_held_against_the_dense_problem(scope):
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.5, "method": "joint", "scope": scope}
    one, other = (cbs.prune(model, data, pipeline=p, **ask) for p in ("one-shot", "sequential"))
    assert other.bound <= one.value * (1 + 1e-9) <= other.value * (1 + 1e-4)
    for layer in other.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-6)


def test_masks_that_came_with_the_network_stay():
    model = seeded(mlp)
    keep = torch.ones(4, 5)
    keep[0, [1, 2]] = keep[3, 0] = 0
    torch.nn.utils.prune.custom_from_mask(model[2], "weight", keep)
    result = cbs.prune(
        model, samples(60), sparsity=0.6, scope="row", method="joint", pipeline="sequential", certify=False
    )
    assert bool(result.masks["2"][keep == 0].all())
    assert (result.masks["2"].sum(1) == 3).all()


@pytest.mark.parametrize("scope", ["row", "network"])
def test_a_stopped_pass_leaves_the_other_layers_to_one_shot(scope):
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.5, "scope": scope, "method": "obc", "certify": False}

    def stop(step):
        return step.stage == "select" and step.index == 1

    whole = cbs.prune(model, data, pipeline="sequential", **ask)
    result = cbs.prune(model, data, pipeline="sequential", callback=stop, **ask)
    assert result.status == "interrupted"
    assert torch.equal(result.masks["0"], whole.masks["0"])
    assert result.sparsity == pytest.approx(0.5, abs=0.04)


def test_time_that_is_up_leaves_the_other_layers_to_one_shot():
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.5, "scope": "row", "method": "obc", "certify": False}
    shot = cbs.prune(model, data, **ask)
    late = cbs.prune(model, data, pipeline="sequential", time_limit=1e-9, **ask)
    for name, mask in shot.masks.items():
        assert torch.equal(late.masks[name], mask)
        torch.testing.assert_close(late.state[f"{name}.weight"], shot.state[f"{name}.weight"])
