import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import cbs
from cbs.network.kinds import close_model, open_model
from cbs.network.network import Network

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def agree(a, b):
    flat = [list(torch.utils._pytree.tree_leaves(part)) for part in (a, b)]
    assert len(flat[0]) == len(flat[1])
    for x, y in zip(*flat, strict=True):
        if isinstance(x, torch.Tensor):
            assert x.shape == y.shape
            assert torch.allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "both", "bias"), [(1, False, True), (2, True, False), (2, True, True)])
def test_layers_give_what_theirs_do(kind, batch_first, layers, both, bias):
    torch.manual_seed(0)
    size = {"proj_size": 2} if kind is nn.LSTM and bias else {}
    model = kind(3, 4, layers, bias=bias, batch_first=batch_first, bidirectional=both, **size).double().eval()
    opened = open_model(model).model
    assert type(opened) is not kind
    x = torch.randn(5, 6, 3).double()
    runs, width = layers * (1 + both), size.get("proj_size", 4)

    def state(count):
        h = torch.randn(runs, count, width).double()
        return (h, torch.randn(runs, count, 4).double()) if kind is nn.LSTM else h

    sorted_by_length = pack_padded_sequence(
        torch.randn(4, 5, 3).double(), torch.tensor([2, 5, 3, 3]), batch_first=True, enforce_sorted=False
    )
    first = state(5 if batch_first else 6)
    for args in ((x,), (x[0],), (x, first), (sorted_by_length,), (sorted_by_length, state(4))):
        agree(model(*args), opened(*args))
    closed = close_model(opened)
    assert type(closed) is kind
    for (name, values), (other, again) in zip(
        model.state_dict().items(), closed.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(values, again)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_give_what_theirs_do(kind, bias):
    torch.manual_seed(0)
    model = kind(3, 4, bias=bias).double()
    opened = open_model(model).model
    x, h = torch.randn(5, 3).double(), torch.randn(5, 4).double()
    for args in ((x,), (x[0],), (x, (h, h.sin()) if kind is nn.LSTMCell else h)):
        agree(model(*args), opened(*args))


class Last(nn.Module):
    def __init__(self, rnn, width):
        super().__init__()
        self.rnn, self.fc = rnn, nn.Linear(width, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


def sequences(count=80):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, 3, generator=g).double()
    return x, torch.randint(0, 3, (count,), generator=g)


def test_gates_have_the_moments_of_input_and_hidden_state():
    torch.manual_seed(0)
    model = Last(nn.LSTM(3, 4, batch_first=True), 4).double()
    data = sequences()
    result = cbs.prune(model, data, sparsity=0.5, method="joint", scope="row", layers=["rnn"])
    network = Network(model, data, layers=["rnn"])
    x, steps = data[0], []
    for t in range(x.shape[1]):  # the hidden state before each step, from prefixes
        h = model.rnn(x[:, :t])[0][:, -1] if t else torch.zeros(len(x), 4).double()
        steps.append(torch.cat([x[:, t], h, torch.ones(len(x), 1).double()], dim=1))
    Z = torch.cat(steps).detach()
    H = (Z.T @ Z / len(x)).numpy()
    found = network(cbs.Gram())[0]
    assert np.allclose(found.H - np.diag([found.damping] * 7 + [0.0]), H, rtol=1e-9, atol=1e-12)
    pruned = result.permanent().rnn
    before, after = (
        torch.cat([r.weight_ih_l0, r.weight_hh_l0, (r.bias_ih_l0 + r.bias_hh_l0)[:, None]], dim=1)
        for r in (model.rnn, pruned)
    )
    D = (after - before).detach().numpy()
    value = 0.5 * np.einsum("ri,ij,rj->", D, H, D) + 0.5 * found.damping * np.square(D[:, :-1]).sum()
    assert result.value == pytest.approx(value, rel=1e-9)
    assert result.value > 0
    assert set(result.masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    for key, mask in result.masks.items():
        weight = pruned.get_parameter(key.removeprefix("rnn."))
        assert not weight[mask].any()
        assert bool((weight[~mask] != 0).all())
    together = torch.cat([*result.masks.values()], dim=1)
    assert together.sum(dim=1).tolist() == [4] * 16  # of 7, to even


@pytest.mark.parametrize(
    "make", [lambda: nn.GRU(3, 4, batch_first=True), lambda: nn.LSTM(3, 4, 2, batch_first=True)]
)
def test_masks_stay_through_training_and_copies(make):
    import copy

    torch.manual_seed(0)
    model = Last(make(), 4).double()
    x, y = sequences()
    result = cbs.prune(model, (x, y), sparsity=0.5, method="obd", certify=False, finetune=1)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    trained = copy.deepcopy(result.model)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
    out = trained(x)
    plain = copy.deepcopy(model)
    plain.load_state_dict(cbs.network.surgery.clone(trained).state_dict())
    assert torch.allclose(out, plain(x), atol=1e-12)
    moved = 0.0
    for key, mask in result.masks.items():
        name = key if key.startswith("rnn") else f"{key}.weight"
        now, then = plain.get_parameter(name), result.permanent().get_parameter(name)
        assert not now[mask].any()
        moved += float((now - then).abs().sum())
    assert moved > 0
    for key, values in result.undo().state_dict().items():
        assert torch.equal(values, model.state_dict()[key])


def test_masks_of_parameters_are_kept_in_a_plain_network():
    torch.manual_seed(0)
    model = Last(nn.LSTM(3, 4, batch_first=True), 4).double()
    x, y = sequences()
    result = cbs.prune(model, (x, y), sparsity=0.5, method="magnitude", certify=False)
    plain = result.permanent()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    cbs.keep_masks(plain, optimizer, masks=result.masks)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for key, mask in result.masks.items():
        weight = plain.get_parameter(key if key.startswith("rnn") else f"{key}.weight")
        assert not weight[mask].any()
        assert not torch.equal(weight, model.get_parameter(key if key.startswith("rnn") else f"{key}.weight"))


def test_kronecker_factors_of_what_runs_at_every_step_are_refused():
    model, data = Last(nn.RNN(3, 4, batch_first=True), 4).double(), sequences(20)
    method = cbs.Method(cbs.Kronecker(), cbs.Solve(), cbs.Survivors(), name="factors")
    with pytest.raises(ValueError, match=r"for layer 'rnn.l0.gates', which runs several times in a pass"):
        cbs.prune(model, data, sparsity=0.5, method=method, scope="row")
