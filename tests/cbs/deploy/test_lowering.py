import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbs.deploy.lowering import NotLowered, lower
from cbs.deploy.sparse import Compiled, compiled
from tests.cbs.networks import seeded


def thinned(model, share=0.7, seed=0):
    """In evaluation mode, in single precision, with so many zeros and statistics that are not the default."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
    for p in model.parameters():
        p.requires_grad_(False)
        if p.ndim > 1:
            p.mul_(torch.rand(p.shape, generator=generator) >= share)
    return model.float().eval()


class Written(nn.Module):
    """A network by functions, as people write them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.drop = nn.Conv2d(6, 6, 3, padding=1), nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 4 * 3, 5)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(y + self.conv2(y))
        y = F.max_pool2d(y, 2)
        return torch.sigmoid(self.fc(self.drop(y).view(y.size(0), -1)))


class Shaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return torch.tanh(self.fc(x.reshape(x.shape[0], -1)))


NETWORKS = {
    "linear": (lambda: nn.Linear(20, 13), (20,)),
    "chain": (
        lambda: nn.Sequential(nn.Linear(30, 21), nn.ReLU(), nn.Dropout(), nn.Linear(21, 9)), (30,),
    ),
    "activations": (
        lambda: nn.Sequential(nn.Linear(8, 9), nn.Tanh(), nn.Linear(9, 9), nn.GELU(), nn.SiLU(), nn.ReLU6()),
        (8,),
    ),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 9), nn.BatchNorm1d(9)), (8,)),
    "strides": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 9, 10)),
    "steps": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 3), padding=(2, 0), dilation=(2, 1), groups=2), (4, 9, 11),
    ),
    "depthwise": (lambda: nn.Conv2d(4, 4, 5, padding="same", groups=4, bias=False), (4, 7, 8)),
    "even kernel": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 7, 8)),
    "tall": (lambda: nn.Conv2d(1, 2, 3, padding=1), (1, 90, 70)),
    "one place": (lambda: nn.Conv2d(7, 3, 1, stride=2), (7, 5, 6)),
    "sequence": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1, stride=2), nn.BatchNorm1d(6), nn.ReLU()), (4, 21),
    ),
    "written": (Written, (3, 8, 6)),
    "shaped": (Shaped, (3, 4)),
    "pools": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, padding=1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, 3),
        ), (2, 12, 13),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_compute_what_torch_does(name):
    make, shape = NETWORKS[name]
    model = thinned(seeded(make))
    program = Compiled(lower(model, shape))
    for count in (1, 3, 4, 16, 17, 33, 70):
        x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_place_of_a_value_is_used_again():
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    program = lower(thinned(nn.Sequential(*layers)), (4, 32, 32))
    assert len(program.ops) == 12
    assert program.room < 5 * 4 * 40 * 40


def test_multiplications_are_those_by_weights_that_are_not_zero():
    model = thinned(seeded(Written))
    conv = int((model.conv1.weight != 0).sum()) + int((model.conv2.weight != 0).sum())
    wanted = conv * 8 * 6 + int((model.fc.weight != 0).sum())
    assert lower(model, (3, 8, 6)).multiplications == wanted


REFUSED = {
    "softmax": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), (3,), "Softmax"),
    "double": (lambda: nn.Linear(3, 3).double(), (3,), "float32"),
    "tanh gelu": (lambda: nn.Sequential(nn.Linear(3, 3), nn.GELU("tanh")), (3,), "approximation"),
    "lstm": (lambda: nn.LSTM(3, 3), (4, 3), "LSTM on samples"),
    "circular": (lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 5, 5), "circular"),
    "flatten all": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(0)), (1, 5, 5), "flattening"),
    "ceil": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2, ceil_mode=True)),
        (1, 5, 5),
        "windows",
    ),
    "shape": (lambda: nn.Linear(4, 3), (3,), "samples of shape"),
    "small": (lambda: nn.Conv2d(1, 1, 7), (1, 5, 5), "smaller than the kernel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(name):
    make, shape, why = REFUSED[name]
    with pytest.raises(NotLowered, match=why) as told:
        lower(make().eval(), shape)
    assert "\n" not in str(told.value)


class Changed(nn.Module):
    """A ReLU in place changes what the sum reads."""

    def __init__(self):
        super().__init__()
        self.conv, self.change = nn.Conv2d(2, 2, 3, padding=1), torch.relu_

    def forward(self, x):
        y = self.conv(x)
        return self.change(y) + y


class Random(nn.Module):
    """A dropout that is never off."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 50)

    def forward(self, x):
        return F.dropout(self.fc(x), 0.5)


def test_other_outputs_are_found_out():
    with torch.inference_mode(), pytest.raises(NotLowered, match="outputs differ"):
        compiled(seeded(Random).eval(), torch.randn(2, 4))


@pytest.mark.parametrize(
    "change",
    [
        torch.relu_,
        lambda y: F.relu(y, inplace=True),
        nn.ReLU(inplace=True),
        lambda y: y.relu_(),
        lambda y: y.add_(y),
        lambda y: torch.relu_(y.view(y.size(0), -1)).sum() * 0 + y,
    ],
)
def test_what_is_changed_in_place_and_read_later_is_refused(change):
    """Whatever the values: where all are positive, no comparison of outputs would tell."""
    model = seeded(Changed).eval()
    model.change = change
    with pytest.raises(NotLowered, match="in place what is read later"):
        lower(model, (2, 5, 5))


def test_what_is_changed_in_place_and_read_before_is_understood():
    class Kept(Changed):
        def forward(self, x):
            y = self.conv(x)
            z = torch.tanh(y)
            return torch.relu_(y) + z

    model = seeded(Kept).eval()
    x = torch.randn(2, 2, 5, 5)
    with torch.inference_mode():
        torch.testing.assert_close(Compiled(lower(model, (2, 5, 5)))(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_largest_value_of_what_is_no_number_is_none():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2))
    x = torch.arange(32.0).reshape(2, 1, 4, 4)
    x[0, 0, 0, 1] = x[1, 0, 2, 2] = torch.nan
    with torch.inference_mode():
        wanted, found = model(x), Compiled(lower(model.eval(), (1, 4, 4)))(x)
    assert int(wanted.isnan().sum()) == 2
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_a_batch_norm_has_one_dimension_before_its_channels():
    model = thinned(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)))
    program = Compiled(lower(model, (4,)))
    with pytest.raises(ValueError, match="inputs must be samples of shape"):
        program(torch.randn(2, 5, 4))  # whose second dimension torch takes for the channels
