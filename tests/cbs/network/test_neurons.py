from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.layers import find_layers
from cbs.network.network import Network
from cbs.network.neurons import OUTPUTS, Neurons, least, neurons_of
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


class Residual(nn.Module):
    """A stem, a block around which its channels are added up, and a head on the mean of positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.slope = nn.Conv2d(4, 3, 3, padding=1), nn.PReLU(3)
        self.outer = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(self.slope(self.inner(x)))
        return self.head(x.mean(dim=(2, 3)))


class Custom(nn.Module):
    """Named layers, and a function of these and the inputs."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.double().eval()

    def forward(self, x):
        return self.run(self, x)


def two(run, **more):
    return Custom(run, a=nn.Linear(6, 4), b=nn.Linear(4, 3), **more)


def found(model, data):
    return neurons_of(model, find_layers(model), data.first(4))


def expected(group, rows, columns, norms=()):
    assert list(group.rows) == list(rows)
    assert all((group.rows[name] == np.arange(group.count)).all() for name in rows)
    assert group.columns.keys() == columns.keys()
    for name, width in columns.items():
        assert (group.columns[name] == np.arange(group.count * width).reshape(group.count, width)).all()
    assert list(group.norms) == list(norms)


def test_a_chain_has_a_group_for_every_hidden_layer():
    first, second = found(seeded(mlp), samples()).groups
    expected(first, ["0"], {"2": 1})
    expected(second, ["2"], {"4": 1})
    assert found(seeded(mlp), samples()).left_out == {"4": OUTPUTS}


def test_channels_have_norms_kernels_and_maps():
    first, second = found(seeded(convnet), image_samples()).groups
    expected(first, ["0"], {"3": 4}, ["1"])
    expected(second, ["3"], {"6": 12})


def test_what_is_added_up_goes_together():
    first, second = found(seeded(Residual), image_samples()).groups
    expected(first, ["stem", "outer"], {"inner": 9, "head": 1}, ["norm"])
    expected(second, ["inner"], {"outer": 1}, ["slope"])


def test_what_is_laid_side_by_side_keeps_its_place():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.c(torch.cat([torch.tanh(m.b(x)), torch.tanh(m.a(x))], dim=1)),
        a=nn.Linear(6, 4), b=nn.Linear(6, 2), c=nn.Linear(6, 3),
    )  # fmt: skip
    first, second = found(seeded(make), samples()).groups
    assert first.name == "a"
    assert first.columns["c"].ravel().tolist() == [2, 3, 4, 5]
    assert second.name == "b"
    assert second.columns["c"].ravel().tolist() == [0, 1]


def test_a_layer_that_runs_twice_is_row_and_column():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.b(torch.tanh(m.a(x))))))),
        a=nn.Linear(6, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 3),
    )  # fmt: skip
    (group,) = found(seeded(make), samples()).groups
    expected(group, ["a", "b"], {"b": 1, "c": 1})


def norm_between(m, x):
    return m.b(m.norm(m.a(x)))


REFUSED = {
    "layer norm": (lambda: two(norm_between, norm=nn.LayerNorm(4)), "LayerNorm"),
    "group norm": (lambda: two(norm_between, norm=nn.GroupNorm(2, 4)), "GroupNorm"),
    "softmax": (lambda: two(lambda m, x: m.b(torch.softmax(m.a(x), dim=1))), "outputs depend on it"),
    "functional norm": (lambda: two(lambda m, x: m.b(F.layer_norm(m.a(x), (4,)))), "outputs depend on it"),
    "skipped": (lambda: two(lambda m, x: m.b(h := m.a(x)) + h.sum(dim=1, keepdim=True)), ""),
    "mixed up": (lambda: two(lambda m, x: m.b(torch.tanh(m.a(x)).flip(1))), "outputs depend on it"),
    "halves added up": (
        lambda: Custom(
            lambda m, x: m.b((h := m.a(x))[:, :2] + h[:, 2:]), a=nn.Linear(6, 4), b=nn.Linear(2, 3)
        ),
        "",
    ),
    "gates": (
        lambda: Custom(lambda m, x: m.b(F.glu(m.a(x), dim=1)), a=nn.Linear(6, 8), b=nn.Linear(4, 3)),
        "",
    ),
    "parameter": (
        lambda: two(lambda m, x: m.b(m.a(x) * m.scale), scale=nn.Parameter(torch.ones(4))),
        "parameter",
    ),
    "recurrent": (
        lambda: two(lambda m, x: m.b(m.rnn(m.a(x)[:, None])[0][:, 0]), rnn=nn.RNN(4, 4)),
        "parameter",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_understood_is_left_out_with_a_reason(make, why):
    result = found(seeded(make), samples())
    assert result.groups == []
    assert why in result.left_out["a"]
    assert "\n" not in result.left_out["a"]


def test_grouped_convolutions_are_left_out():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.c(m.b(m.a(x)).flatten(1)),
        a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 4, 1, groups=2), c=nn.Linear(32, 3),
    )  # fmt: skip
    result = found(seeded(make), image_samples())
    assert result.groups == []
    assert "'b'" in result.left_out["a"]


def test_a_map_that_is_flattened_the_other_way_round_is_left_out():
    """The tracer takes it for one that is flattened channel by channel, which the trial finds out."""
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.b(torch.tanh(m.a(x)).permute(0, 2, 3, 1).flatten(1)),
        a=nn.Conv2d(2, 4, 3), b=nn.Linear(32, 3),
    )  # fmt: skip
    result = found(seeded(make), image_samples())
    assert result.groups == []
    assert "outputs depend on it" in result.left_out["a"]


def test_shortcuts_that_are_padded_stay_and_the_rest_goes():
    def block(m, x):
        y = torch.tanh(m.a(x))
        return m.d((m.c(torch.tanh(m.b(y))) + F.pad(y, (0, 0, 0, 0, 1, 1))).mean((2, 3)))

    make = lambda: Custom(  # noqa: E731
        block,
        a=nn.Conv2d(2, 2, 1), b=nn.Conv2d(2, 5, 1), c=nn.Conv2d(5, 4, 1), d=nn.Linear(4, 3),
    )  # fmt: skip
    result = found(seeded(make), image_samples())
    (group,) = result.groups
    expected(group, ["b"], {"c": 1})
    assert result.left_out.keys() == {"a", "c", "d"}


def test_tokens_have_hidden_units_too():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.d((x + m.c(F.gelu(m.b(m.norm(m.a(x)))))).mean(1)),
        norm=nn.LayerNorm(5), a=nn.Linear(6, 5), b=nn.Linear(5, 7), c=nn.Linear(7, 6), d=nn.Linear(6, 3),
    )  # fmt: skip
    groups = {group.name: group for group in found(seeded(make), samples(12, (4, 6))).groups}
    expected(groups["b"], ["b"], {"c": 1})
    assert "a" not in groups


def test_layers_that_are_not_pruned_keep_their_groups():
    model = seeded(mlp)
    result = neurons_of(model, find_layers(model, ["0", "2"]), samples().first(4))
    assert [group.name for group in result.groups] == ["0"]
    assert result.left_out == {"2": "'4' hangs on it, which is not among the layers to prune"}


@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples()), (convnet, image_samples()), (Residual, image_samples())]
)
@torch.no_grad()
def test_outputs_do_not_depend_on_a_neuron_whose_columns_are_zero(make, data):
    model = seeded(make)
    generator = torch.Generator().manual_seed(1)
    for group in found(model, data).groups:
        for j in range(group.count):
            trial = seeded(make)
            for name, columns in group.columns.items():
                trial.get_submodule(name).weight.flatten(1)[:, columns[j]] = 0
            before = trial(data.inputs)
            assert not torch.allclose(before, model(data.inputs))
            for name, rows in (*group.rows.items(), *group.norms.items()):
                for values in trial.get_submodule(name).parameters():
                    values[rows[j]] += torch.randn(values[0].shape, generator=generator, dtype=values.dtype)
            for name, columns in group.columns.items():
                trial.get_submodule(name).weight.flatten(1)[:, columns[j]] = 0
            torch.testing.assert_close(trial(data.inputs), before, rtol=1e-12, atol=1e-12)


def test_the_network_is_left_as_it_was():
    model = seeded(convnet)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    found(model, image_samples())
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_rows_that_stay_are_told_of_but_for_outputs():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.c(torch.softmax(m.b(torch.tanh(m.a(x))), dim=1)),
        a=nn.Linear(6, 4), b=nn.Linear(4, 5), c=nn.Linear(5, 3),
    )  # fmt: skip
    with pytest.warns(cbs.LeftOut, match=r"^neurons that stay: 'b' \(outputs depend on it .*\)$"):
        assert [group.name for group in Network(seeded(make), samples()).neurons] == ["a"]


def test_a_network_without_neurons_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"has no neuron that can be removed.*prune its weights") as error:
        _ = Network(seeded(mlp, sizes=(6, 3)), samples()).neurons
    assert "\n" not in str(error.value)


def test_gone_are_neurons_that_feed_nothing():
    group = Neurons(
        "a", 3, {"a": np.arange(3)}, {"b": np.arange(6).reshape(3, 2), "c": np.arange(3)[:, None]}
    )
    b, c = np.zeros((4, 6), bool), np.zeros((2, 3), bool)
    b[:, 2:6] = c[:, 1] = True
    assert group.gone({"b": b, "c": c}).tolist() == [False, True, False]
    b[1, 2] = False
    assert group.gone({"b": b, "c": c}).tolist() == [False, False, False]


def test_least_leaves_one_of_each():
    scores, none = [np.array([1.0, 2.0, 3.0]), np.array([9.0, 8.0])], [np.zeros(3, bool), np.zeros(2, bool)]
    assert [m.tolist() for m in least(scores, [2, 1], none)] == [[True, True, False], [False, True]]
    assert [m.tolist() for m in least(scores, 3, none)] == [[True, True, False], [False, True]]
    gone = [np.array([False, False, True]), np.zeros(2, bool)]
    assert [m.tolist() for m in least(scores, [1, 1], gone)] == [[False, False, True], [False, True]]
    assert [m.tolist() for m in least(scores, 1, gone)] == [[False, False, True], [False, False]]


class Sequences(nn.Module):
    """A recurrent layer, and a chain of `Linear` behind it."""

    def __init__(self):
        super().__init__()
        self.rnn, self.a, self.b = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.b(self.a(self.rnn(x)[0][:, -1]).relu())


def test_neurons_beside_a_recurrent_layer_go_and_its_own_stay():
    model, data = seeded(lambda: Sequences().double()), samples(60, (5, 4))
    with pytest.warns(UserWarning, match="'rnn.l0.gates' .it is a part of a module that is no single matrix"):
        result = cbs.prune(model, data, sparsity=0.5, method="magnitude", granularity="neurons")
    assert [(group.name, len(group.neurons), group.stays) for group in result.neurons] == [("a", 5, None)]
    small = result.permanent()
    assert type(small.rnn) is nn.LSTM
    assert small.a.out_features == 5
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-10, atol=1e-12)


def test_channels_of_convolutions_along_one_dimension_are_taken_out():
    model = seeded(
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 2), nn.ReLU(),
                              nn.Flatten(), nn.Linear(24, 3)).double()
    )  # fmt: skip
    data = samples(40, (4, 7))
    result = cbs.prune(model.eval(), data, sparsity=0.5, method="obd", granularity="neurons", scope="layer")
    small = result.permanent()
    assert (small[0].out_channels, small[3].in_channels, small[3].out_channels) == (4, 4, 3)
    assert small[6].in_features == 12
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-10, atol=1e-12)


def test_answers_that_are_dataclasses_are_followed():
    @dataclass
    class Out:
        loss: object
        logits: torch.Tensor

    model = Custom(lambda m, x: Out(None, m.b(torch.tanh(m.a(x)))), a=nn.Linear(6, 5), b=nn.Linear(5, 3))
    result = cbs.prune(
        model, samples(), method="neuron-joint", granularity="neurons", sparsity=0.4, certify=False
    )
    small, x = result.permanent(), samples().inputs
    assert small.a.out_features == 3
    torch.testing.assert_close(small(x).logits, result.model(x).logits)
