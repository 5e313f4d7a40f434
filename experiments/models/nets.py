"""Networks of the kinds that people bring, small and with random weights, each with data of its own.

Written in plain PyTorch, or built by `transformers` from a configuration. Nothing of them is trained: what is
tried on them is whether a pruning goes through, and says what it did.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Made = tuple[nn.Module, Any]
"""A network and its calibration data."""
SAMPLES = 24


def images(channels: int = 3, side: int = 16, classes: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(SAMPLES, channels, side, side), torch.arange(SAMPLES) % classes


def words(vocabulary: int = 50, length: int = 12) -> Tensor:
    return torch.randint(1, vocabulary, (SAMPLES, length))


class Inverted(nn.Module):
    """MobileNetV2's block: expansion, a depthwise convolution, projection."""

    def __init__(self, channels: int, out: int, expand: int, stride: int) -> None:
        super().__init__()
        wide = channels * expand
        self.same = stride == 1 and channels == out
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> Made:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
        Inverted(8, 8, 2, 1), Inverted(8, 12, 2, 2), Inverted(12, 12, 2, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 5),
    )  # fmt: skip
    return model, images()


class Grouped(nn.Module):
    """ResNeXt's block, whose 3x3 convolution is in groups."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 1, bias=False)
        self.b = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.c = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.a(x)))
        y = F.relu(self.norms[1](self.b(y)))
        return F.relu(x + self.norms[2](self.c(y)))


def resnext() -> Made:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Grouped(16, 4), Grouped(16, 4), *head), images()


class ViT(nn.Module):
    """A vision transformer on `nn.TransformerEncoder`."""

    def __init__(self, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
        return self.head(self.encoder(x)[:, 0])


class UNet(nn.Module):
    """Down, up by `ConvTranspose2d`, and across."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.out = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down(x))
        b = F.relu(self.up(F.relu(self.deep(a))))
        return self.out(torch.cat([a, b], dim=1))


def unet() -> Made:
    x, _ = images(side=8)
    return UNet(), (x, torch.randint(0, 3, (SAMPLES, 8, 8)))


class Tagger(nn.Module):
    """A label a word: Embedding, bidirectional GRU, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12, padding_idx=0)
        self.gru = nn.GRU(12, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(20, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gru(self.embedding(tokens))[0]).transpose(1, 2)


class Cells(nn.Module):
    """A loop over an LSTM cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(6, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.out(state[0])


class WaveNet(nn.Module):
    """Gated, dilated convolutions along time, with skips."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, channels, 1)
        steps = (1, 2, 4)
        self.gates = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=d, padding=d) for d in steps)
        self.back = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in steps)
        self.out = nn.Conv1d(channels, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        for gate, back in zip(self.gates, self.back, strict=True):
            a, b = gate(x)[..., : x.shape[-1]].chunk(2, dim=1)
            x = x + back(torch.tanh(a) * torch.sigmoid(b))
        return self.out(x).mean(dim=2)


def cnn3d() -> Made:
    head = nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5)
    model = nn.Sequential(nn.Conv3d(1, 6, 3), nn.ReLU(), nn.Conv3d(6, 8, 3), nn.ReLU(), *head)
    return model, (torch.randn(SAMPLES, 1, 6, 8, 8), torch.arange(SAMPLES) % 5)


class TwoInputs(nn.Module):
    """Two inputs by name, two outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(16, 5)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        hidden = torch.cat([F.relu(self.left(left)), F.relu(self.right(right))], dim=1)
        return {"hidden": hidden, "logits": self.out(hidden)}


def two_inputs() -> Made:
    inputs = {"left": torch.randn(SAMPLES, 6), "right": torch.randn(SAMPLES, 4)}
    return TwoInputs(), (inputs, torch.arange(SAMPLES) % 5)


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(50, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embedding(tokens)))).transpose(1, 2)


class Attending(nn.Module):
    """`nn.MultiheadAttention`, called with a mask and keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12, padding_idx=0)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.out = nn.Linear(12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        y, _ = self.attention(x, x, x, key_padding_mask=tokens.eq(0), need_weights=False)
        return self.out((x + y).mean(dim=1))


def padded_words() -> Tensor:
    tokens = words()
    for i, row in enumerate(tokens):
        row[4 + i % 8 :] = 0
    return tokens


def labelled(model: nn.Module, inputs: Any, shape: tuple[int, ...] = (SAMPLES,), classes: int = 5) -> Made:
    return model, (inputs, torch.randint(0, classes, shape))


def _transformers(name: str, configuration: str, **settings: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, configuration)(**settings)
    return getattr(transformers, name)(config)


def gpt2() -> Made:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    return _transformers("GPT2LMHeadModel", "GPT2Config", **sizes), [{"input_ids": words()}]


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert() -> Made:
    model = _transformers(
        "BertForSequenceClassification", "BertConfig", vocab_size=50, max_position_embeddings=16,
        num_labels=3, **SMALL,
    )  # fmt: skip
    tokens = padded_words()
    return labelled(model, {"input_ids": tokens, "attention_mask": tokens.ne(0).long()}, classes=3)


def distilbert() -> Made:
    model = _transformers(
        "DistilBertModel", "DistilBertConfig", vocab_size=50, max_position_embeddings=16, dim=16, n_layers=2,
        n_heads=2, hidden_dim=32,
    )  # fmt: skip
    tokens = padded_words()
    return model, [{"input_ids": tokens, "attention_mask": tokens.ne(0).long()}]


def llama() -> Made:
    model = _transformers(
        "LlamaForCausalLM", "LlamaConfig", vocab_size=50, num_key_value_heads=1, max_position_embeddings=16,
        **SMALL,
    )  # fmt: skip
    return model, [{"input_ids": words()}]


def t5() -> Made:
    model = _transformers(
        "T5ForConditionalGeneration", "T5Config", vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2,
        num_heads=2, decoder_start_token_id=0,
    )  # fmt: skip
    return model, [{"input_ids": words(), "decoder_input_ids": words(length=5)}]


def vit_hf() -> Made:
    model = _transformers(
        "ViTForImageClassification", "ViTConfig", image_size=16, patch_size=4, num_labels=5, **SMALL
    )
    return model, images()


NETWORKS: dict[str, Callable[[], Made]] = {
    "MobileNetV2-like": mobilenet,
    "ResNeXt-like": resnext,
    "ViT on TransformerEncoder": lambda: (ViT(), images()),
    "U-Net": unet,
    "GRU tagger": lambda: labelled(Tagger(), words(), (SAMPLES, 12), 4),
    "LSTM cells": lambda: labelled(Cells(), torch.randn(SAMPLES, 7, 6)),
    "WaveNet-like": lambda: labelled(WaveNet(), torch.randn(SAMPLES, 1, 30)),
    "3d CNN": cnn3d,
    "two inputs, dict out": two_inputs,
    "tied language model": lambda: labelled(Tied(), words(), (SAMPLES, 12), 50),
    "MultiheadAttention": lambda: labelled(Attending(), padded_words()),
    "transformers GPT-2": gpt2,
    "transformers BERT": bert,
    "transformers DistilBERT": distilbert,
    "transformers Llama": llama,
    "transformers T5": t5,
    "transformers ViT": vit_hf,
}


def made(name: str) -> Made:
    """A network, in evaluation mode, and its data, the same every time."""
    torch.manual_seed(0)
    model, data = NETWORKS[name]()
    return model.eval(), data
