"""MLPNet on MNIST: data, network and pruning together, in the folder that CBS_DATA names."""

import os
from pathlib import Path

import pytest

import cbs
from cbs.data import mnist
from cbs.zoo import mlpnet

PUBLISHED = {0.8: 0.9390, 0.9: 0.9314, 0.95: 0.8892, 0.98: 0.5545}
"""Test accuracy of the Combinatorial Brain Surgeon (Yu et al. 2022, Table 1)."""


@pytest.mark.slow
def test_one_budget_for_the_network_keeps_more_than_was_published():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    split, model = mnist(folder), mlpnet(Path(folder) / "mlpnet_93.97.npz")
    data = split.train.inputs[:10_000], split.train.targets[:10_000]
    results = cbs.compare(
        model, data, sparsities=list(PUBLISHED), methods=["joint"], test=split.test,
        scope="network", solver="local-search", damping=1e-2, certify=False, recalibrate=True,
    )  # fmt: skip
    assert results[0].test_before.accuracy == pytest.approx(0.9397, abs=1e-9)
    for (sparsity, published), result in zip(PUBLISHED.items(), results, strict=True):
        kept = sum(layer.kept for layer in result.layers)
        assert kept == round((1 - sparsity) * 32_360)
        assert result.test_after.accuracy >= published
