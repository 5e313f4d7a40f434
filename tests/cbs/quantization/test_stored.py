"""Files of quantized networks that are not what they should be; counts of pruned ones."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import cbs
from cbs.quantization.stored import pruned_bytes
from tests.cbs.networks import convnet, image_samples, mlp, seeded


@pytest.fixture
def path(tmp_path):
    cbs.quantize(seeded(mlp), bits=3).save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_other_files_and_other_models_are_refused_in_one_line(path, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file(seeded(mlp).state_dict(), other)
    cases = [
        (tmp_path / "none", seeded(mlp), "can't be read"),
        (3, seeded(mlp), "path must be a file's, got 3"),
        (other, seeded(mlp), "holds no quantized network"),
        (path, seeded(convnet), "is damaged or another model's"),
        (path, seeded(mlp, sizes=(6, 5, 4, 4)), "is damaged or another model's"),
    ]
    for file, model, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            cbs.load_quantized(file, model)
        assert len(str(error.value).splitlines()) == 1
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="can't be read"):
        cbs.load_quantized(path, seeded(mlp))


def test_a_file_without_codes_is_damaged(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    del tensors["0.weight.codes"]
    save_file(tensors, path, header)
    with pytest.raises(ValueError, match=r"is damaged or another model's \('0.weight.codes'\)"):
        cbs.load_quantized(path, seeded(mlp))


def test_a_pruned_network_takes_its_weights_and_a_mask():
    dense = seeded(convnet)
    whole = sum(v.numel() * v.element_size() for v in dense.state_dict().values())
    assert pruned_bytes(dense) == whole
    result = cbs.prune(dense, image_samples(12), sparsity=0.5, method="magnitude", certify=False)
    saved = sum(8 * int(mask.sum()) - -(-mask.numel() // 8) for mask in result.masks.values())
    assert pruned_bytes(result.model) == whole - saved
    assert torch.equal(dense[0].weight, seeded(convnet)[0].weight)
