"""Heavy-tailed starts: variances, which axis has the scales, layouts, tails, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.utils import parametrizations

from tailor.errors import UsageError
from tailor.numerics.nodes import Equal, Horseshoe, InverseGamma
from tailor.stages.initialize import StableWeights, heavy_tailed_


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spread(weight, axis):
    """Standard deviation over an axis of the mean of log |w| along all others.

    That of log sqrt(lambda) is pi/2 for the horseshoe; that of n normal values is 1.1 / sqrt(n).
    """
    logs = weight.detach().double().abs().log().transpose(0, axis).flatten(1)
    return float(logs.mean(dim=1).std())


def assert_only_one_axis_is_uneven(weight, uneven, even):
    assert spread(weight, uneven) > 1
    assert spread(weight, even) < 0.3


@pytest.mark.parametrize("nodes", ["columns", "rows"])
def test_equal_scales_give_independent_normal_weights_of_variance_one_over_fan_in(nodes):
    layer = nn.Linear(200, 300)
    bias = layer.bias.detach().clone()
    heavy_tailed_(layer, Equal(), generator=generator(), gain=1.5, nodes=nodes)
    normal = layer.weight.detach().flatten().numpy() * math.sqrt(200) / 1.5
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert torch.equal(layer.bias, bias)


def test_columns_have_the_scales_that_the_law_draws():
    weight = torch.empty(4000, 30, dtype=torch.float64)
    heavy_tailed_(weight, Horseshoe(), generator=generator(7))
    scales = Horseshoe().sample(30, generator(7))  # drawn before the normal values
    ratio = weight.square().mean(dim=0) / scales
    assert torch.all((ratio - 1).abs() < 5 * math.sqrt(2 / 4000))


def test_rows_have_p_times_the_scales_over_the_fan_in():
    weight = torch.empty(30, 4000, dtype=torch.float64)
    heavy_tailed_(weight, Horseshoe(), generator=generator(7), nodes="rows")
    scales = Horseshoe().sample(30, generator(7))
    ratio = weight.square().sum(dim=1) / (30 * scales)
    assert torch.all((ratio - 1).abs() < 5 * math.sqrt(2 / 4000))


@pytest.mark.parametrize(
    ("layer", "columns", "rows"),
    [
        (nn.Linear(60, 80), 1, 0),
        (nn.Conv2d(40, 50, 3), 1, 0),
        (nn.Conv1d(40, 50, 5), 1, 0),
        (nn.ConvTranspose2d(40, 50, 3), 0, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_nodes_of_a_layer_are_on_the_axis_asked(layer, columns, rows):
    heavy_tailed_(layer, Horseshoe(), generator=generator())
    assert_only_one_axis_is_uneven(layer.weight, columns, rows)
    heavy_tailed_(layer, Horseshoe(), generator=generator(), nodes="rows")
    assert_only_one_axis_is_uneven(layer.weight, rows, columns)


@pytest.mark.parametrize("nodes", ["columns", "rows"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 12, 3, groups=4, bias=False),
        nn.ConvTranspose1d(8, 12, 3, groups=2, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
    ],
    ids=["grouped", "transposed", "depthwise"],
)
def test_grouped_convolutions_have_variance_one_over_fan_in(layer, nodes):
    x = torch.ones(1, 8, *[9] * (layer.weight.ndim - 2))
    squares = []
    for seed in range(200):
        heavy_tailed_(layer, Equal(), generator=generator(seed), nodes=nodes)
        out = layer(x).detach()[0]
        squares.append(out.flatten(1)[:, out[0].numel() // 2].square().mean())
    # Each output adds fan_in values of variance 1 / fan_in.
    tolerance = 5 * math.sqrt(2 / (200 * len(out)))
    assert float(torch.stack(squares).mean()) == pytest.approx(1, abs=tolerance)


def test_each_group_has_scales_of_its_own():
    layer = nn.Conv1d(400, 800, 1, groups=2)
    heavy_tailed_(layer, Horseshoe(), generator=generator())
    first, second = layer.weight.detach()[..., 0].split(400)
    scales = Horseshoe().sample(400, generator())
    for part, expected in ((first, scales[:200]), (second, scales[200:])):
        ratio = part.double().square().mean(dim=0) / (2 * expected)
        assert torch.all((ratio - 1).abs() < 5 * math.sqrt(2 / 400))


def test_a_network_keeps_even_inputs_or_even_outputs():
    def network():
        return nn.Sequential(nn.Linear(50, 60), nn.ReLU(), nn.Linear(60, 70), nn.Linear(70, 40))

    model = network()
    heavy_tailed_(model, Horseshoe(), generator=generator())
    first, second, third = (p for p in model.parameters() if p.ndim == 2)
    assert spread(first, 1) < 0.3
    assert_only_one_axis_is_uneven(second, 1, 0)
    assert_only_one_axis_is_uneven(third, 1, 0)

    model = network()
    heavy_tailed_(model, Horseshoe(), generator=generator(), nodes="rows")
    first, second, third = (p for p in model.parameters() if p.ndim == 2)
    assert_only_one_axis_is_uneven(first, 0, 1)
    assert_only_one_axis_is_uneven(second, 0, 1)
    assert spread(third, 0) < 0.3


def test_a_tied_weight_is_drawn_once():
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    model[1].weight = model[0].weight
    heavy_tailed_(model, Horseshoe(), generator=generator())
    alone = torch.empty(20, 20)
    heavy_tailed_(alone, Horseshoe(), generator=generator())
    assert torch.equal(model[0].weight, alone)


@pytest.mark.parametrize("alpha", [2.0, 1.5, 1.0])
def test_stable_weights_have_their_characteristic_function(alpha):
    layer = nn.Linear(100, 400)
    heavy_tailed_(layer, StableWeights(alpha=alpha), generator=generator(), gain=2.0)
    standard = layer.weight.detach().double().numpy() * 100 ** (1 / alpha) / 2 * math.sqrt(2)
    for t in (0.3, 1.0, 2.0):
        seen = np.cos(t * standard)
        expected = math.exp(-(t**alpha))
        assert seen.mean() == pytest.approx(expected, abs=4 * seen.std() / 200)


def test_stable_weights_are_heavy_tailed_in_every_row_of_a_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 300, 3))
    heavy_tailed_(model, StableWeights(alpha=1.0), generator=generator())
    standard = model[1].weight.detach().double().flatten().numpy() * 72 * math.sqrt(2)
    assert stats.kstest(standard, "cauchy").pvalue > 1e-3


def test_the_generator_decides_and_the_type_stays():
    made = []
    for seed in (1, 1, 2):
        weight = torch.empty(6, 5, dtype=torch.bfloat16)
        heavy_tailed_(weight, InverseGamma(shape=0.7), generator=generator(seed))
        made.append(weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].dtype == torch.bfloat16
    torch.manual_seed(0)  # nothing of torch's own state is used
    before = torch.get_rng_state()
    heavy_tailed_(made[0], Horseshoe(), generator=generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_unfit_targets_are_refused():
    cases = [
        (torch.empty(5), r"weight has shape \(5,\) and type float32"),
        (torch.empty(5, 0), "entries"),
        (torch.ones(5, 5, dtype=torch.int64), "type int64"),
        (torch.empty(5, 5, device="meta"), "no memory yet"),
        (nn.LazyLinear(4), "no memory yet"),
        (nn.LayerNorm(4), "LayerNorm holds no linear layer"),
        (parametrizations.weight_norm(nn.Linear(3, 3)), "weight is computed by a parametrization"),
    ]
    for target, message in cases:
        with pytest.raises(UsageError, match=message):
            heavy_tailed_(target, Horseshoe(), generator=generator())


def test_unfit_settings_are_refused():
    weight = torch.zeros(3, 3)
    with pytest.raises(UsageError, match='nodes must be "columns" or "rows", but is '):
        heavy_tailed_(weight, Horseshoe(), generator=generator(), nodes="column")
    for gain in (0.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="gain must be positive and finite"):
            heavy_tailed_(weight, Horseshoe(), generator=generator(), gain=gain)
    for alpha in (0.0, 2.1, math.nan):
        with pytest.raises(UsageError, match=r"alpha in \(0, 2\]"):
            StableWeights(alpha=alpha)
    with pytest.raises(UsageError, match="too large for float16"):
        heavy_tailed_(weight.half(), StableWeights(alpha=0.1), generator=generator())
    assert torch.equal(weight, torch.zeros(3, 3))
