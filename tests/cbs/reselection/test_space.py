import torch
from torch import nn

from cbs.network.surgery import clone, put_mask
from cbs.reselection.space import find_space
from tests.cbs.networks import convnet, mlp, seeded


def masked(model, names, drop=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        module = model.get_submodule(name)
        put_mask(module, "weight", torch.rand(module.weight.shape, generator=generator) < drop)
    return model


def space_of(model, names, earlier=None, keep=5):
    plain = clone(model)
    pools = {name: torch.zeros_like(model.get_submodule(name).weight, dtype=torch.int64) for name in names}
    return plain, *find_space(model, plain, names, earlier or {}, pools, torch.tensor([keep]))


def test_the_space_has_all_weights_of_masked_layers_and_what_only_moves():
    model = masked(seeded(convnet), ["0", "3", "6"])
    plain, space, kept = space_of(model, ["0", "3", "6"])
    sizes = {name: p.numel() for name, p in plain.named_parameters()}
    assert {part.name: part.count for part in space.movable.parts} == sizes  # norm and biases too
    weights = sum(sizes[f"{name}.weight"] for name in ("0", "3", "6"))
    assert int(space.prunable.sum()) == weights
    assert int((kept & space.prunable).sum()) == sum(
        int(model.get_submodule(name).weight_mask.sum()) for name in ("0", "3", "6")
    )
    assert space.counts(kept).tolist() == [int((kept & space.prunable).sum())]


def test_what_was_pruned_earlier_is_no_part_of_it():
    model = masked(seeded(mlp), ["0", "2", "4"])
    gone = torch.zeros_like(model[2].weight, dtype=torch.bool)
    gone[1] = True
    _, space, _ = space_of(model, ["0", "2", "4"], earlier={"2": gone})
    (part,) = [part for part in space.movable.parts if part.name == "2.weight"]
    assert set(part.index.tolist()).isdisjoint(gone.reshape(-1).nonzero()[:, 0].tolist())
    assert part.count == int((~gone).sum())


def test_a_part_of_it_runs_the_same_network():
    model = masked(seeded(mlp), ["0", "2", "4"])
    plain, space, kept = space_of(model, ["0", "2", "4"])
    vector = torch.where(kept, space.movable.vector(space.movable.base), 0.0) * 1.5
    x = torch.randn(3, 6, dtype=torch.float64)
    whole = torch.func.functional_call(plain, space.movable.parameters(vector), (x,))
    chosen = kept.clone()
    chosen[::3] = False
    some = space.at(vector, chosen)
    assert some.count == int(chosen.sum())
    moved = torch.func.functional_call(
        plain, {**space.movable.parameters(vector), **some.parameters(vector[chosen])}, (x,)
    )
    torch.testing.assert_close(moved, whole, rtol=0, atol=0)


def test_a_layer_that_is_its_own_network():
    model = masked(nn.Sequential(nn.Linear(4, 3)).double(), ["0"])
    _, space, kept = space_of(model, ["0"], keep=2)
    assert (len(kept), space.keep.tolist()) == (15, [2])
