"""Two thin layers for one: the best weights, the best outputs, and what stays as it is."""

import copy

import pytest
import torch
from torch import nn

from tailor.errors import NonFinite, UsageError
from tailor.stages.factorize import factorize
from tailor.stages.inputs import Inputs, collect
from tailor.weights.source import read


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 40),
        nn.Tanh(),
        nn.Linear(40, 30, bias=False),
    )


def low_rank(model: nn.Module, rank: int) -> nn.Module:
    """The same network, the weights of which have that rank."""
    with torch.no_grad():
        for weight in (one for one in model.parameters() if one.ndim > 1):
            U, S, Vh = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
            weight.copy_(((U[:, :rank] * S[:rank]) @ Vh[:rank]).reshape(weight.shape))
    return model


def test_a_network_of_low_rank_computes_the_same():
    model = low_rank(network(), 4)
    x = torch.randn(6, 3, 8, 8)
    made = factorize(model, rank=4).model
    torch.testing.assert_close(made(x), model(x), rtol=1e-5, atol=1e-5)
    assert [tuple(p.shape) for p in made.parameters()] == [
        *((4, 3, 3, 3), (16, 4, 1, 1), (16,)),
        *((4, 256), (40, 4), (40,)),
        *((4, 40), (30, 4)),
    ]
    assert type(made[3]) is nn.Sequential
    assert (made[0][0].stride, made[0][0].padding) == ((2, 2), (1, 1))


def test_the_error_is_that_of_eckart_and_young():
    model = network()
    found = factorize(model, rank=5)
    assert [row.name for row in found.report] == ["0.weight", "3.weight", "5.weight"]
    for row, layer in zip(found.report, read(model).layers, strict=True):
        values = torch.linalg.svdvals(layer.load().detach().double().flatten(1)).square()
        expected = float((values[5:].sum() / values.sum()).sqrt())
        assert row.weight_error == pytest.approx(expected, abs=1e-5)
        assert row.output_error is None
        out, entries = layer.shape[0], layer.load().numel()
        assert (row.before, row.after) == (entries, 5 * (out + entries // out))


@pytest.mark.parametrize("center", ["none", "median"])
@pytest.mark.parametrize("asked", [{"energy": 0.6}, {"error": 0.5}, {"params": 0.4}])
def test_the_rank_is_the_least_that_does_what_was_asked(center, asked):
    model = network()
    found = factorize(model, **asked, center=center)
    limits = {"0.weight": 16 * 27 / 43, "3.weight": 256 * 40 / 296, "5.weight": 1200 / 70}
    assert len(found.report) == 3
    for row in found.report:
        if "params" in asked:
            assert row.rank == int(0.4 * limits[row.name])
            continue
        bound = 0.5 if "error" in asked else 0.4**0.5
        assert row.weight_error <= bound + 1e-6
        less = factorize(model, rank=row.rank - 1, layers=row.name, center=center)
        assert less.report[0].weight_error > bound


def test_ranks_by_name():
    found = factorize(network(), rank={"3.weight": 7})
    assert [(row.name, row.rank) for row in found.report] == [("3.weight", 7)]
    assert {one.reason for one in found.left_alone} == {"no rank was given for it"}
    with pytest.raises(UsageError, match=r"given for 4.weight.*these can: 0.weight, 3.weight"):
        factorize(network(), rank={"4.weight": 7})


def test_a_rank_has_to_save_something():
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 30))  # mn / (m + n) = 10 and 12
    found = factorize(model, rank=10)
    assert [row.name for row in found.report] == ["1.weight"]
    assert found.left_alone[0].reason == "rank 10 takes 400 parameters, and the matrix has 400"


def test_the_medians_of_columns_are_kept_exactly():
    """A matrix of equal rows far from zero needs no more than them."""
    model = nn.Linear(20, 30)
    with torch.no_grad():
        model.weight.copy_(torch.arange(20.0) + 5)
    x = torch.randn(4, 20)
    found = factorize(model, rank=1, center="median")
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-5, atol=1e-4)
    assert found.report[0].weight_error < 1e-7


def correlated(columns: int, count: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(columns, columns, generator=generator)
    scale = torch.logspace(0, -2, columns)
    return torch.randn(count, columns, generator=generator) * scale @ mix


@pytest.mark.parametrize("sides", [(30, 20), (20, 30)])
def test_outputs_lose_what_no_product_of_the_rank_can_keep(sides):
    model = nn.Linear(*sides, bias=False)
    x = correlated(sides[0])
    inputs = collect(model, [x], gram="*")
    found = factorize(model, rank=4, inputs=inputs, damp=0.0)
    with torch.no_grad():
        values = torch.linalg.svdvals(model(x).double()).square()
        lost = torch.linalg.matrix_norm((found.model(x) - model(x)).double()).square()
    assert float(lost) == pytest.approx(float(values[4:].sum()), rel=1e-3)
    best = float((values[4:].sum() / values.sum()).sqrt())
    assert found.report[0].output_error == pytest.approx(best, rel=1e-3)
    plain = factorize(model, rank=4).report[0]
    assert found.report[0].weight_error > plain.weight_error
    damped = factorize(model, rank=4, inputs=inputs).report[0]
    assert damped.output_error == pytest.approx(best, rel=0.1)


def test_much_damping_is_to_look_at_the_weights_alone():
    model = nn.Linear(30, 20)
    inputs = collect(model, [correlated(30)], gram="*")
    found = factorize(model, rank=4, inputs=inputs, damp=1e9).report[0]
    assert found.weight_error == pytest.approx(
        factorize(model, rank=4).report[0].weight_error, rel=1e-4
    )


def test_patches_of_a_convolution_count():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False))
    x = torch.randn(4, 3, 6, 6) + torch.randn(4, 3, 1, 1)
    found = factorize(model, rank=3, inputs=collect(model, [x], gram="*"), damp=0.0)
    with torch.no_grad():
        y = model(x).transpose(0, 1).flatten(1).double()
        low = found.model(x).transpose(0, 1).flatten(1).double()
    values = torch.linalg.svdvals(y).square()
    assert float((y - low).square().sum()) == pytest.approx(float(values[3:].sum()), rel=1e-3)


def test_bounds_on_outputs_are_kept():
    model = network()
    inputs = collect(model, [torch.randn(600, 3, 8, 8)], gram="*")
    found = factorize(model, error=0.4, inputs=inputs, damp=0.0)
    assert {row.output_error <= 0.4 + 1e-5 for row in found.report} == {True}
    less = {row.name: row.rank - 1 for row in found.report}
    tighter = factorize(model, rank=less, inputs=inputs, damp=0.0)
    assert {row.output_error > 0.4 for row in tighter.report} == {True}


def test_few_inputs_are_noted():
    model = nn.Linear(30, 20)
    x = torch.randn(10, 30)
    seen = Inputs(count=10, squares=x.double().square().sum(0), gram=x.double().T @ x.double())
    found = factorize(model, rank=10, inputs={"weight": seen}).report[0]
    assert "10 inputs tell little about 30 columns" in found.note
    assert found.output_error < 0.1


class Doubled(nn.Linear):
    """Computes something else than its class."""

    def forward(self, x):
        return 2 * super().forward(x)


class Odd(nn.Module):
    """One of everything that has to stay."""

    def __init__(self):
        super().__init__()
        self.good = nn.Linear(20, 20)
        self.subclass = Doubled(20, 20)
        self.first, self.second = nn.Linear(20, 20), nn.Linear(20, 20)
        self.second.weight = self.first.weight
        self.shared = self.again = nn.Linear(20, 20)
        self.hooked = nn.Linear(20, 20)
        self.hooked.register_forward_hook(lambda *_: None)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(20, 20))
        self.grouped = nn.Conv2d(8, 8, 5, groups=2)
        self.zero = nn.Linear(20, 20)
        nn.init.zeros_(self.zero.weight)
        self.narrow = nn.Linear(20, 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 40)
        self.table = nn.Embedding(20, 20)


REASONS = {
    "subclass.weight": "Doubled is not nn.Linear or nn.Conv2d",
    "first.weight": "tied with second.weight",
    "again.weight": "tied with shared.weight",
    "hooked.weight": "the module has hooks",
    "weighted.weight": "a parametrization",
    "grouped.weight": "a convolution of 2 groups",
    "zero.weight": "all its weights are zero",
    "narrow.weight": "rank 4 takes 92 parameters, and the matrix has 60",
    "block.self_attn.in_proj_weight": "not the weight of an nn.Linear or nn.Conv2d",
    "block.linear1.weight": "TransformerEncoderLayer reads the weight",
    "table.weight": "Embedding is not nn.Linear",
}


def test_what_cannot_be_replaced_stays_with_a_reason():
    model = Odd()
    found = factorize(model, rank=4)
    assert [row.name for row in found.report] == ["good.weight"]
    said = {one.name: one.reason for one in found.left_alone}
    assert set(said) == {one.name for one in read(model).layers} - {"good.weight"}
    for name, reason in REASONS.items():
        assert said[name].startswith(reason)


def test_the_model_its_modes_and_the_random_state_stay():
    model = network()
    model[3].eval()
    model[3].weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    made = factorize(model, rank=3).model
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert type(model[3]) is nn.Linear
    assert [one.training for one in made] == [one.training for one in model]
    assert not made[3][1].training
    assert [p.requires_grad for p in made[3].parameters()] == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_kept(dtype):
    model = low_rank(nn.Linear(20, 30), 2).to(dtype)
    found = factorize(model, rank=2)
    assert {p.dtype for p in found.model.parameters()} == {dtype}
    assert found.report[0].weight_error < (1e-7 if dtype == torch.float64 else 0.02)


def test_only_layers_that_were_asked_for():
    found = factorize(network(), rank=3, layers="*.weight", skip=("0.*", "5.*"))
    assert [row.name for row in found.report] == ["3.weight"]
    assert found.left_alone == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one of rank, params, energy and error"),
        ({"rank": 3, "error": 0.1}, "exactly one"),
        ({"rank": 0}, "rank must be a whole number from 1"),
        ({"rank": {"0.weight": 0}}, "rank must be a whole number from 1"),
        ({"rank": True}, "rank must be a whole number from 1"),
        ({"energy": 1.0}, "energy must lie between 0 and 1, but is 1.0"),
        ({"error": float("nan")}, "error must lie between 0 and 1, but is nan"),
        ({"params": 0.0}, "params must lie between 0 and 1"),
        ({"rank": 3, "damp": -1.0}, "damp must not be negative"),
        ({"rank": 3, "layers": "none*"}, "factorize: "),
        ({"rank": 3, "inputs": {}}, "no inputs of 0.weight: the data never reached it"),
    ],
)
def test_bad_arguments_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        factorize(network(), **given)


def test_bad_inputs_are_refused():
    model = nn.Linear(6, 20)
    squares = torch.ones(6, dtype=torch.float64)
    with pytest.raises(UsageError, match="Gram matrix of the 6 inputs of weight, but got none"):
        factorize(model, rank=1, inputs={"weight": Inputs(count=9, squares=squares)})
    wrong = Inputs(count=9, squares=squares[:3], gram=torch.eye(3, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"got one of shape \(3, 3\)"):
        factorize(model, rank=1, inputs={"weight": wrong})
    infinite = torch.full((6, 6), torch.inf, dtype=torch.float64)
    seen = Inputs(count=9, squares=squares, gram=infinite)
    with pytest.raises(NonFinite, match="Gram matrix of weight holds NaN or infinite"):
        factorize(model, rank=1, inputs={"weight": seen})
    nothing = Inputs(count=9, squares=0 * squares, gram=0 * torch.eye(6, dtype=torch.float64))
    found = factorize(model, rank=1, inputs={"weight": nothing})
    assert found.left_alone[0].reason == "all that it saw is zero"


def test_models_that_cannot_be_factorized_are_refused():
    broken = nn.Linear(9, 9)
    with torch.no_grad():
        broken.weight[2, 3] = torch.nan
    with pytest.raises(NonFinite, match="weight holds 1 NaN or infinite values"):
        factorize(broken, rank=1)
    masked = nn.utils.prune.l1_unstructured(nn.Linear(9, 9), "weight", amount=3)
    with pytest.raises(UsageError, match=r"masked by torch.nn.utils.prune; .*prune.remove"):
        factorize(masked, rank=1)
    with pytest.raises(UsageError, match=r"found no nn.Linear or nn.Conv2d .*Embedding"):
        factorize(nn.Embedding(9, 9), rank=1)
