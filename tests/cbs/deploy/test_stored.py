import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cbs.deploy.stored import KEY, read, rebuild, write
from cbs.network.surgery import clone
from tests.cbs.networks import convnet, masked, mlp, residual, seeded


def network(make, share=0.9):
    return clone(masked(seeded(make, dtype=torch.float32), share))


class Scaled(nn.Module):
    """A network that can't be made without arguments, whose decoder is tied to its encoder."""

    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Linear(12, width)
        self.decoder = nn.Linear(12, width, bias=False)
        self.decoder.weight = self.encoder.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.scale * (self.encoder(x) + self.decoder(x).tanh())


def same(model, other, x):
    state, theirs = model.state_dict(), other.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[name], theirs[name]) for name in state)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), other(x))


@pytest.mark.parametrize(
    ("make", "shape", "kind"),
    [(mlp, (6,), "stock"), (convnet, (2, 4, 6), "stock"), (residual, (2, 5, 5), "class")],
)
def test_a_network_comes_back_from_the_file_alone(tmp_path, make, shape, kind):
    model = network(make)
    written = write(model, tmp_path / "net.safetensors")
    assert written.reason is None
    assert written.description["model"]["kind"] == kind
    assert written.bytes == (tmp_path / "net.safetensors").stat().st_size
    same(model, rebuild(tmp_path / "net.safetensors"), torch.randn(3, *shape))
    assert json.loads((tmp_path / "net.json").read_text()) == written.description


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), (2, 5, 3)),
        (nn.GRU(3, 4), (2, 5, 3)),
        (
            nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.PReLU(8), nn.Flatten(), nn.LayerNorm((24,))),
            (2, 4, 5),
        ),
    ],
)
def test_other_modules_of_torch(tmp_path, model, inputs):
    assert write(model.eval(), tmp_path / "net.safetensors").reason is None
    back, x = rebuild(tmp_path / "net.safetensors"), torch.randn(inputs)
    expected, found = model(x), back(x)
    if isinstance(expected, tuple):
        expected, found = expected[0], found[0]
    assert torch.equal(expected, found)


def test_bytes_on_disk_are_fewer(tmp_path):
    dense = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 100))
    sizes = {}
    for share in (0.0, 0.5, 0.9, 0.95):
        model = clone(masked(dense, share, seed=3))
        sizes[share] = write(model, tmp_path / "net.safetensors").bytes
        dense = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 100))
    weights = 300 * 200 + 200 * 100
    for share in (0.5, 0.9, 0.95):
        places = min(weights / 8, 1.05 * (1 - share) * weights)
        assert sizes[share] <= 1.02 * (4 * (1 - share) * weights + places) + 4 * 300 + 3000
    assert sizes[0.95] < sizes[0.9] < sizes[0.5] < sizes[0.0]


def test_what_needs_the_network_says_so(tmp_path):
    model, x = Scaled(5).eval(), torch.randn(3, 12)
    assert "arguments" in write(model, tmp_path / "net.safetensors").reason
    with pytest.raises(ValueError, match=r"needs the network that it was made of.*Scaled.*give it as model="):
        rebuild(tmp_path / "net.safetensors")
    for given in (Scaled(5), lambda: Scaled(5), Scaled(9)):
        back = rebuild(tmp_path / "net.safetensors", given)
        same(model, back, x)
        assert back.decoder.weight is back.encoder.weight
        assert back.encoder.out_features == 5
    for given, why in (
        (nn.Linear(3, 3), "another architecture"),
        (3, "must be a torch.nn.Module"),
        (dict, "got dict"),
    ):
        with pytest.raises(ValueError, match=why):
            rebuild(tmp_path / "net.safetensors", given)


def make_network():
    return Scaled(5)


def test_a_builder_is_named_in_the_file(tmp_path):
    model = Scaled(5).eval()
    name = f"{__name__}:make_network"
    assert write(model, tmp_path / "net.safetensors", builder=name).reason is None
    same(model, rebuild(tmp_path / "net.safetensors"), torch.randn(3, 12))
    with pytest.raises(ValueError, match="does not make this network"):
        write(nn.Linear(3, 3), tmp_path / "other.safetensors", builder=name)
    assert not (tmp_path / "other.safetensors").exists()


def test_a_class_that_was_changed_since_it_was_made_is_not_trusted(tmp_path):
    model = residual(torch.float32)
    model.norm1.eps = 0.1
    assert "another eps" in write(model, tmp_path / "net.safetensors").reason
    model = nn.Sequential(nn.Linear(3, 2))
    model.forward = lambda x: 2 * model[0](x)  # no description has this
    assert "another forward" in write(model, tmp_path / "net.safetensors").reason


def damaged(folder):
    """Files by what is wrong with them."""
    write(network(mlp), folder / "net.safetensors")
    whole = (folder / "net.safetensors").read_bytes()
    about, _ = read(folder / "net.safetensors")
    pieces = load_file(folder / "net.safetensors")
    files = {"cut.safetensors": whole[:-9], "text.safetensors": b"no network", "empty.safetensors": b""}
    files["flipped.safetensors"] = whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for name, header in {
        "foreign": None,
        "newer": json.dumps(about | {"version": 2, "digest": "x"}),
        "digest": json.dumps(about | {"digest": "0" * 64}),
        "nested": "[" * 100_000,
        "list": "[]",
        "format": json.dumps(about | {"format": "x"}),
        "undigested": json.dumps(about),
    }.items():
        save_file(pieces, folder / f"{name}.safetensors", None if header is None else {KEY: header})


WRONG = {
    "cut": "can't be read", "text": "can't be read", "empty": "can't be read", "flipped": "digest",
    "foreign": "no exported network", "newer": "version 2, and this package reads 1", "digest": "digest",
    "nested": "damaged", "list": "damaged", "format": "another format", "undigested": "damaged",
    "absent": "not a file",
}  # fmt: skip


def test_bad_files_are_refused_in_one_line(tmp_path):
    damaged(tmp_path)
    for name, why in WRONG.items():
        with pytest.raises(ValueError, match=why) as told:
            rebuild(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="description alone"):
        rebuild(tmp_path / "net.json")
    with pytest.raises(ValueError, match="path must be"):
        rebuild(3)


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    first, second = network(mlp), network(convnet)
    place = tmp_path / "net.safetensors"
    write(first, place)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write(second, place)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(second, place)
    same(second, rebuild(place), torch.randn(2, 2, 4, 6))


def test_somebody_elses_json_is_not_replaced(tmp_path):
    (tmp_path / "net.json").write_text("{}")
    with pytest.raises(ValueError, match="would replace"):
        write(network(mlp), tmp_path / "net.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]
    with pytest.raises(ValueError, match="must end in"):
        write(network(mlp), Path("net.bin"))


def test_what_can_not_be_stored_is_refused(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("odd", torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match=r"'odd'.*can't be stored"):
        write(model, tmp_path / "net.safetensors")
    assert not any(tmp_path.iterdir())
