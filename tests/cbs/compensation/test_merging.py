import numpy as np
import pytest

import cbs
from cbs.compensation.merging import Merged
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(60))])
def test_only_neurons_merged_into_and_the_bias_move(make, data):
    model = seeded(make)
    result = cbs.prune(model, data, method="neuron-merge", sparsity=0.4, scope="layer", certify=False)
    dense = {name: module.weight.detach().flatten(1).numpy() for name, module in weights(model)}
    for name, module in weights(result.model):
        W, mask = module.weight.detach().flatten(1).numpy(), result.masks[name].flatten(1).numpy()
        assert not W[mask].any()
        moved = (np.abs(W - dense[name]) > 1e-9) & ~mask
        feeding = [group for group in result.neurons if name in group.columns]
        if not feeding:
            assert not moved.any()
        else:
            assert moved.any(axis=0).sum() * len(feeding[0].neurons) > 0
            columns = moved.any(axis=0).sum()
            width = len(feeding[0].columns[name]) // len(feeding[0].neurons)
            assert columns <= width * len(feeding[0].neurons)


def weights(model):
    return [(name, module) for name, module in model.named_modules() if getattr(module, "weight", None) is
            not None and module.weight.ndim > 1]  # fmt: skip


def test_the_bias_is_where_the_gram_has_its_least():
    model, data = seeded(mlp), samples(60)
    result = cbs.prune(model, data, method="neuron-merge", sparsity=0.4, scope="layer", damping=1e-9,
                       certify=False)  # fmt: skip
    h = np.tanh((data.inputs @ model[0].weight.T + model[0].bias).detach().numpy())
    before = h @ model[2].weight.detach().numpy().T + model[2].bias.detach().numpy()
    after = h @ result.model[2].weight.detach().numpy().T + result.model[2].bias.detach().numpy()
    live = np.setdiff1d(np.arange(4), result.neurons[1].neurons)
    np.testing.assert_allclose((after - before)[:, live].mean(axis=0), 0.0, atol=1e-9)


def test_it_takes_merges_of_a_gram():
    with pytest.raises(ValueError, match=r"Merged needs a layer's inputs.* take Gram\(\)"):
        cbs.Method(cbs.Identity(), cbs.NeuronDropout(), Merged())
    for selection in (cbs.NeuronDropout(), cbs.NeuronSolve(), cbs.Scores("wanda"), cbs.Solve()):
        for compensation in (Merged(), cbs.Scaled(Merged())):
            with pytest.raises(ValueError, match="Merged takes merges of neurons, as of NeuronMerge"):
                cbs.Method(cbs.Gram(), selection, compensation)
    assert cbs.Method(cbs.Gram(), cbs.NeuronMerge(), cbs.Scaled(Merged()))
