"""A training loop, and the fine-tuning of pruned networks by the same: masks stay exactly as they are."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples, gather
from cbs.network.evaluate import forward
from cbs.network.losses import Loss, batch_loss, named_loss
from cbs.schedule.bar import epoch_bar
from cbs.schedule.early_stopping import EarlyStopping, check_patience, hold_back
from cbs.schedule.masks import KeptMasks, refresh
from solvers.control import is_number

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer of parameters, such as `functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)`."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the data that is done.

    Attributes:
        index: of the epoch, from 0.
        count: how many there will be.
        loss: mean over samples of the losses at which the steps were taken.
        validation: mean loss after it on what is held back, or None.
    """

    index: int
    count: int
    loss: float
    validation: float | None = None


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    model: nn.Module,
    data: Any,
    *,
    epochs: int = 60,
    batch: int = 64,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    loss: str | Loss = "cross_entropy",
    optimizer: Optimizer | None = None,
    seed: int = 0,
    callback: Callable[[Epoch], Any] | None = None,
    validation: Any = None,
    patience: int | None = None,
    progress: bool = False,
) -> None:
    """Train or fine-tune a network in place, by batches that are shuffled by the seed.

    What a mask of `torch.nn.utils.prune` has pruned stays exactly zero: in the weights (`weight_orig` too),
    in the gradients, hence in an optimizer's momentum, and in weight decay. Batch norms train as usual.

    Afterwards the network is in evaluation mode. Whatever ends the training early (Ctrl-C, an error, a loss
    that is not finite), the network has the parameters and buffers of the last epoch that was finished, or
    those it came with if there is none; Ctrl-C then goes on as `KeyboardInterrupt`. With `validation` that
    is, in any case, the best epoch by the loss on it, what the network came with being one of them.

    It is for small networks, whose data is in memory. Others want a loop of their own, and `keep_masks`.

    Args:
        model: the network.
        data: in any form that `cbs.prune` takes.
        epochs: passes over the data.
        batch: samples a step, or those of the batches that the data comes in if they are fewer. A last batch
            of a single sample, of which a batch norm can't take statistics, gets another from the one before.
        learning_rate: of Adam, at first; it falls to 0 along half a cosine, epoch by epoch.
        weight_decay: of Adam, `weight_decay * w` added to the gradient.
        loss: as in `cbs.prune`, of a batch; where it gives a value for every sample their mean.
        optimizer: makes another one of the parameters; its learning rate is then its own, and constant.
        seed: of the order of the samples, and of what the network draws (dropout).
        callback: called with every `Epoch` that is done; a true answer ends the training.
        validation: data to judge the network by after every epoch, in any form that `cbs.prune` takes, or a
            fraction of the data in (0, 1), which is held back; none if absent.
        patience: ends the training when so many epochs in a row were no better than the best on `validation`;
            None for never.
        progress: show a bar on standard error, if that is a terminal.

    Raises:
        ValueError: in one line, for bad input, for what the model or the loss refuses, and for a loss that is
            not finite.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    _check(epochs, batch, learning_rate, weight_decay, seed)
    if callback is not None and not callable(callback):
        raise ValueError(f"callback must be a function of an Epoch or None, got {callback!r}")
    if not isinstance(progress, bool):
        raise ValueError(f"progress must be True or False, got {progress!r}")
    check_patience(patience, validation)
    measure = named_loss(loss)
    samples, held = hold_back(gather(data, seed=seed, model=model), validation, seed)
    for part in (samples, held):
        if part is not None and not part.labelled:
            raise ValueError(
                "data has no labels to train on; give batches (inputs, targets), or "
                "cbs.unlabelled(model, data)"
            )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model has no parameters to train: none requires a gradient")
    samples = samples.to(parameters[0].device)
    judge = None if held is None else EarlyStopping(held.to(parameters[0].device), measure, patience)
    decaying = optimizer is None
    if optimizer is None:
        steps: torch.optim.Optimizer = torch.optim.Adam(
            parameters, lr=learning_rate, weight_decay=weight_decay
        )
    else:
        steps = _made(optimizer, parameters)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(steps, max(epochs, 1)) if decaying else None
    order = torch.Generator().manual_seed(seed)
    with (
        _keeping_finished(model) as finished,
        KeptMasks(model, steps),
        epoch_bar(epochs, progress) as told,
        _own_randomness(parameters[0].device, seed),
    ):
        if judge is not None:
            judge.better(judge.measure(model))
        model.train()
        for epoch in range(epochs):
            total = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
            for index in _batches(samples, min(batch, samples.batch), order):
                inputs, targets = next(samples.take(index).batches(len(index)))
                closure = _closure(model, steps, measure, inputs, targets)
                found: Any = steps.step(closure)
                total += found.detach() * len(index)
            mean = float(total) / len(samples)
            if not math.isfinite(mean):
                rate = f" (now {learning_rate:g})" if decaying else ""
                raise ValueError(
                    f"training diverges: the loss is {mean} in epoch {epoch + 1} of {epochs}; try a smaller "
                    f"learning_rate{rate}"
                )
            if falling is not None:
                falling.step()
            judged = None if judge is None else judge.measure(model)
            if judge is None or judged is None or judge.better(judged):
                finished()
            done = Epoch(epoch, epochs, mean, judged)
            told(done)
            if (callback is not None and callback(done)) or (judge is not None and judge.over):
                break
        if judge is not None:
            finished.restore()


def _closure(
    model: nn.Module,
    steps: torch.optim.Optimizer,
    loss: Loss,
    inputs: Any,
    targets: Any,
) -> Callable[[], Any]:
    """Computes the loss of a batch and its gradients, which a mask makes zero where it has pruned."""

    def closure() -> Tensor:
        steps.zero_grad()
        found = batch_loss(loss, forward(model, inputs), targets).mean()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    return closure


def _batches(samples: Samples, size: int, order: torch.Generator) -> list[Tensor]:
    """Indices of every batch of an epoch, each of samples of one shape."""
    found, start = list[Tensor](), 0
    for inputs, _ in samples.groups():
        found += [part + start for part in _shuffled(len(inputs), size, order)]
        start += len(inputs)
    if not samples.ragged:
        return found
    return [found[i] for i in torch.randperm(len(found), generator=order).tolist()]


def _shuffled(count: int, size: int, order: torch.Generator) -> list[Tensor]:
    parts = [*torch.split(torch.randperm(count, generator=order), size)]
    if size > 2 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [parts[-2][:-1], torch.cat([parts[-2][-1:], parts[-1]])]
    return parts


class _Finished:
    """What a network was after the epoch that counts; calling it takes what it is now for that."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._kept = model, copy.deepcopy(model.state_dict())

    def __call__(self) -> None:
        self._kept = copy.deepcopy(self._model.state_dict())

    def restore(self) -> None:
        """Make the network that again."""
        self._model.load_state_dict(self._kept)


@contextmanager
def _keeping_finished(model: nn.Module) -> Iterator[_Finished]:
    """Gives what is called after every epoch; an exception puts the state back that was kept last."""
    finished = _Finished(model)
    try:
        yield finished
    except BaseException:
        finished.restore()
        raise
    finally:
        model.zero_grad()
        model.eval()
        refresh(model)


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """What is drawn inside depends on the seed, and what is drawn outside is not touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _made(optimizer: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    steps = optimizer(parameters) if callable(optimizer) else optimizer
    if not isinstance(steps, torch.optim.Optimizer):
        raise ValueError(
            "optimizer must be a function that makes a torch.optim.Optimizer of the parameters, such as "
            f"functools.partial(torch.optim.SGD, lr=0.1), got {optimizer!r}"
        )
    if not callable(optimizer):
        raise ValueError(
            f"optimizer must make an optimizer of the parameters, got one that is made already: give "
            f"functools.partial(torch.optim.{type(steps).__name__}, ...)"
        )
    own = {id(parameter) for parameter in parameters}
    if not any(id(parameter) in own for group in steps.param_groups for parameter in group["params"]):
        raise ValueError(
            "optimizer must step the parameters that it is given, of the model; it has none of them"
        )
    return steps


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of `train` that are out of their range, before there is a model or data.

    Args:
        options: some of `cbs.checks.TRAINING`.

    Raises:
        ValueError: in one line.
    """
    given = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}
    given |= options
    _check(*(given[name] for name in ("epochs", "batch", "learning_rate", "weight_decay", "seed")))
    check_patience(given["patience"], given["validation"])
    if (part := given["validation"]) is not None and not (is_number(part) and 0 < part < 1):
        raise ValueError(f"validation must be a fraction of the calibration data in (0, 1), got {part!r}")


def _check(epochs: int, batch: int, learning_rate: float, weight_decay: float, seed: int) -> None:
    for name, value, least in (("epochs", epochs, 0), ("batch", batch, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    if not is_number(learning_rate) or not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive number, got {learning_rate!r}")
    if not is_number(weight_decay) or not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a finite number >= 0, got {weight_decay!r}")
