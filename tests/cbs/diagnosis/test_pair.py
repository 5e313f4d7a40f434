import pytest
import torch
from torch import nn

import cbs
from cbs.diagnosis.pair import Groups, pair_of
from cbs.network.surgery import clone, put_mask
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def test_a_result_knows_its_dense_network():
    model = seeded(mlp)
    result = cbs.prune(model, samples(), sparsity=0.5, method="magnitude", certify=False)
    pair = pair_of(result, None)
    assert [*pair.sites] == ["0", "2", "4"]
    for key, values in model.state_dict().items():
        assert torch.equal(pair.dense.state_dict()[key], values)
        assert torch.equal(pair.pruned.state_dict()[key], result.state[key])


def test_sites_are_the_modules_that_differ_with_all_their_tensors():
    model = seeded(convnet)
    other = clone(model)
    put_mask(other[3], "weight", torch.rand(other[3].weight.shape) < 0.5)
    other[1].running_mean += 1
    other[1].num_batches_tracked += 1
    pair = pair_of(other, model)
    assert {name: [*tensors] for name, tensors in pair.sites.items()} == {
        "1": ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"],
        "3": ["3.weight", "3.bias"],
    }
    assert not hasattr(pair.pruned[3], "weight_mask")
    assert torch.equal(pair.dense_tensors("1")["1.running_mean"], model[1].running_mean)


def test_a_counter_of_batches_is_no_difference():
    model = seeded(convnet)
    other = clone(model)
    other[1].num_batches_tracked += 1
    with pytest.raises(ValueError, match="the same weights: there is nothing to tell apart"):
        pair_of(other, model)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.middle = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def test_modules_that_share_a_tensor_are_one_site():
    model = seeded(Tied)
    groups = Groups(model)
    assert groups.of("last.weight") == groups.of("first.bias") == "first"
    assert groups.of("middle.weight") == "middle"
    other = clone(model)
    with torch.no_grad():
        other.last.weight[0] = 0
    assert {name: [*tensors] for name, tensors in pair_of(other, model).sites.items()} == {
        "first": ["first.weight", "first.bias", "last.weight"]
    }


def test_what_is_no_pair_is_refused_in_one_line():
    model = seeded(mlp)
    result = cbs.prune(model, samples(), sparsity=0.5, method="magnitude", certify=False)
    small = cbs.prune(
        model, samples(), sparsity=0.5, granularity="neurons", method="magnitude", certify=False
    )
    for pruned, dense, message in (
        (result, model, "dense is known of a result"),
        (result.model, None, "dense is missing; give dense=MODEL"),
        ("a", model, "pruned must be a torch.nn.Module, not str or a result"),
        (model, seeded(mlp, sizes=(6, 5, 4)), "pruned has '4.weight', which dense has not"),
        (seeded(mlp, sizes=(6, 5, 3)), model, "pruned has '2.weight' of shape"),
        (small.permanent(), model, r"give the masked one \(result.model\)"),
        (nn.Linear(6, 3), model, "pruned has no '0.weight'"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            pair_of(pruned, dense)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="device 'nowhere' can't be used"):
        pair_of(result, None, "nowhere")


def test_the_loss_is_the_results_unless_another_is_given():
    model, data = seeded(convnet), image_samples()
    targets = torch.randn(len(data), 3, dtype=torch.float64)
    result = cbs.prune(
        model, (data.inputs, targets), sparsity=0.5, method="magnitude", loss="mse_loss", certify=False
    )
    pair = pair_of(result, None)
    assert pair.loss(None) is torch.nn.functional.mse_loss
    assert pair.loss("l1_loss") is torch.nn.functional.l1_loss
    assert pair_of(result.model, model).loss(None) is torch.nn.functional.cross_entropy
