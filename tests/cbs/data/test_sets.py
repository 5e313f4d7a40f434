import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch

from cbs.data import MNIST_MEAN, MNIST_STD, digits, mnist, monks
from cbs.data import sets as module


def test_digits_are_split_the_same_every_time():
    split = digits()
    assert (len(split.train), len(split.test)) == (1437, 360)
    assert split.train.inputs.shape[1:] == (64,)
    assert (float(split.train.inputs.min()), float(split.train.inputs.max())) == (0.0, 1.0)
    assert torch.equal(split.test.inputs, digits().test.inputs)
    assert split.test.targets.bincount().min() >= 34


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web server on this machine with four small idx files, known to `cbs.data` by their checksums."""
    folder = tmp_path / "site"
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    for name in module.MNIST_FILES:
        count = 5 if name.startswith("train") else 3
        shape = (count, 2, 2) if "images" in name else (count,)
        values = rng.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(head + values.tobytes(), mtime=0))
        packed = (folder / name).read_bytes()
        files[name] = tuple(hashlib.md5(b).hexdigest() for b in (packed, gzip.decompress(packed)))
    monkeypatch.setattr(module, "MNIST_FILES", files)
    monkeypatch.delenv("CBS_DATA", raising=False)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_mnist_is_downloaded_once_and_normalised(site, tmp_path):
    folder, url = site
    split = mnist(tmp_path / "data", url)
    assert (len(split.train), len(split.test)) == (5, 3)
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    pixels = torch.tensor(list(raw)).reshape(5, 4) / 255
    torch.testing.assert_close(split.train.inputs, (pixels - MNIST_MEAN) / MNIST_STD)
    assert split.train.targets.dtype == torch.int64
    again = mnist(tmp_path / "data", "http://127.0.0.1:1/nothing-here/")
    assert torch.equal(again.test.inputs, split.test.inputs)


def test_mnist_is_found_in_the_folder_that_the_environment_names(site, monkeypatch):
    folder, _ = site
    monkeypatch.setenv("CBS_DATA", str(folder))
    assert len(mnist(url="http://127.0.0.1:1/nothing-here/").train) == 5


def test_a_download_with_another_checksum_is_refused(site, tmp_path, monkeypatch):
    folder, url = site
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is not in .* set CBS_DATA") as error:
        mnist(tmp_path / "data", url)
    assert "\n" not in str(error.value)


def test_a_file_with_another_content_is_refused(site):
    folder, url = site
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="does not hold the standard MNIST"):
        mnist(folder, url)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="can't be read"):
        mnist(folder, url)


def test_an_unreachable_site_is_one_line(site, tmp_path):
    with pytest.raises(ValueError, match="can't be had from") as error:
        mnist(tmp_path / "data", "http://127.0.0.1:1/nothing-here/")
    assert "\n" not in str(error.value)


def monks_files(folder, lines):
    for part in ("train", "test"):
        (folder / f"monks-2.{part}").write_text(lines)


def test_monks_problems_are_one_hot(tmp_path):
    monks_files(tmp_path, " 1 1 2 1 3 4 2 data_5\n\n 0 3 3 2 1 1 1 data_9\n")
    split = monks(2, tmp_path)
    assert split.train.targets.tolist() == [1, 0]
    assert split.train.inputs.tolist() == [
        [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1],
        [0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0],
    ]
    (tmp_path / "monks").mkdir()
    monks_files(tmp_path / "monks", " 1 1 2 1 3 4 2 data_5\n")
    (tmp_path / "monks-2.train").unlink()
    assert len(monks(2, tmp_path).test) == 1


@pytest.mark.parametrize(
    "lines",
    ["", " 2 1 1 1 1 1 1 a\n", " 0 4 1 1 1 1 1 a\n", " 0 1 1 1 1 0 1 a\n", " 0 1 1 1\n", "0 x 1 1 1 1 1\n"],
)
def test_files_that_hold_no_monks_problem_are_refused(tmp_path, lines):
    monks_files(tmp_path, lines)
    with pytest.raises(
        ValueError, match=r"does not hold a MONK's problem .*six attributes counted from 1"
    ) as error:
        monks(2, tmp_path)
    assert "\n" not in str(error.value)


def test_a_monks_problem_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"monks-1\.train can't be read .*set CBS_DATA to a folder"):
        monks(1, tmp_path)
    with pytest.raises(ValueError, match="problem must be 1, 2 or 3, got 4"):
        monks(4, tmp_path)
