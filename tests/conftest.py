"""Fixtures that every test module may use."""

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tests share few cores


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
