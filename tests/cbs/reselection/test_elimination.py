import itertools
import math

import numpy as np
import pytest
import torch

from cbs.reselection.elimination import Local, best_trial


def local(p=7, free=1, groups=((6,), (3,)), seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, p))
    fixed = torch.zeros(p, dtype=torch.bool)
    fixed[p - free :] = True
    return Local(
        torch.from_numpy(rng.standard_normal(p)), torch.from_numpy(X.T @ X / 30),
        torch.from_numpy(0.1 * rng.standard_normal(p)), fixed, groups,
    )  # fmt: skip


def least(model, damping, masks):
    """The best of some masks by the damped model, from its definition."""
    d = model.G.diagonal()
    H = model.G + torch.diag(damping * (d + 1e-3 * d.mean()))
    best = math.inf, None, None
    for mask in masks:
        gone = torch.tensor(mask)
        step = torch.where(gone, -model.w, 0.0)
        free = ~gone
        pull = model.g + H @ step
        step[free] = -torch.linalg.solve(H[free][:, free], pull[free])
        value = float(model.g @ step + 0.5 * step @ H @ step)
        best = min(best, (value, mask, (model.w + step).tolist()))
    return best


@pytest.mark.parametrize("groups", [((6,), (3,)), ((2, 4), (1, 2)), ((1, 2, 3), (0, 1, 3))])
@pytest.mark.parametrize("solver", ["brute-force", "greedy", "local-search"])
def test_the_problem_of_a_pool_against_every_mask(groups, solver):
    model = local(groups=groups)
    sizes, prune = groups
    ends = np.cumsum([0, *sizes])
    masks = [
        tuple(i in chosen for i in range(7))
        for parts in itertools.product(
            *(
                itertools.combinations(range(a, b), k)
                for (a, b), k in zip(itertools.pairwise(ends), prune, strict=True)
            )
        )
        for chosen in [set(itertools.chain(*parts))]
    ]
    value, mask, weights = least(model, 0.1, masks)
    found = best_trial(model, lambda w: 1.0, 0.1, solver=solver, tries=1)
    assert tuple(found.mask) in masks
    assert found.foreseen >= value - 1e-12
    if solver == "brute-force":
        assert (found.foreseen, found.bound) == pytest.approx((value, value), rel=1e-9)
        assert tuple(found.mask) == mask
        np.testing.assert_allclose(found.weights, weights, rtol=1e-9, atol=1e-12)


def test_the_divergence_chooses_the_damping():
    model = local()
    sizes = {}

    def judge(weights):
        sizes[float((weights - model.w).norm())] = None
        return -float(weights.norm())  # the less it shrinks the better

    found = best_trial(model, judge, 0.1, tries=5)
    assert len(sizes) > 2
    assert found.divergence == min(-float(found.weights.norm()), found.divergence)
    assert best_trial(model, lambda w: math.nan, 0.1) is None
    up = best_trial(model, lambda w: float((w - model.w).norm()), 0.1, tries=3)
    assert up.damping > 0.1
