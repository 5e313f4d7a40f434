import torch
from torch import nn

from cbs.deploy.counting import memory, multiplications
from cbs.deploy.sparse import compiled


def test_multiplications_by_hand():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Flatten(),
        nn.Linear(48, 5),
    )
    with torch.no_grad():
        model[0].weight[0] = 0
        model[2].weight[1] = 0
        model[4].weight[:, 3] = 0
    whole = 4 * 9 * 9 + 4 * 3 * 4 * 9 + 48 * 5
    found = multiplications(model, torch.randn(3, 2, 7, 7))
    assert found.all == whole
    assert found.needed == whole - 9 * 9 - 3 * 4 * 9 - 5


def test_memory_of_tied_and_compiled_weights():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    assert memory(model) == 2 * 64 * 4
    model[1].weight = model[0].weight
    assert memory(model) == 64 * 4
    program = compiled(nn.Linear(8, 8).requires_grad_(False), torch.randn(2, 8))
    assert memory(program) == program.program.bytes > 64 * 8
