import importlib.util
import json

import pytest
import torch

from cbs.cli.pretrained import is_folder, load_pretrained
from cbs.cli.sources import gather_job
from cbs.data import gather

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "long", "line", "short", "of", "text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    where = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=12, num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(where)
    (where / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(where / "vocab.txt")).save_pretrained(where)
    return where


@needs_transformers
def test_a_folder_is_a_model_and_lines_are_its_data(folder, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(["a long line of text", "short", "a line"] * 8))
    for name in (str(folder), f"hf:{folder}"):
        assert is_folder(name)
        job = gather_job(name, None, str(tmp_path / "lines.txt"), None, None)
        samples = gather(job.data)
        assert len(samples) == 24
        assert samples.batch == 16
        given = next(samples.batches())[0].given()
        assert given["attention_mask"].sum(dim=1)[:3].tolist() == [7, 3, 4]
        assert job.model.classifier.out_features == 3
        assert not job.model.training


@needs_transformers
def test_folders_that_can_not_be_loaded_are_refused_in_one_line(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for name, text, message in (
        ("a", json.dumps(config | {"architectures": ["MyOwn"]}), "is a MyOwn, which transformers .* has not"),
        ("b", "no json", "config.json can't be read"),
        ("c", json.dumps(config), "can't be loaded"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            load_pretrained(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_what_is_no_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*config.json"):
        load_pretrained(f"hf:{tmp_path}")


def test_without_transformers_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(ValueError, match="pip install transformers"):
        load_pretrained(str(tmp_path))
