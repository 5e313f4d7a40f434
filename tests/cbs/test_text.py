"""Networks of `transformers`, and of several inputs: padded batches, batches of differing length, tokens."""

import importlib.util

import pytest
import torch
from torch import nn

import cbs

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
N, T = 24, 6
generator = torch.Generator().manual_seed(0)
LENGTHS = torch.arange(N) % 4 + 3
MASK = (torch.arange(T) < LENGTHS[:, None]).long()
IDS = torch.randint(1, 30, (N, T), generator=generator) * MASK
LABELS = torch.randint(0, 3, (N,), generator=generator)
PADDED = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}
ALONE = [
    {"input_ids": IDS[i : i + 1, :n], "attention_mask": MASK[i : i + 1, :n], "labels": LABELS[i : i + 1]}
    for i, n in enumerate(LENGTHS.tolist())
]
TWO = ["bert.encoder.layer.0.attention.self.value", "bert.encoder.layer.0.intermediate.dense"]


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=10,
        max_position_embeddings=8, num_labels=3, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    return BertForSequenceClassification(config).double().eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double().eval()


@needs_transformers
@pytest.mark.parametrize(
    "options", [{"method": "alps", "scope": "row"}, {"method": "joint-loss"}, {"method": "woodfisher"}]
)
def test_padding_changes_nothing(options):
    """A batch of padded texts gives what the texts give one by one, without any padding."""
    made = bert()
    found, alone = (cbs.prune(made, data, sparsity=0.5, layers=TWO, **options) for data in (PADDED, ALONE))
    assert found.before.loss == pytest.approx(alone.before.loss)
    assert found.before.accuracy == alone.before.accuracy
    assert found.value == pytest.approx(alone.value, rel=1e-6)
    for name, mask in found.masks.items():
        assert torch.equal(mask, alone.masks[name])
        torch.testing.assert_close(found.state[f"{name}.weight"], alone.state[f"{name}.weight"])


@needs_transformers
def test_labels_are_kept_out_of_the_call():
    made = bert()
    result = cbs.prune(made, PADDED, sparsity=0.5, layers=TWO, method="magnitude")
    with torch.no_grad():
        expected = made(input_ids=IDS, attention_mask=MASK, labels=LABELS)
    assert result.before.loss == pytest.approx(float(expected.loss))
    assert type(result.model) is type(made)
    with torch.no_grad():
        assert result.model(input_ids=IDS, attention_mask=MASK, labels=LABELS).loss.isfinite()


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("data", [PADDED, ALONE[:12]])
def test_text_is_tuned_on(data):
    result = cbs.prune(bert(), data, sparsity=0.5, layers=TWO, method="magnitude", finetune=4)
    assert result.after.loss < result.history[-1].pruned.loss


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"refit": "network"}])
def test_texts_without_labels_are_held_against_the_dense_outputs(options):
    made, data = bert(), {name: PADDED[name].repeat(4, 1) for name in ("input_ids", "attention_mask")}
    result = cbs.prune(made, data, sparsity=0.5, layers=TWO, method="magnitude", **options)
    with torch.no_grad():
        dense, pruned = (model(input_ids=IDS, attention_mask=MASK).logits for model in (made, result.model))
    expected = (dense - pruned).square().sum() / dense.square().sum()
    assert result.after.loss == pytest.approx(float(expected))
    if options:
        assert result.after.loss < result.history[-1].pruned.loss


@needs_transformers
def test_a_language_model_tells_the_next_token():
    made = gpt2()
    data = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.where(MASK.bool(), IDS, -100)}
    result = cbs.prune(
        made, data, sparsity=0.5, method="wanda", loss="next_token_cross_entropy", certify=False,
        layers=["transformer.h.0.mlp.c_fc"],
    )  # fmt: skip
    parts = []
    for i, n in enumerate(LENGTHS.tolist()):
        ids = IDS[i : i + 1, :n]
        with torch.no_grad():
            parts.append(float(made(input_ids=ids, labels=ids).loss))
    assert result.before.loss == pytest.approx(sum(parts) / N)
    assert result.before.accuracy is not None


class Translator(nn.Module):
    """Two sequences and their masks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.source, self.target = nn.Linear(3, 8), nn.Linear(3, 8)
        self.both = nn.Transformer(8, 2, 1, 1, 10, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 4)

    def forward(self, src, tgt, *, src_key_padding_mask=None, tgt_mask=None):
        found = self.both(
            self.source(src), self.target(tgt), tgt_mask=tgt_mask, src_key_padding_mask=src_key_padding_mask,
            memory_key_padding_mask=src_key_padding_mask,
        )  # fmt: skip
        return self.out(found), found


def translation():
    generator = torch.Generator().manual_seed(1)
    src, tgt = (torch.randn(N, length, 3, generator=generator) for length in (T, 5))
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)
    given = {"src": src, "tgt": tgt, "src_key_padding_mask": MASK == 0, "tgt_mask": cbs.Shared(causal)}
    return given, torch.randint(0, 4, (N, 5), generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "magnitude"}, {"method": "wanda"}, {"method": "joint", "scope": "row"}, {"method": "obd"},
        {"method": "woodfisher"}, {"method": "joint", "pipeline": "sequential", "scope": "row"},
        {"method": "magnitude", "stages": 2}, {"method": "elimination"},
    ],
)  # fmt: skip
def test_two_sequences_with_masks(options):
    inputs, targets = translation()
    result = cbs.prune(
        Translator(), (inputs, targets), sparsity=0.5, loss="token_cross_entropy", output=0, certify=False,
        time_limit=5, layers=["source", "target", "out"], **options,
    )  # fmt: skip
    plain = {**inputs, "tgt_mask": inputs["tgt_mask"].value}
    with torch.no_grad():
        outputs, _ = Translator().eval()(**plain)
    expected = nn.functional.cross_entropy(outputs.movedim(2, 1), targets)
    assert result.before.loss == pytest.approx(float(expected), rel=1e-5)
    assert result.sparsity == pytest.approx(0.5, abs=0.11)


def test_a_shared_mask_of_the_wrong_size_is_refused_in_one_line():
    inputs, targets = translation()
    inputs["tgt_mask"] = inputs["tgt_mask"].value
    with pytest.raises(ValueError, match=r"inputs\['tgt_mask'\] \[5, 5\] is not of 24 samples .* cbs.Shared"):
        cbs.prune(Translator(), (inputs, targets), sparsity=0.5, loss="token_cross_entropy")


def test_wrapped_models_are_taken_out():
    inputs, targets = translation()
    result = cbs.prune(
        nn.DataParallel(Translator()), (inputs, targets), sparsity=0.5, loss="token_cross_entropy", output=0,
        method="magnitude", layers=["out"],
    )  # fmt: skip
    assert type(result.model) is Translator
    assert [*result.state] == [*Translator().state_dict()]
