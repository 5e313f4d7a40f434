"""Malformed checkpoints, weights, warm starts and options: one line on standard error, exit status 2.

Whatever is not refused must be harmless: the answer is then that of the sound file.
"""

import contextlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import cbs
from cbs.cli import main
from solvers import Budget
from solvers.instances import random_problem, save

MODULE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))

data = (torch.randn(20, 6), torch.randint(3, (20,)))

class Sly:
    @property
    def hidden(self): raise RuntimeError("no\\nentry")

sly = Sly()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an instance, its checkpoint, a module of the user's, and weights of its model."""
    folder = tmp_path_factory.mktemp("malformed")
    save(folder / "layer.npz", random_problem(2, 6, Budget.per_row(3), seed=0))
    (folder / "badly_filled.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    sound = solve(folder, "--checkpoint", folder / "sound")
    (folder / "answer").write_text(json.dumps(sound))
    model = __import__("badly_filled").model()
    save_file(model.state_dict(), folder / "sound.safetensors")
    torch.save(model.state_dict(), folder / "sound.pt")
    torch.save(model.state_dict(), folder / "sound.pth", _use_new_zipfile_serialization=False)
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("badly_filled", None)


def call(*argv):
    """Exit status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


def require_refusal(status, out, err):
    assert status == 2, (status, err[-2000:])
    assert out == ""
    assert err.startswith("cbs: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")


def solve(folder, *argv):
    status, out, err = call("solve", folder / "layer.npz", "--json", *argv)
    assert status == 0, err
    return {key: value for key, value in json.loads(out).items() if key != "seconds"}


def require_harmless_or_refused(folder, *argv):
    status, out, err = call("solve", folder / "layer.npz", "--json", *argv)
    if status == 0:
        answer = {key: value for key, value in json.loads(out).items() if key != "seconds"}
        assert answer == json.loads((folder / "answer").read_text())
    else:
        require_refusal(status, out, err)


def load_weights(path):
    """Whether a command takes weights; it ends before any work."""
    taken = []

    def stop(*args, **options):
        taken.append(path)
        raise ValueError("the work would begin here")

    argv = (
        "prune",
        "badly_filled:model",
        "--data",
        "badly_filled:data",
        "--weights",
        path,
        "-m",
        "magnitude",
    )
    before = cbs.compare
    cbs.compare = stop
    try:
        require_refusal(*call(*argv, "-s", "0.5", "-o", path.parent / "never"))
    finally:
        cbs.compare = before
    assert not (path.parent / "never").exists()
    return bool(taken)


CHANGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("put"), st.floats(0, 1), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("ends"), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
)


def changed(data, change):
    """Bytes after one change; `ends` changes the last 400, where an archive has its directory."""
    kind, where, new = change
    at = int(where * len(data))
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + new + data[at:]
    if kind == "repeat":
        return data[:at] + data
    if kind == "ends":
        at = max(0, len(data) - 1 - int(where * 400))
    return data[:at] + new + data[at + len(new) :]


def fuzz_checkpoint(place, change):
    path = place / "changed"
    path.write_bytes(changed((place / "sound").read_bytes(), change))
    require_harmless_or_refused(place, "--checkpoint", path)


def fuzz_weights(place, ending, change):
    path = place / f"changed.{ending}"
    path.write_bytes(changed((place / f"sound.{ending}").read_bytes(), change))
    load_weights(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


def fuzz_warm_start(place, value):
    path = place / "warm.json"
    path.write_text(json.dumps({"pruned": value}))
    status, out, err = call("solve", place / "layer.npz", "--json", "-s", "magnitude", "--warm-start", path)
    good = (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(row, list) and len(set(map(str, row))) == 3 for row in value)
        and all(type(k) is int and 0 <= k < 6 for row in value for k in row)
    )
    if good:
        assert status == 0
    else:
        require_refusal(status, out, err)


FEW, MANY = (
    settings(max_examples=25, deadline=None, derandomize=True),
    settings(max_examples=1000, deadline=None, derandomize=True),
)


@given(change=CHANGES)
@FEW
def test_changed_checkpoints(place, change):
    fuzz_checkpoint(place, change)


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
@given(change=CHANGES)
@FEW
def test_changed_weights(place, ending, change):
    fuzz_weights(place, ending, change)


@given(value=JSON)
@FEW
def test_warm_starts_of_any_shape(place, value):
    fuzz_warm_start(place, value)


@pytest.mark.slow
@given(change=CHANGES, ending=st.sampled_from(["checkpoint", "safetensors", "pt", "pth"]), value=JSON)
@MANY
def test_many_changes(place, change, ending, value):
    fuzz_checkpoint(place, change) if ending == "checkpoint" else fuzz_weights(place, ending, change)
    fuzz_warm_start(place, value)


def test_sound_files_are_taken(place):
    require_harmless_or_refused(place, "--checkpoint", place / "sound")
    for ending in ("safetensors", "pt", "pth"):
        assert load_weights(place / f"sound.{ending}")


WARM = [
    "", "[" * 100_000, '{"pruned": ' + "[" * 100_000, '{"pruned": [[-1, 0, 1], [0, 1, 2]]}',
    '{"pruned": [[0.5, 0, 1], [0, 1, 2]]}', '{"pruned": [[true, 0, 2], [0, 1, 2]]}',
    '{"pruned": [[1%s, 0, 1], [0, 1, 2]]}'.replace("%s", "0" * 30), '{"pruned": [[0, 1, 2]]}',
    '{"pruned": [[NaN], [Infinity]]}',
    '{"pruned": {"0": [0, 1, 2], "1": [0, 1, 2]}}', '{"pruned": "01"}', '{"pruned": [[0, 1, 2], "012"]}',
    '{"pruned": [[0, 1, 2], [0, 1, 2], [0, 1, 2]]}', '{"pruned": [[0, 1, 2], [0, 1, 6]]}', "1e999", "\ud800",
    '{"pruned": [[], {}]}', '{"pruned": [{}, [0, 1, 2]]}',
    '{"pruned": [[' + "9" * 5000 + "], [0, 1, 2]]}",
]  # fmt: skip


@pytest.mark.parametrize("text", WARM, ids=range(len(WARM)))
def test_warm_starts_that_are_none(place, text):
    path = place / "warm.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    argv = ("solve", place / "layer.npz", "-s", "magnitude", "--warm-start")
    require_refusal(*call(*argv, path))


def test_warm_starts_without_end(place):
    require_refusal(*call("solve", place / "layer.npz", "-s", "magnitude", "--warm-start", "/dev/zero"))
    require_refusal(*call("solve", place / "layer.npz", "-s", "magnitude", "--warm-start", place))


def arrays_of(place):
    with np.load(place / "sound") as file:
        return {name: file[name] for name in file.files if name != "digest"}


def test_checkpoints_made_by_others(place):
    """A sound archive that another program wrote, with numbers of its own in any of its members."""
    arrays = arrays_of(place)
    path = place / "forged.npz"
    assert {"key", "seconds"} < arrays.keys()
    for name, array in arrays.items():
        for new in (
            np.full_like(array, 7) if array.dtype.kind in "biuf" else np.array("{}"),
            np.zeros((3, 3, 3)), np.array("[" * 100_000), np.zeros(0), np.array(1j),
        ):  # fmt: skip
            np.savez(path, **{**arrays, name: new})
            require_refusal(*call("solve", place / "layer.npz", "--checkpoint", path))
        np.savez_compressed(path, **{**arrays, name: new})
        require_refusal(*call("solve", place / "layer.npz", "--checkpoint", path))


def zip_with(path, **flags):
    """An archive whose directory says something odd of its first member."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("key.npy", b"x" * 100)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    for offset, value in flags.values():
        struct.pack_into("<H", data, at + offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize("flags", [(6, 99), (8, 1), (10, 99), (10, 14), (10, 12), (8, 0x20)], ids=str)
@pytest.mark.parametrize("ending", ["npz", "pt"])
def test_archives_of_other_kinds(place, flags, ending):
    path = place / f"odd.{ending}"
    zip_with(path, odd=flags)
    if ending == "npz":
        require_refusal(*call("solve", place / "layer.npz", "--checkpoint", path))
    else:
        assert not load_weights(path)


def tensors(state):
    """State dicts that hold something else than dense real numbers."""
    W, bias = state["0.weight"], state["0.bias"]
    yield "sparse", state | {"0.weight": W.to_sparse()}
    yield "csr", state | {"0.weight": W.to_sparse_csr()}
    yield "quantized", state | {"0.weight": torch.quantize_per_tensor(W, 0.1, 0, torch.qint8)}
    yield "meta", state | {"0.weight": W.to("meta")}
    yield "complex", state | {"0.weight": W.to(torch.complex64)}
    yield "bool", state | {"0.weight": W > 0}
    yield "whole numbers", state | {"0.weight": W.to(torch.int8)}
    yield "fractions", state | {"1.num_batches_tracked": torch.tensor(0.5)}
    yield "expanded", state | {"0.bias": torch.zeros(()).expand(1 << 40)}
    yield "empty", {}
    yield "nested twice over", {"state_dict": {"state_dict": {"state_dict": {"state_dict": state}}}}
    yield "numbers", state | {"0.bias": 3.0}
    yield "numbered", dict(enumerate(state.values()))
    yield "a list", list(state.values())
    yield "a tensor", W
    yield "other shape", state | {"0.bias": bias[:4]}


def test_tensors_of_other_kinds(place):
    state = __import__("badly_filled").model().state_dict()
    for name, wrong in tensors(dict(state)):
        torch.save(wrong, place / "wrong.pt")
        assert not load_weights(place / "wrong.pt"), name
    nan = state | {"0.bias": torch.full((5,), torch.nan)}
    torch.save(dict(nan), place / "wrong.pt")
    load_weights(place / "wrong.pt")


def test_pickles_are_not_run(place):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(place / "ran"),))

    (place / "evil.pt").write_bytes(pickle.dumps(Evil()))
    assert not load_weights(place / "evil.pt")
    torch.save(Evil(), place / "evil.pt")
    assert not load_weights(place / "evil.pt")
    assert not (place / "ran").exists()


def test_weights_that_would_take_much_more_memory(place):
    for ending, name in (("pt", "archive/data/0"), ("npz", "fc1.npy")):
        path = place / f"bomb.{ending}"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
        argv = ("badly_filled:model", "--data", "badly_filled:data") if ending == "pt" else ("mlpnet",)
        err = call("prune", *argv, "--weights", path, "-o", place / "never")
        require_refusal(*err)
        assert "MB; save it uncompressed" in err[2]


@pytest.mark.parametrize(
    "name",
    [
        "", ":", "a:", ":b", "a..b:c", "os.path:", "os:.", "builtins:exit", "sys:exit",
        "badly_filled:sly.hidden", "badly_filled:model.x", "os:environ", "\x00:x", "..:x",
        "badly_filled:data",
    ],
)  # fmt: skip
def test_names_of_modules(place, name):
    for argv in ((name, "--data", "badly_filled:data"), ("badly_filled:model", "--data", name)):
        if argv[1:] == ("--data", name) and name == "badly_filled:data":
            continue
        require_refusal(*call("prune", *argv, "-m", "magnitude", "-s", "0.5", "-o", place / "never"))
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--seed", "-1"), "seed"),
        (("--gap", "nan"), "gap"),
        (("--gap", "inf"), "gap"),
        (("--gap", "-1"), "gap"),
        (("--time-limit", "nan"), "time_limit"),
        (("--time-limit", "inf"), "time_limit"),
        (("--time-limit", "-inf"), "time_limit"),
    ],
)
def test_numbers_that_can_not_be(place, argv, message):
    commands = [("solve", place / "layer.npz"), ("prune", "digits", "-o", place / "never")]
    if argv[0] != "--seed":
        commands.append(("curve", place / "layer.npz"))
    for command in commands:
        status, out, err = call(*command, *argv)
        require_refusal(status, out, err)
        assert message in err
    assert not (place / "never").exists()


def test_percents_are_not_fractions(place):
    status, out, err = call("prune", "-s", "90", "-o", place / "never")
    require_refusal(status, out, err)
    assert "90% is 0.9" in err
    status, out, err = call("prune", "-s", "nan", "-o", place / "never")
    require_refusal(status, out, err)
