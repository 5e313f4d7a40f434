import pytest
import torch

from cbs.refit.divergence import Probabilities
from cbs.refit.movable import Movable
from cbs.refit.passes import Passes
from cbs.reselection.pool import choose_pool, diagonal, ranks
from cbs.reselection.space import Space
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded
from tests.cbs.reselection.test_space import masked, space_of


def gauss_newton(plain, space, vector, x):
    """The matrix of the divergence of probabilities, from dense Jacobians."""

    def outputs(v):
        return torch.func.functional_call(plain, parameters(v), (x,))

    def parameters(v):
        base = space.movable.base
        found = {name: values.reshape(-1) for name, values in base.items()}
        for part in space.movable.parts:
            found[part.name] = found[part.name].index_put((part.index,), v[part.place])
        return {name: values.reshape(base[name].shape) for name, values in found.items()}

    J = torch.func.jacrev(outputs)(vector)
    q = outputs(vector).softmax(dim=1)
    B = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    return torch.einsum("nkp,nkl,nlq->pq", J, B, J) / len(x)


@pytest.mark.parametrize(
    ("make", "names", "data"),
    [
        (mlp, ["0", "2", "4"], samples(8)),
        (convnet, ["0", "3", "6"], image_samples(4)),
    ],
)
def test_the_diagonal_is_unbiased(make, names, data):
    model = masked(seeded(make), names)
    plain, space, kept = space_of(model, names)
    vector = torch.where(kept, space.movable.vector(space.movable.base), 0.0)
    passes = Passes(plain, space.movable, Probabilities())
    known = type(data)(data.inputs, plain(data.inputs).detach())
    found = torch.stack([diagonal(passes, vector, known, seed) for seed in range(150)])
    floor = found.min()
    G = gauss_newton(plain, space, vector, data.inputs).diagonal()
    inner = space.prunable
    mean, spread = found.mean(dim=0)[inner], found.std(dim=0)[inner] / 150**0.5
    assert bool(((mean - G[inner]).abs() < 5 * spread + 1e-2 * G.mean() + floor).all())
    assert float((mean - G[inner]).abs().mean()) < 0.15 * float(G[inner].mean())


def small_space(labels, keep):
    return Space(Movable((), {}), torch.tensor(labels), torch.tensor(keep))


def test_the_pool_is_survivors_and_the_best_to_return():
    space = small_space([0, 0, 0, 0, 0, 0, -1], [3])
    kept = torch.tensor([1, 1, 1, 0, 0, 0, 1], dtype=torch.bool)
    w = torch.tensor([3.0, 1.0, 2.0, 0, 0, 0, 5.0])
    g = torch.tensor([0, 0, 0, 1.0, -3.0, 0.0, 9.0])
    h = torch.ones(7)
    none = torch.tensor([0])
    pool = choose_pool(space, kept, w, g, h, 100, 1, none)
    assert pool.tolist() == [True, True, True, False, True, False, False]
    pool = choose_pool(space, kept, w, g, h, 100, 3, none)
    assert pool.tolist() == [True, True, True, True, True, False, False]  # no gain, no return


def test_where_survivors_are_many_the_cheapest_may_go():
    space = small_space([0, 0, 0, 0, 1, 1, 1, 1], [2, 1])
    kept = torch.ones(8, dtype=torch.bool)
    w = torch.tensor([4.0, 3.0, 2.0, 1.0, 8.0, 7.0, 6.0, 5.0])
    g, h = torch.zeros(8), torch.ones(8)
    pool = choose_pool(space, kept, w, g, h, 3, 5, torch.tensor([0, 0]))
    assert pool.nonzero()[:, 0].tolist() == [1, 2, 3]
    pool = choose_pool(space, kept, w, g, h, 4, 0, torch.tensor([0, 3]))  # three of the second have to go
    assert pool.nonzero()[:, 0].tolist() == [3, 5, 6, 7]
    g = torch.tensor([0.0, 3.0, 0, 0, 0, 0, 0, 0])  # the gradient asks for the second to go
    assert bool(choose_pool(space, kept, w, g, h, 1, 0, torch.tensor([0, 0]))[1])


def test_ranks_are_within_labels():
    cost = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    assert ranks(cost, torch.tensor([0, 0, 0, 1, 1])).tolist() == [2, 0, 1, 1, 0]
    assert ranks(cost, torch.tensor([-1, 0, 0, 2, 2])).tolist() == [0, 0, 1, 1, 0]
