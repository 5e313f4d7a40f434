import pytest
import torch

from cbs.study.models import network


def test_networks_of_the_package_and_of_one_s_own(tmp_path):
    model, train, test, layers = network("digits", 0, None)
    assert layers is None
    assert len(train) == 1437
    assert len(test) == 360
    path = tmp_path / "own.py"
    path.write_text(
        "import torch\nfrom cbs.data import digits\n"
        "def split():\n    return torch.nn.Linear(64, 10), digits()\n"
        "def pair():\n    return torch.nn.Linear(3, 2), (torch.ones(5, 3), torch.zeros(5).long())\n"
        "def nothing():\n    return 3\n"
        "def boom():\n    return {}['k']\n"
    )
    assert len(network(f"{path}:split", 0, None)[2]) == 360
    model, train, test, layers = network(f"{path}:pair", 0, None)
    assert isinstance(model, torch.nn.Linear)
    assert (len(train), test, layers) == (5, None, None)
    with pytest.raises(ValueError, match=r"must give .model, data."):
        network(f"{path}:nothing", 0, None)
    with pytest.raises(ValueError, match=r"can't be made .KeyError: 'k'"):
        network(f"{path}:boom", 0, None)
