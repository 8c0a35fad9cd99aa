"""Quantising: codes that decode to what was rounded, bit for bit, and errors that hold."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from tailor.errors import NonFinite, UsageError
from tailor.numerics.codebooks import Ranked, kmeans, kmeans_error
from tailor.numerics.coding import Codebook, Grid
from tailor.numerics.powerlaw import NoFit
from tailor.stages.compress.quantize import (
    KMeans,
    Shortest,
    Uniform,
    UniformStep,
    decoded,
    quantize,
    quantize_layer,
)
from tailor.stages.modules import LeftAlone
from tailor.weights.source import read

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
QUANTIZERS = [
    Uniform(top=3),
    Uniform(top=40),
    UniformStep(tolerance=0.01),
    UniformStep(bits=4),
    UniformStep(entropy=2.5),
    UniformStep(step=0.003),
    KMeans(levels=5),
    KMeans(levels=300),
    KMeans(bits=3),
    KMeans(tolerance=0.01),
    Shortest(),
    Shortest(bits=4),
]


def heavy(seed, *shape, index=3.0, scale=0.02):
    drawn = np.random.default_rng(seed).standard_t(index, shape)
    return torch.as_tensor(scale * drawn, dtype=torch.float32)


def assert_same_bits(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    flat = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    assert torch.equal(*flat)


def relative(weights, rounded):
    wide, lost = weights.double(), (rounded.double() - weights.double())
    return float(lost.square().sum() / wide.square().sum())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_a_code_decodes_to_what_was_rounded(quantizer, dtype):
    weights = heavy(0, 30, 20, 3).to(dtype).transpose(0, 1)  # not contiguous
    weights[:4] = 0
    fitted = quantizer.fit(weights)
    rounded = fitted.round(weights)
    assert_same_bits(decoded(fitted.code(weights), dtype), rounded)
    assert_same_bits(fitted.round(rounded), rounded)  # what is a value stays one
    assert int((rounded[:4] != 0).sum()) == 0
    assert not bool(torch.signbit(rounded[rounded == 0]).any())
    assert bool(torch.isfinite(rounded).all())


@settings(max_examples=25)
@given(
    st.sampled_from([UniformStep, KMeans, Shortest]),
    st.sampled_from(TYPES),
    st.floats(1e-4, 0.5),
    st.floats(0.8, 8),
    st.integers(1, 400),
)
def test_the_error_of_a_tensor_stays_within_the_tolerance(make, dtype, tolerance, index, size):
    weights = heavy(size, 2, size, index=index).clamp(-65504, 65504).to(dtype)
    if bool((weights != 0).any()):
        fitted = make(tolerance=tolerance).fit(weights)
        assert relative(weights, fitted.round(weights)) <= tolerance


@pytest.mark.parametrize("levels", [3, 5, 9])
def test_values_of_a_narrow_type_keep_the_tolerance_after_rounding(levels):
    """The means themselves would just do, but the type cannot hold them."""
    weights = heavy(11, 30, 40).to(torch.bfloat16)
    ranked = Ranked.of(weights.float().flatten().numpy())
    tolerance = kmeans_error(ranked, kmeans(ranked, levels)) * (1 + 1e-9)
    fitted = KMeans(tolerance=tolerance).fit(weights)
    assert relative(weights, fitted.round(weights)) <= tolerance
    values = torch.as_tensor(fitted.code(weights).values)
    assert torch.equal(values.to(torch.bfloat16).float(), values)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bits_bound_the_number_of_values(bits):
    weights = heavy(1, 60, 50)
    table, steps = (make(bits=bits).fit(weights).round(weights) for make in (KMeans, UniformStep))
    assert len(table.unique()) == 2**bits
    assert len(steps.unique()) <= 2**bits - 1
    assert len(Shortest(bits=bits).fit(weights).round(weights).unique()) <= 2**bits
    assert relative(weights, table) < relative(weights, steps)


def test_one_bit_is_two_values():
    weights = heavy(2, 40, 40)
    for quantizer in (KMeans(bits=1), Shortest(bits=1)):
        assert len(quantizer.fit(weights).round(weights).unique()) == 2


def test_zeros_that_come_after_the_fit_stay_zero():
    """Retraining may end with dead units, which are then zeroed."""
    weights = heavy(3, 20, 20) + 0.5
    fitted = KMeans(levels=4).fit(weights)
    assert bool((fitted.round(weights) > 0).all())
    dead = weights.clone()
    dead[3] = 0
    coded = fitted.code(dead)
    assert len(coded.values) == 5
    assert_same_bits(decoded(coded, torch.float32), fitted.round(dead))
    assert torch.equal(fitted.round(dead) == 0, dead == 0)
    rest = torch.arange(20) != 3
    assert torch.equal(fitted.round(dead)[rest], fitted.round(weights)[rest])


def test_a_pruned_tensor_keeps_its_zeros_and_gains_none():
    weights = heavy(4, 50, 50)
    weights[weights.abs() < weights.abs().median()] = 0
    for quantizer in (KMeans(tolerance=0.01), UniformStep(tolerance=0.01), Shortest()):
        assert torch.equal(quantizer.fit(weights).round(weights) == 0, weights == 0)


def test_the_largest_half_number_stays_finite():
    weights = torch.tensor([[65504.0, -65504.0, 1.0, 3.0]], dtype=torch.float16)
    for quantizer in (UniformStep(step=50_000), UniformStep(tolerance=0.3), Uniform(top=1)):
        rounded = quantizer.fit(weights).round(weights)
        assert bool(torch.isfinite(rounded).all())
    assert relative(weights, UniformStep(tolerance=0.3).fit(weights).round(weights)) <= 0.3


def test_the_step_of_uniform_is_the_best_of_its_64():
    weights = heavy(5, 40, 30).double()
    for top in (1, 3, 20):
        largest = float(weights.abs().max())
        first, last = (
            (largest / 2 / top, largest) if top <= 8 else (largest / 1.5 / top, largest / top)
        )
        steps = first * (last / first) ** (np.arange(64) / 63)
        lost = [
            float(((weights / s).round().clamp(-top, top) * s - weights).square().sum())
            for s in steps
        ]
        assert Uniform(top=top).fit(weights).step == pytest.approx(
            steps[int(np.argmin(lost))], rel=1 / 256
        )


def test_a_unit_step_is_stored_but_not_trained_with():
    weights = heavy(6, 10, 10)
    plain, unit = (Uniform(top=3, unit_step=one).fit(weights) for one in (False, True))
    assert torch.equal(plain.round(weights), unit.round(weights))
    assert unit.code(weights).step == 1.0
    np.testing.assert_array_equal(unit.code(weights).levels, plain.code(weights).levels)


# The shorter of two codes


def test_a_tensor_around_few_odd_values_gets_a_table():
    draw = np.random.default_rng(0)
    values = draw.uniform(-1, 1, 12)[draw.integers(12, size=(200, 200))]
    weights = torch.as_tensor(values + 0.01 * draw.standard_normal(values.shape))
    coded = Shortest(tolerance=0.001).fit(weights).code(weights)
    assert isinstance(coded, Codebook)
    assert len(coded.values) <= 12
    assert isinstance(Shortest(tolerance=1e-5).fit(weights).code(weights), Grid)


@pytest.mark.parametrize("index", [1.5, 3.0, 30.0])
def test_smooth_laws_get_a_step(index):
    weights = heavy(7, 100, 100, index=index)
    assert isinstance(Shortest(tolerance=0.01).fit(weights).code(weights), Grid)


# Networks


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        hidden = self.norm(self.conv(self.embed(x).transpose(1, 2)))
        return self.head(hidden.transpose(1, 2))


def net():
    torch.manual_seed(0)
    return Net()


def test_a_quantized_network_holds_its_code():
    model = net().eval()
    model.conv.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    found = quantize(model, UniformStep(tolerance=0.02))
    state = found.model.state_dict()
    assert set(found.coded) == {"embed.weight", "conv.weight"}  # the shared one once
    for key, coded in found.coded.items():
        assert_same_bits(decoded(coded, torch.float32), state[key])
    assert found.model.head.weight is found.model.embed.weight
    assert not found.model.training
    assert not found.model.conv.weight.requires_grad
    for key, tensor in before.items():
        assert_same_bits(model.state_dict()[key], tensor)
        if key not in (*found.coded, "head.weight"):
            assert_same_bits(state[key], tensor)


def test_the_report_says_what_was_done():
    model = nn.Sequential(nn.Linear(100, 60), nn.Linear(5, 4), nn.Linear(3, 3))
    with torch.no_grad():
        model[0].weight.copy_(heavy(8, 60, 100, index=2.0))
        model[2].weight.zero_()
    found = quantize(model)
    large, small, zero = found.layers
    weights, rounded = model[0].weight.detach(), found.model[0].weight.detach()
    counts = rounded.unique(return_counts=True)[1].double()
    share = counts / counts.sum()
    assert large.name == large.key == "0.weight"
    assert large.levels == len(counts)
    assert large.bits == pytest.approx(float(-(share * share.log2()).sum()))
    assert large.error == pytest.approx(relative(weights, rounded))
    assert large.error <= 0.01
    assert large.step == found.coded["0.weight"].step
    assert large.predicted.bits == pytest.approx(large.bits, abs=0.1)
    assert large.predicted.tail_index == pytest.approx(2.0, abs=0.3)
    assert isinstance(small.predicted, NoFit)
    assert (zero.error, zero.bits, zero.levels) == (0, 0, 1)
    assert list(found.to_frame()["levels"]) == [large.levels, small.levels, 1]


@pytest.mark.parametrize("quantizer", [UniformStep(tolerance=0.01), KMeans(bits=2), Shortest()])
@pytest.mark.parametrize("weights", [torch.full((4, 5), 0.3), torch.tensor([[1e-20]])])
def test_constant_and_tiny_matrices(quantizer, weights):
    found = quantize(nn.ParameterList([nn.Parameter(weights)]), quantizer)
    assert relative(weights, found.model[0].detach()) <= 0.01


def test_matrices_that_stay_as_they_are():
    model = nn.ParameterDict(
        {"good": nn.Parameter(heavy(9, 8, 8)), "huge": torch.full((2, 2), 1e33)}
    )
    model.register_buffer("whole", torch.ones(3, 3, dtype=torch.int64))
    model.register_buffer("mask", torch.full((3, 3), -torch.inf))
    model.wrapped = parametrizations.weight_norm(nn.Linear(4, 4))
    before = copy.deepcopy(model.state_dict())
    found = quantize(model, layers="*")
    assert list(found.coded) == ["good"]
    said = {one.name: one.reason for one in found.left_alone}
    assert said["mask"] == "a buffer"
    assert "its largest weight is 1e+33" in said["huge"]
    assert "computed anew in each forward pass" in said["wrapped.weight"]
    for key, tensor in found.model.state_dict().items():
        assert key == "good" or torch.equal(tensor, before[key])
    with pytest.raises(UsageError, match=r"no matrix that it can quantise \(huge: its largest"):
        quantize(model, layers="huge")


def test_layers_and_skip():
    found = quantize(net(), layers=["*"], skip="conv*")
    assert list(found.coded) == ["embed.weight"]
    with pytest.raises(UsageError, match="quantize: no layer fits nothing"):
        quantize(net(), layers="nothing")


def test_networks_that_cannot_be_quantised():
    broken = net()
    with torch.no_grad():
        broken.conv.weight[0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(NonFinite, match=r"conv\.weight holds 2 NaN or infinite"):
        quantize(broken)
    masked = net()
    prune.l1_unstructured(masked.conv, "weight", 0.5)
    with pytest.raises(UsageError, match=r"conv is masked by torch\.nn\.utils\.prune"):
        quantize(masked)
    with pytest.raises(UsageError, match=r"conv\.weight: a relative squared error of 1e-15 takes"):
        quantize(net(), UniformStep(tolerance=1e-15))


def test_layers_on_disk_one_at_a_time(tmp_path):
    state = {"a": heavy(10, 30, 30), "b": torch.ones(4, 4, dtype=torch.float8_e5m2)}
    torch.save(state, tmp_path / "weights.pt")
    a, b = (quantize_layer(one, Shortest()) for one in read(tmp_path / "weights.pt").layers)
    coded, said = a
    assert said.name == "a"
    assert relative(state["a"], decoded(coded, torch.float32)) == pytest.approx(said.error)
    assert b == LeftAlone(name="b", reason="stored as float8_e5m2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (UniformStep, "UniformStep needs exactly one of tolerance, bits.*none came"),
        (lambda: KMeans(levels=3, bits=2), "exactly one of levels, bits.*levels and bits came"),
        (lambda: Shortest(tolerance=0.1, bits=2), "tolerance and bits came"),
        (lambda: UniformStep(tolerance=0.0), "tolerance must be a relative squared error"),
        (lambda: KMeans(tolerance=1.0), "between 0 and 1, such as 0.01, but is 1.0"),
        (lambda: Shortest(tolerance=float("nan")), "but is nan"),
        (lambda: UniformStep(bits=1), "bits must be a whole number from 2 to 16, but is 1"),
        (lambda: KMeans(bits=13), "whole number from 1 to 12, but is 13"),
        (lambda: Shortest(bits=0), "whole number from 1 to 12, but is 0"),
        (lambda: KMeans(levels=0), "levels must lie between 1 and 4096, but is 0"),
        (lambda: UniformStep(step=-1.0), "step must be a positive number, but is -1.0"),
        (lambda: UniformStep(entropy=0.0), "entropy must be a positive number of bits"),
        (lambda: Uniform(top=0), "top must lie between"),
    ],
)
def test_quantizers_that_make_no_sense(make, message):
    with pytest.raises(UsageError, match=message):
        make()
