"""Small networks and data that the tests of package cbs share."""

import itertools

import torch
from torch import nn

from cbs.data import Samples
from cbs.network.surgery import put_mask


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


class Residual(nn.Module):
    """Two convolutions beside a shortcut, a group norm, and a linear layer on the mean of the places."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm2 = nn.GroupNorm(2, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x)))
        return self.fc(torch.tanh(x + self.norm2(self.conv2(x))).mean(dim=(2, 3)))


def residual(dtype=torch.float64):
    return Residual().to(dtype).eval()


def masked(model, share=0.4, seed=0, names=None):
    """The network with masks of that share of the weights of its layers, drawn by the seed, in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and (names is None or name in names):
            put_mask(module, "weight", torch.rand(module.weight.shape, generator=generator) < share)
    return model


def confident(make=mlp, shape=(6,), count=400, scale=12.0, **options):
    """A network that is right about all of its samples and sure of it, as a trained one, and the samples."""
    model = seeded(make, **options)
    data = samples(count, shape)
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.mul_(scale)
        if last.bias is not None:
            last.bias.sub_(model(data.inputs).mean(dim=0))
        return model, Samples(data.inputs, model(data.inputs).argmax(dim=1))


class Text(nn.Module):
    """A classifier of texts of 12 tokens: their vectors, and a mean of them or an LSTM."""

    def __init__(self, kind="mean"):
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(12, 8, padding_idx=0)
        self.recurrent = nn.LSTM(8, 6, batch_first=True) if kind == "lstm" else None
        self.out = nn.Linear(6 if kind == "lstm" else 8, 3)

    def answer(self, vectors, attention_mask=None):
        if self.recurrent is not None:
            vectors = self.recurrent(vectors)[0]
        if attention_mask is None:
            return self.out(vectors.mean(dim=1))
        real = attention_mask[..., None].to(vectors)
        return self.out((vectors * real).sum(dim=1) / real.sum(dim=1))

    def forward(self, tokens, attention_mask=None):
        return self.answer(self.words(tokens), attention_mask)


def texts(count=60):
    """Texts of five tokens, of which the last never stands anywhere, and labels."""
    draw = torch.Generator().manual_seed(5)
    return torch.randint(1, 11, (count, 5), generator=draw), torch.randint(3, (count,), generator=draw)


def text_batches():
    """The same as batches with a padding mask, over tokens as well; and which places are real."""
    x, y = texts()
    real = torch.ones_like(x, dtype=torch.bool)
    real[::2, 3:] = False
    pairs = zip(x.split(20), real.split(20), y.split(20), strict=True)
    return [({"tokens": a, "attention_mask": m.long()}, b) for a, m, b in pairs], real
