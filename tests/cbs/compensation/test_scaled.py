import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.compensation.scaled import least_step
from cbs.data import Samples
from cbs.methods import get_method
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def losses(model, data, method, **options):
    """The calibration loss at the best step, and with steps 0 and 1, of a pruning by network scope."""
    found = {}
    for name, move in (("stay", cbs.Nothing()), ("go", cbs.Survivors()), ("scaled", cbs.Scaled())):
        one = cbs.Method(method.curvature, method.selection, move, name=name)
        found[name] = cbs.prune(model, data, method=one, certify=False, **options)
    return found


@pytest.mark.parametrize("name", ["cbs", "joint"])
def test_no_worse_than_staying_or_going_on_any_network(name):
    solver = "greedy" if name == "joint" else "auto"
    for model, data in ((seeded(mlp), samples(60)), (seeded(convnet), image_samples(40))):
        found = losses(model, data, get_method(name), sparsity=0.7, solver=solver, damping=1e-3)
        loss = {name: result.after.loss for name, result in found.items()}
        assert loss["scaled"] <= min(loss["stay"], loss["go"]) * (1 + 1e-12)
        t = found["scaled"].history[0].stats["step"]
        assert 0 <= t <= 1
        for layer, mask in found["scaled"].masks.items():
            weight = {n: r.model.get_submodule(layer).weight.detach() for n, r in found.items()}
            assert not weight["scaled"][mask].any()
            expected = weight["stay"] + t * (weight["go"] - weight["stay"])
            torch.testing.assert_close(weight["scaled"], expected, rtol=1e-5, atol=1e-6)


def test_a_whole_step_where_the_loss_is_the_model():
    """A linear layer, squared error, and the layer's Gram: the model's minimum is the loss's."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.standard_normal((80, 6)) @ rng.standard_normal((6, 6)))
    model = nn.Sequential(nn.Linear(6, 4)).double()
    with torch.no_grad():
        noise = torch.from_numpy(rng.standard_normal((80, 4)))
        all_inputs = torch.cat([x, torch.ones(80, 1, dtype=x.dtype)], dim=1)
        noise -= all_inputs @ torch.linalg.lstsq(all_inputs, noise).solution  # the dense layer fits best
        data = Samples(x, model(x) + noise)
    method = cbs.Method(cbs.Gram(), cbs.Scores("magnitude"), cbs.Scaled())
    result = cbs.prune(
        model, data, method=method, sparsity=0.5, scope="layer", damping=0.0, loss="mse_loss", certify=False
    )
    assert result.history[0].stats["step"] == 1.0
    mask = result.masks["0"]
    moved = result.model[0]
    for r in range(4):  # least squares on the survivors and the bias
        used = torch.cat([x[:, ~mask[r]], torch.ones(80, 1, dtype=x.dtype)], dim=1)
        best = torch.linalg.lstsq(used, model(x)[:, r].detach()).solution
        torch.testing.assert_close(moved.weight[r][~mask[r]].detach(), best[:-1])
        torch.testing.assert_close(moved.bias[r].detach(), best[-1])


def test_the_step_is_the_least_of_a_fine_grid():
    """Where the way is too far the loss along it has its minimum inside, and that is found."""
    model, split = cbs.trained_digits_mlp()
    found = losses(model, split.train, get_method("cbs"), sparsity=0.9, damping=1e-4)
    t = found["scaled"].history[0].stats["step"]
    twin, at = copy.deepcopy(model), {}
    for step in np.arange(129) / 128:
        for layer in found["scaled"].masks:
            stay, go = (found[n].model.get_submodule(layer).weight.detach() for n in ("stay", "go"))
            with torch.no_grad():
                twin.get_submodule(layer).weight.copy_(stay + step * (go - stay))
        at[step] = float(F.cross_entropy(twin(split.train.inputs), split.train.targets).detach())
    best = min(at, key=at.get)
    assert 0 < best < 1
    assert abs(t - best) <= 1 / 128
    assert at[t] <= min(at[0.0], at[1.0])


def test_the_search_ends_at_the_least_point_of_its_grid():
    assert least_step(lambda t: (t - 0.3) ** 2) == 38 / 128
    assert least_step(lambda t: t) == 0.0
    assert least_step(lambda t: -t) == 1.0
    assert least_step(lambda t: 1.0) == 0.0
    assert least_step(lambda t: float("nan") if t > 0.4 else -t) == 51 / 128
    assert least_step(lambda t: float("inf")) == 0.0


def test_what_does_not_move_is_refused():
    for wrong in (cbs.Nothing(), cbs.Scaled(), "survivors"):
        with pytest.raises(ValueError, match="inner must be a compensation that moves weights") as error:
            cbs.Scaled(wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="Singles needs an inverse"):
        cbs.Method(cbs.Identity(), cbs.Scores("magnitude"), cbs.Scaled(cbs.Singles()))
    assert get_method("cbs-scaled").describe()["compensation"] == "all survivors, scaled by the loss"
