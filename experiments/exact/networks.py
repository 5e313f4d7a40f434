"""The trained networks whose rows are solved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cbs.network.network import Network
from cbs.zoo import trained


def networks(config: dict[str, Any], data_dir: str | None) -> Iterator[tuple[str, Network]]:
    """Each network's name and its layer objectives; those on MNIST only where its files are."""
    damping = config["damping"]
    for title, name in (("digits 64-32-16-10", "digits"), ("breast cancer 30-48-32-2", "breast-cancer")):
        found = trained(name, seed=config["seed"])
        yield title, Network(found.model, found.train, damping=damping)
    if data_dir is None:
        return
    found = trained("mnist-7x7", data_dir, config["seed"])
    yield "mnist 7x7 49-64-48-10", Network(found.model, found.train, damping=damping)
    published = Path(data_dir) / "mlpnet_93.97.npz"
    if published.exists():
        found = trained("mlpnet", data_dir)
        images = found.train.choose(config["images"])
        yield "mlpnet 784-40-20-10", Network(found.model, images, damping=damping)
