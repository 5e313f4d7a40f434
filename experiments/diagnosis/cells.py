"""Where ResNet20 loses what pruning costs it, and what its masks depend on: see README.md."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

import cbs
from cbs.zoo import Trained, trained

SEED = 0
HELD_OUT = 500
"""Training images, the last in the order of the seed, that no calibration sees."""


def damage(method: str, sparsity: float = 0.7, calibration: int = 1000, tested: int = 500) -> dict[str, Any]:
    """Where a pruning loses it: what every layer costs, and the error in running order."""
    found, test = network(), network().test.few(tested)
    result = cbs.prune(
        found.model, images(calibration), sparsity=sparsity, method=method, layers=found.layers,
        certify=False, solver="greedy", test=test,
    )  # fmt: skip
    lost, error = cbs.damage(result, test), cbs.trace(result, test)
    return {
        "accuracy": lost.pruned.accuracy, "loss": lost.pruned.loss, "damage": lost.to_dict(),
        "trace": error.to_dict(), "texts": {"damage": repr(lost), "trace": repr(error)},
        "figure_damage": png(lost.draw()), "figure_trace": png(error.draw()),
    }  # fmt: skip


def sensitivity(
    method: str, sparsities: list[float], calibration: int = 1000, tested: int = 500
) -> dict[str, Any]:
    """What every layer alone costs."""
    found = network()
    curves = cbs.sensitivity(
        found.model, images(calibration), sparsities=sparsities, method=method, layers=found.layers,
        test=found.test.few(tested),
    )  # fmt: skip
    return {
        "sensitivity": curves.to_dict(), "texts": {"sensitivity": repr(curves)},
        "figure_sensitivity": png(curves.draw()),
    }  # fmt: skip


def stability(method: str, sizes: list[int], sparsity: float = 0.7, resamples: int = 3) -> dict[str, Any]:
    """Which part of the masks depends on the images, the last of `sizes` many; how that falls with them."""
    found = network()
    stable = cbs.stability(
        found.model, images(sizes[-1]), method=method, sparsity=sparsity, layers=found.layers,
        resamples=resamples, sizes=sizes, seed=SEED,
    )  # fmt: skip
    return {
        "stability": stable.to_dict(), "texts": {"stability": repr(stable)},
        "figure_stability": png(stable.draw()),
    }  # fmt: skip


def limit(
    method: str, max_loss_increase: float, calibration: int = 1000, tested: int = 2000
) -> dict[str, Any]:
    """The largest sparsity within a limit on the loss of the test images."""
    found = network()
    result = cbs.prune(
        found.model, images(calibration), method=method, layers=found.layers, certify=False,
        test=found.test.few(tested), max_loss_increase=max_loss_increase,
    )  # fmt: skip
    assert result.search is not None
    return {"sparsity": result.sparsity, "trials": [dict(vars(trial)) for trial in result.search.trials]}


@lru_cache(maxsize=1)
def network() -> Trained:
    """ResNet20."""
    return trained("resnet20")


def images(count: int) -> tuple[Tensor, Tensor]:
    """The first so many training images in the order of the seed."""
    train = network().train
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(train)))[:-HELD_OUT][:count]
    return train.inputs[order], train.targets[order]


def png(figure: Figure) -> NDArray[np.uint8]:
    """A figure's file."""
    file = io.BytesIO()
    figure.savefig(file)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)
