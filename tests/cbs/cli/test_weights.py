import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import cbs
from cbs.cli.output import ExtraWeights
from cbs.cli.weights import fill, read_state


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


STATE = net(1).state_dict()
FORMS = {
    "plain": STATE,
    "state_dict": {"epoch": 3, "state_dict": STATE, "optimizer": {"lr": 0.1}},
    "model": {"model": STATE, "ema": net(2).state_dict()},
    "twice": {"model": {"state_dict": STATE, "args": 3}},
    "ema": {"ema": STATE, "step": 3},
    "DataParallel": {f"module.{name}": values for name, values in STATE.items()},
    "compiled": {f"_orig_mod.{name}": values for name, values in STATE.items()},
    "both": {"net": {f"module._orig_mod.{name}": values for name, values in STATE.items()}},
    "Lightning": {"state_dict": {f"model.{name}": values for name, values in STATE.items()}},
    "a part compiled": {name.replace("2.", "2._orig_mod."): values for name, values in STATE.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_state_dict_is_found_wherever_it_is(form, tmp_path):
    torch.save(FORMS[form], tmp_path / "w.ckpt")
    model = fill(net(0), tmp_path / "w.ckpt")
    assert all(torch.equal(values, STATE[name]) for name, values in model.state_dict().items())


def test_a_model_in_a_wrapper_takes_plain_weights(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    model = fill(nn.Sequential(net(0)), tmp_path / "w.safetensors")
    assert all(torch.equal(values, STATE[name]) for name, values in model[0].state_dict().items())


def test_a_tied_weight_may_be_there_once(tmp_path):
    save_file({"first.weight": torch.eye(3)}, tmp_path / "w.safetensors")
    model = fill(Tied(), tmp_path / "w.safetensors")
    assert torch.equal(model.last.weight, torch.eye(3))
    assert model.last.weight is model.first.weight


def test_what_a_file_has_beyond_the_model_is_listed(tmp_path):
    more = {f"head.{i}": torch.ones(1) for i in range(7)}
    torch.save({"state_dict": STATE | more}, tmp_path / "w.pt")
    with pytest.warns(ExtraWeights, match=r"which is left out: 'head.0', .* and 2 more"):
        model = fill(net(0), tmp_path / "w.pt")
    assert torch.equal(model[0].weight, STATE["0.weight"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_a_file_lacks_is_refused_with_what_is_near(prefix, tmp_path):
    state = {
        f"{prefix}{name}".replace("running_mean", "runing_mean"): values for name, values in STATE.items()
    }
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"lack '1.running_mean', .*[?] The nearest there are '1.runing_mean'"
    ):
        fill(net(0), tmp_path / "w.pt")


def test_a_file_of_an_export_is_its_network_and_not_its_pieces(tmp_path):
    model = net(1)
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    cbs.export(model, tmp_path / "small.safetensors")
    assert not {*load_file(tmp_path / "small.safetensors")} & {*model.state_dict()}
    filled = fill(net(0), tmp_path / "small.safetensors").state_dict()
    assert all(torch.equal(filled[name], values) for name, values in model.state_dict().items())
    assert cbs.audit(read_state(tmp_path / "small.safetensors")).network_sparsity > 0.2
    cbs.export(Tied(), tmp_path / "tied.safetensors", inputs=torch.randn(2, 3))
    assert {*read_state(tmp_path / "tied.safetensors")} == {"first.weight", "last.weight"}


def test_a_file_in_few_bits_is_told(tmp_path):
    cbs.quantize(net(1), bits=3).save(tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="load_quantized") as told:
        read_state(tmp_path / "small.safetensors")
    assert "\n" not in str(told.value)
