import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.network.eligible import survey, unwrap
from tests.cbs.networks import mlp, samples, seeded

QUICK = {"sparsity": 0.5, "method": "magnitude", "certify": False}


class Same(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Called(nn.Linear):
    def __call__(self, x):
        return super().__call__(x).relu()


class Named(nn.Linear):
    """Harmless: computes what a Linear does."""

    def extra_repr(self):
        return "named"


def patched():
    layer = nn.Linear(6, 6)
    layer.forward = lambda x: F.linear(x, layer.weight).relu()
    return layer


def hooked_before():
    layer = nn.Linear(6, 6)
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return layer


STRANGE = {
    "subclass": (lambda: Scaled(6, 6), "Scaled does not compute what torch.nn.Linear does"),
    "conv": (lambda: Same(2, 2, 3), "Same does not compute what torch.nn.Conv2d does"),
    "standardised": (lambda: Standardised(2, 2, 3), "Standardised does not compute"),
    "call": (lambda: Called(6, 6), "Called does not compute"),
    "patched": (patched, "its forward was replaced"),
    "pre-hook": (hooked_before, "a forward pre-hook may change what it computes"),
    "bilinear": (lambda: nn.Bilinear(4, 4, 2), "Bilinear is neither Linear nor a convolution"),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 1), "ConvTranspose2d is neither"),
    "norm": (lambda: nn.Embedding(9, 4, max_norm=1.0), "its weight changes when it runs, by max_norm"),
    "sparse": (lambda: nn.Embedding(9, 4, sparse=True), "it has no plain gradient, by sparse"),
    "bag": (lambda: nn.EmbeddingBag(9, 4), "EmbeddingBag adds up its rows"),
    "recurrent": (lambda: nn.GRU(4, 4), "GRU is neither"),
    "complex": (lambda: nn.Linear(6, 6, dtype=torch.complex64), "its weight is a Tensor of torch.complex64"),
}


@pytest.mark.parametrize(("make", "why"), STRANGE.values(), ids=STRANGE)
def test_what_is_not_understood_is_left_out_with_a_reason(make, why):
    model = nn.Sequential(make(), nn.ReLU(), nn.Linear(6, 3))
    found = survey(model)
    assert found.prunable == ["2"]
    assert why in found.left_out["0"]
    assert found.choose(None) == ["2"]
    with pytest.raises(ValueError, match="layers: '0' can't be pruned: ") as error:
        found.choose(["0"])
    assert why in str(error.value)
    with pytest.raises(ValueError, match="model Sequential has no prunable layer: '0': "):
        survey(model[:1]).choose(None)


def test_a_table_is_pruned_where_it_is_named_and_only_there():
    model = nn.Sequential(nn.Linear(6, 6), nn.Embedding(9, 4), nn.Linear(4, 3))
    found = survey(model)
    assert found.choose(None) == found.choose(["*"]) == ["0", "2"]
    assert found.left_out["1"].startswith("is an Embedding, pruned where `layers` has its name")
    assert found.choose(["2", "1"]) == ["1", "2"]
    assert found.choose(["1", "2"], ["1"]) == ["2"]
    assert found.choose(["1", "2"], ["2"]) == ["1"]
    assert found.stays(["1", "2"], None) == {"0": "it is not among `layers`"}
    assert list(found.stays(["0", "2"], None)) == ["1"]
    gone = found.without({"1": "its weight changes when it runs"})
    with pytest.raises(ValueError, match="layers: '1' can't be pruned: its weight changes when it runs"):
        gone.choose(["1"])


def test_harmless_subclasses_and_modules_without_matrices_are_taken():
    found = survey(nn.Sequential(Named(6, 6), nn.BatchNorm1d(6), nn.PReLU(6), nn.Linear(6, 3)))
    assert found.prunable == ["0", "3"]
    assert found.left_out == {}


def test_matrices_beside_the_children_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.table, self.shift = (
                nn.Linear(4, 4),
                nn.Parameter(torch.ones(4, 4)),
                nn.Parameter(torch.ones(1, 4)),
            )

    assert survey(nn.Sequential(Net())).left_out == {"0.table": "Net is neither Linear nor a convolution"}


COMPUTED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "own": lambda layer: parametrize.register_parametrization(layer, "weight", nn.Tanh()) or layer,
    "bias": lambda layer: parametrize.register_parametrization(layer, "bias", nn.Tanh()) or layer,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("kind", [lambda: nn.Linear(6, 6), lambda: nn.Conv2d(2, 2, 3)])
def test_computed_weights_are_refused_before_any_work(wrap, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.Sequential(nn.Sequential(wrap(kind())), nn.ReLU(), nn.Linear(6, 3))
    ran = []
    model.register_forward_pre_hook(lambda module, args: ran.append(1))
    with pytest.raises(ValueError, match=r"layer '0.0': its (weight|bias) is computed") as error:
        cbs.prune(model, samples(), **QUICK)
    assert "\n" not in str(error.value)
    assert not ran
    assert survey(model).choose(["2"]) == ["2"]


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.emb, self.mid, self.out = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False)
        if how == "parameter":
            self.out.weight = self.emb.weight
        elif how == "view":
            self.out.weight = nn.Parameter(self.emb.weight.data[:])
        elif how == "part":
            self.out.weight = nn.Parameter(self.emb.weight.data[:4])
        elif how == "buffer":
            self.register_buffer("kept", self.out.weight.data)
        elif how == "attribute":
            self.kept = {"list": [self.out.weight.data]}
        elif how == "twice":
            self.again = self.out.weight

    def forward(self, x):
        return self.out(torch.tanh(self.mid(self.emb(x).mean(1))))


@pytest.mark.parametrize("how", ["parameter", "view", "part", "buffer", "attribute", "twice"])
def test_shared_weights_are_left_out_with_a_word(how):
    model = Tied(how)
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 7, (30, 5), generator=g), torch.randint(0, 4, (30,), generator=g)
    with pytest.warns(UserWarning, match="not pruned: .*'out' .it shares its weight or bias with") as told:
        result = cbs.prune(model, data, **QUICK)
    assert "\n" not in str(told[0].message)
    assert set(result.left_out) >= {"emb", "out"}
    assert result.to_dict()["left_out"] == result.left_out
    assert list(result.masks) == ["mid"]
    plain = result.permanent()
    assert torch.equal(plain.out.weight, model.out.weight)
    assert torch.equal(plain.emb.weight, model.emb.weight)
    with pytest.raises(ValueError, match="layers: 'out' can't be pruned: it shares its weight"):
        cbs.prune(model, data, layers=["out"], **QUICK)
    asked = cbs.prune(model, data, layers=["mid"], **QUICK)  # without a warning
    assert asked.left_out == result.left_out


def test_neighbours_in_one_memory_do_not_share():
    flat = torch.randn(2 * 36)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    for i in range(2):
        model[i].weight = nn.Parameter(flat[36 * i : 36 * (i + 1)].view(6, 6))
    assert survey(model).prunable == ["0", "1"]
    assert survey(model).refused == {}


def test_a_module_by_two_names_is_one_layer():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert survey(model).choose(None) == ["0"]


def test_masked_layers_are_understood():
    model = seeded(mlp)
    for module in (model[0], model[2]):
        torch_prune.random_unstructured(module, "weight", 0.5)
        torch_prune.random_unstructured(module, "bias", 0.5)
    model(samples().inputs).sum().backward()
    assert survey(model).choose(None) == ["0", "2", "4"]


def compiled(model):
    return torch.compile(model, backend="eager")


def test_wrappers_are_taken_off():
    model = seeded(mlp, dtype=torch.float32)
    for wrapped in (nn.DataParallel(model), compiled(model), compiled(nn.DataParallel(model))):
        assert unwrap(wrapped) is model
        result = cbs.prune(wrapped, samples(dtype=torch.float32), **QUICK)
        assert list(result.masks) == ["0", "2", "4"]
        assert list(result.state) == list(model.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_looked_into_is_refused():
    scripted = torch.jit.trace(seeded(mlp, dtype=torch.float32), samples(dtype=torch.float32).inputs)
    for model, message in (
        (scripted, "model is TorchScript"),
        (nn.Sequential(scripted), "module '0' is TorchScript"),
        (nn.Sequential(compiled(nn.Linear(6, 3))), "module '0' is compiled; give the model as it was"),
        (nn.Sequential(nn.LazyLinear(3)), "module '0' .LazyLinear. has no weights yet; run the model once"),
        (nn.Linear(6, 3, device="meta"), "model is on the device 'meta', without values"),
        (nn.Sequential(nn.Linear(6, 3), nn.LazyBatchNorm1d()), "module '1' .LazyBatchNorm1d. has no weights"),
    ):
        with pytest.raises(ValueError, match=message):
            cbs.prune(model, samples(dtype=torch.float32), **QUICK)


@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="PyTorch was built without torch.distributed"
)
def test_sharded_models_are_refused_in_one_line():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(seeded(mlp), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"module '0' is sharded \(FSDP\); gather its weights"):
            unwrap(model)
    finally:
        torch.distributed.destroy_process_group()
