import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.everything import Everything, WholeLoss

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
BOXES, Y = X[:, :4] * 2, torch.arange(40) % 3


class Detector(nn.Module):
    """A mapping in, a mapping out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.boxes, self.scores = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, batch):
        h = torch.tanh(self.a(batch["image"]))
        return {"boxes": self.boxes(h), "step": 3, "scores": self.scores(h), "kept": h.argmax(dim=1)}


class Flat(Detector):
    """The same with one tensor in and out."""

    def forward(self, x):
        found = super().forward({"image": x})
        return torch.cat([found["boxes"], found["scores"]], dim=1)


def loss(outputs, targets):
    far = F.mse_loss(outputs["boxes"], targets["boxes"], reduction="none").sum(dim=1)
    return far + F.cross_entropy(outputs["scores"], targets["label"], reduction="none")


def flat_loss(outputs, targets):
    given = {"boxes": outputs[:, :4], "scores": outputs[:, 4:]}
    return loss(given, {"boxes": targets[:, :4], "label": targets[:, 4].long()})


DATA = [({"image": X}, {"boxes": BOXES, "label": Y})]
FLAT = (X, torch.cat([BOXES, Y[:, None]], dim=1))


@pytest.mark.parametrize("method", ["obd", "woodfisher", "obs", "sensitivity"])
def test_a_loss_of_all_outputs_is_that_of_one_tensor_of_them(method):
    found = cbs.prune(Detector(), DATA, sparsity=0.5, method=method, loss=loss, time_limit=5)
    expected = cbs.prune(Flat(), FLAT, sparsity=0.5, method=method, loss=flat_loss, time_limit=5)
    assert found.before.loss == pytest.approx(expected.before.loss)
    assert found.after.loss == pytest.approx(expected.after.loss, rel=1e-4)
    for name, mask in expected.masks.items():
        assert torch.equal(found.masks[name], mask)
    again = pickle.loads(pickle.dumps(found.permanent()))
    assert again({"image": X})["scores"].shape == (40, 3)


def test_fine_tuning_sees_all_outputs():
    result = cbs.prune(Detector(), DATA, sparsity=0.5, method="magnitude", loss=loss, finetune=5)
    assert result.after.loss < result.history[-1].pruned.loss


def test_one_named_output_is_what_the_loss_sees():
    result = cbs.prune(
        Detector(), [({"image": X}, Y)], sparsity=0.5, method="obd", output="scores", loss="cross_entropy"
    )
    expected = F.cross_entropy(Detector()({"image": X})["scores"], Y)
    assert result.before.loss == pytest.approx(expected.item())
    assert result.before.accuracy is not None


def test_a_loss_that_takes_one_tensor_says_what_it_was_given():
    message = "a function is given all outputs .* dict, unless output= names one"
    with pytest.raises(ValueError, match=message) as error:
        cbs.prune(
            Detector(), [({"image": X}, Y)], sparsity=0.5, method="magnitude",
            loss=lambda outputs, targets: F.cross_entropy(outputs, targets),
        )  # fmt: skip
    assert "\n" not in str(error.value)


@dataclass
class Answer:
    score: torch.Tensor
    state: object = None


def test_outputs_are_laid_out_and_back():
    everything = Everything()
    for outputs in ((X, (BOXES, None)), Answer(X[:, None], [BOXES]), {"a": BOXES, "b": {"c": X}}):
        flat = everything(outputs)
        assert flat.shape == (40, 10)
        everything = copy.deepcopy(everything)
        back = everything.back(flat)
        assert type(back) is type(outputs)
        everything.layouts.clear()
    single = Everything()
    assert single((None, X)) is X
    assert single.back(X)[1] is X


def test_layouts_that_can_not_be_told_apart_are_refused():
    everything = Everything()
    everything((X[:, :2], X[:, :4]))
    with pytest.raises(ValueError, match="but not in their size; name one with output="):
        everything((X[:, :3], X[:, :3]))


def test_classes_are_counted_in_the_output_that_is_looked_at():
    everything = Everything()
    flat = everything((X[:, :3], BOXES))
    assert torch.equal(WholeLoss(loss, everything).shown(flat), X[:, :3])
