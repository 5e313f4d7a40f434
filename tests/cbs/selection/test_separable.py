import itertools
import math

import numpy as np
import pytest
import torch

import cbs
from cbs.change import Weights
from cbs.quadratic import Diagonal, Quadratic
from cbs.selection.separable import separable, separable_bound, separable_curves
from solvers import Budget
from tests.cbs.networks import Text, texts


def model(m=3, n=4, seed=0, earlier=None):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((m, n))
    earlier = np.zeros((m, n), bool) if earlier is None else earlier
    W[earlier] = 0
    H = Diagonal(np.broadcast_to(rng.random((m, 1)) + 0.1, (m, n)))
    return Quadratic(range(1), (Weights(W, None),), H, (earlier,), "words", 0.1)


def cost(quadratic, mask):
    moved = Weights(np.where(mask, 0.0, quadratic.W), None)
    return float(quadratic.row_values([moved]).sum())


def every_mask(m, n, budget):
    """Masks of a budget, by going through all that there are."""
    pools = budget.laid_over(m, n)
    for bits in itertools.product([False, True], repeat=m * n):
        mask = np.array(bits).reshape(m, n)
        if pools.coupled:
            if (mask == mask[:1]).all() and mask[0].sum() == pools.prune[0]:
                yield mask
        elif (
            np.bincount(pools.labels.ravel()[mask.ravel()], minlength=len(pools.prune)) == pools.prune
        ).all():
            yield mask


@pytest.mark.parametrize(
    "budget", [Budget.per_row(2), Budget.per_layer(5), Budget.n_of_m(2, 4), Budget.columns(2)], ids=str
)
def test_masks_are_the_best_of_all(budget):
    quadratic = model()
    (mask,) = separable(quadratic, budget).masks
    best = min(cost(quadratic, other) for other in every_mask(3, 4, budget))
    assert cost(quadratic, mask) == pytest.approx(best, rel=1e-12)
    bound = separable_bound(quadratic, budget)
    total = bound.bound if bound.rows is None else bound.rows.sum()
    assert best * (1 - 1e-12) < total <= best


def test_curves_are_the_best_of_every_row_at_every_count():
    quadratic = model()
    curves = separable_curves(quadratic)
    for k in range(5):
        best = np.full(3, math.inf)
        for mask in every_mask(3, 4, Budget.per_row(k)):
            best = np.minimum(best, quadratic.row_values([Weights(np.where(mask, 0.0, quadratic.W), None)]))
        np.testing.assert_allclose(curves.values[:, k], best, rtol=1e-12)
        assert cost(quadratic, curves.masks(k)) == pytest.approx(best.sum(), rel=1e-12)


def test_what_was_pruned_before_stays_pruned():
    earlier = np.zeros((3, 4), bool)
    earlier[1, 2] = earlier[0, 3] = True
    quadratic = model(earlier=earlier)
    for budget in (Budget.per_row(1), Budget.per_layer(3)):
        (mask,) = separable(quadratic, budget).masks
        assert not (earlier & ~mask).any()
    assert not (earlier & ~separable_curves(quadratic).masks([1, 1, 0])).any()


@pytest.mark.parametrize(
    "options",
    [{"scope": "row"}, {"scope": "layer"}, {"scope": "network"}, {"budget": "2:4"}, {"budget": "columns"},
     {"pipeline": "sequential", "scope": "row"}, {"solver": "greedy", "scope": "row"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["mean", "lstm"])
def test_the_joint_method_proves_a_table_and_leaves_its_survivors(kind, options):
    dense, data = Text(kind), texts()
    names = ["words", "out"] if kind == "mean" or "budget" not in options else ["words"]
    sparsity = None if options.get("budget") == "2:4" else 0.5
    result = cbs.prune(dense, data, sparsity=sparsity, layers=names, **options)
    table = result.layers[0]
    assert (table.name, table.solver, table.status) == ("words", "separable", "optimal")
    assert table.bound == pytest.approx(table.value, rel=1e-9)
    mask = result.masks["words"]
    mask = mask if isinstance(mask, torch.Tensor) else torch.from_numpy(mask)
    kept = result.model.words.weight.detach()
    assert torch.equal(kept, torch.where(mask, 0.0, dense.words.weight.detach()))
    if options.get("budget") == "2:4":
        assert bool((mask.reshape(12, -1, 4).sum(dim=2) == 2).all())


@pytest.mark.parametrize("method", ["magnitude", "obd", "obs", "wanda", "obc", "joint"])
def test_no_method_is_better_than_what_is_proven(method):
    result = cbs.prune(Text(), texts(), sparsity=0.5, layers=["words", "out"], method=method, scope="layer")
    best = cbs.prune(Text(), texts(), sparsity=0.5, layers=["words", "out"], scope="layer")
    table, proven = result.layers[0], best.layers[0]
    assert table.kept == 48
    assert table.value >= proven.bound > 0
    assert table.value == pytest.approx(table.measured, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "part"),
    [("obd-exact", "exact Hessian diagonal"), ("elimination", "an Embedding"), ("joint-loss", "an Embedding"),
     ("obd-recursion", "backward recursion"), ("elimination-nonlinear", "measured weight by weight")],
)  # fmt: skip
def test_methods_that_do_not_do_tables_say_so(method, part):
    with pytest.raises(ValueError, match=f"{method}.*'words'.*{part}") as error:
        cbs.prune(Text(), texts(), sparsity=0.5, layers=["words", "out"], method=method)
    assert "\n" not in str(error.value)


def test_a_network_is_pruned_refitted_further_pruned_and_saved_with_a_table(tmp_path):
    dense, data = Text(), texts(120)
    first = cbs.prune(dense, data, sparsity=0.3, layers=["words", "out"], refit="network")
    assert not torch.equal(first.model.words.weight[first.model.words.weight != 0],
                           dense.words.weight[first.model.words.weight != 0])  # fmt: skip
    second = cbs.prune(first.model, data, sparsity=0.6, layers=["words", "out"])
    gone = first.model.words.weight_mask == 0
    assert bool((second.model.words.weight_mask[gone] == 0).all())
    assert second.model.words.weight_mask.eq(0).sum() > gone.sum()
    cbs.export(second, tmp_path / "text.safetensors")
    loaded = cbs.load(tmp_path / "text.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(data[0]), second.model.eval()(data[0]))


def test_neurons_and_quantization_leave_tables_out_in_one_line():
    with pytest.raises(ValueError, match="'words' is an Embedding, whose rows are tokens"):
        cbs.prune(Text(), texts(), sparsity=0.5, layers=["words", "out"], granularity="neurons",
                  method="magnitude")  # fmt: skip
    with pytest.raises(ValueError, match="'words' can't be quantized: it is an Embedding"):
        cbs.quantize(Text(), layers=["words"])
