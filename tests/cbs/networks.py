"""Small networks and data that the tests of package cbs share."""

import itertools

import torch
from torch import nn

from cbs.data import Samples


def mlp(bias=True, dtype=torch.float64, sizes=(6, 5, 4, 3)):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype).eval()


def convnet(bias=True, dtype=torch.float64):
    return (
        nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0), bias=bias),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 2, dilation=2, padding="same", padding_mode="circular", bias=bias),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(4 * 4 * 3, 3, bias=bias),
        )
        .to(dtype)
        .eval()
    )


def seeded(make, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**options)


def samples(count=40, shape=(6,), classes=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator, dtype=dtype)
    return Samples(inputs, torch.randint(classes, (count,), generator=generator))


def image_samples(count=12, seed=0):
    return samples(count, (2, 4, 6), seed=seed)
