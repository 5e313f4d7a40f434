"""MONK's networks as trained in 1991, their biases among the weights that can be pruned."""

import torch
from torch import Tensor, nn

import cbs
from cbs.data import Samples

HIDDEN = {1: 3, 2: 2, 3: 2}
"""Hidden units for every problem: 58, 39 and 39 weights with the biases."""


class Perceptron(nn.Module):
    """17 inputs, a hidden layer of tanh units and a sigmoid; a bias is the weight of an input that is 1."""

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden = nn.Linear(18, hidden, bias=False).double()
            self.output = nn.Linear(hidden + 1, 1, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 1]` in 0..1 of inputs `[N, 17]`."""
        ones = torch.ones_like(x[:, :1])
        hidden = torch.tanh(self.hidden(torch.cat([x, ones], dim=1)))
        return torch.sigmoid(self.output(torch.cat([hidden, ones], dim=1)))


def real(samples: Samples) -> Samples:
    """Targets `[N, 1]` of 0.0 and 1.0 for the squared error, in double precision."""
    return Samples(samples.inputs.double(), samples.targets.double()[:, None])


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Percent of the samples that are on the right side of one half."""
    with torch.no_grad():
        right = (model(samples.inputs) > 0.5) == (samples.targets > 0.5)
    return 100.0 * float(right.double().mean())


def trained(problem: int, seed: int, samples: Samples, *, weight_decay: float, epochs: int) -> Perceptron:
    """A network after full-batch training by the squared error with weight decay."""
    model = Perceptron(HIDDEN[problem], seed)
    cbs.train(
        model, samples, epochs=epochs, batch=len(samples), learning_rate=0.05, weight_decay=weight_decay,
        loss="mse_loss", seed=seed,
    )  # fmt: skip
    return model
