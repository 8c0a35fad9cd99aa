"""Views of tensors as matrices, against operators that torch.nn.functional builds."""

import itertools
import math
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tailor.errors import UsageError
from tailor.weights.views import (
    ByName,
    Circulant,
    Experts,
    Flattened,
    Fused,
    Gates,
    Grouped,
    Part,
    Standard,
    Taps,
    View,
)

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(stack: Tensor) -> Tensor:
    """The singular values of all matrices of a stack together, smallest first."""
    return torch.linalg.svdvals(stack).flatten().sort().values


def only(view: View, tensor: Tensor) -> Part:
    (part,) = view.split("w", tensor)
    assert part.label == ""
    return part


def labels(parts: list[Part]) -> list[str]:
    return [part.label for part in parts]


def operator(layer: Callable[[Tensor], Tensor], *inputs: int) -> Tensor:
    """The matrix of a linear layer, column by column: its answers to the unit inputs."""
    units = torch.eye(math.prod(inputs), dtype=torch.float64).reshape(-1, *inputs)
    return layer(units).flatten(1).T


def circular(kernel: Tensor, grid: tuple[int, ...], groups: int = 1) -> Tensor:
    """The operator of a convolution whose input wraps around the grid."""

    def layer(x: Tensor) -> Tensor:
        for axis, (n, k) in enumerate(zip(grid, kernel.shape[2:], strict=True), start=2):
            x = x.index_select(axis, torch.arange(n + k - 1) % n)
        return CONV[len(grid)](x, kernel, groups=groups)

    return operator(layer, kernel.shape[1] * groups, *grid)


def circular_transposed(kernel: Tensor, grid: tuple[int, ...], groups: int = 1) -> Tensor:
    """The operator of a transposed convolution whose output wraps around the grid."""

    def layer(x: Tensor) -> Tensor:
        y = TRANSPOSED[len(grid)](x, kernel, groups=groups)
        for axis, n in enumerate(grid, start=2):
            wrapped = y.new_zeros(*y.shape[:axis], n, *y.shape[axis + 1 :])
            y = wrapped.index_add(axis, torch.arange(y.shape[axis]) % n, y)
        return y

    return operator(layer, kernel.shape[0], *grid)


def assert_same_spectrum(part: Part, matrix: Tensor) -> None:
    assert part.stack.ndim == 3
    torch.testing.assert_close(values(part.stack), values(matrix), rtol=1e-10, atol=1e-12)


# Flattened


@given(SHAPES)
def test_a_flattened_tensor_has_one_row_for_each_output(shape):
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    part = only(Flattened(), tensor)
    assert part.stack.shape == (1, shape[0], math.prod(shape[1:]))
    for row, output in zip(part.stack[0], tensor, strict=True):
        assert row.tolist() == output.flatten().tolist()


@pytest.mark.parametrize("kernel", [(5, 2, 3), (3, 2, 2, 3), (2, 3, 2, 1, 2)])
def test_flattened_is_the_operator_on_one_patch(kernel):
    weight = normal(*kernel)
    patch = operator(lambda x: CONV[weight.ndim - 2](x, weight), *kernel[1:])
    assert_same_spectrum(only(Flattened(), weight), patch)


@pytest.mark.parametrize("kernel", [(5, 2, 3), (3, 2, 2, 3), (2, 3, 2, 1, 2)])
def test_a_transposed_convolution_has_its_outputs_on_the_second_axis(kernel):
    weight, taps = normal(*kernel), kernel[2:]
    padding = [k - 1 for k in taps]  # leaves the one output that reads the whole patch
    patch = operator(lambda x: TRANSPOSED[len(taps)](x, weight, padding=padding), kernel[0], *taps)
    part = only(Flattened(outputs=1), weight)
    assert part.stack.shape == (1, kernel[1], kernel[0] * math.prod(taps))
    assert_same_spectrum(part, patch)


# Taps


@pytest.mark.parametrize("kernel", [(5, 2, 3), (3, 4, 2, 3), (2, 3, 2, 1, 2), (2, 5, 4, 4)])
def test_each_tap_is_a_convolution_of_one_point(kernel):
    weight = normal(*kernel)
    parts = Taps(pool=False).split("w", weight)
    places = list(itertools.product(*map(range, kernel[2:])))
    assert labels(parts) == [str(list(place)).replace(" ", "") for place in places]
    spectra = []
    for part, place in zip(parts, places, strict=True):
        tap = weight[(..., *(slice(i, i + 1) for i in place))]
        conv = CONV[len(place)]
        one = operator(partial(conv, weight=tap), kernel[1], *[1] * len(place))
        assert_same_spectrum(part, one)
        spectra.append(values(one))
    pooled = only(Taps(), weight)
    assert pooled.stack.shape == (len(places), *kernel[:2])
    torch.testing.assert_close(values(pooled.stack), torch.cat(spectra).sort().values)


def test_a_scale_multiplies_convolutions_and_leaves_matrices_alone():
    conv, matrix = normal(3, 4, 2, 2), normal(3, 4)
    scale = math.sqrt(1 / 2)
    expected = values(only(Taps(), conv).stack) * scale
    torch.testing.assert_close(values(only(Taps(scale=scale), conv).stack), expected)
    assert torch.equal(only(Taps(scale=scale), matrix).stack[0], matrix)


@pytest.mark.parametrize(
    ("shape", "largest", "total"),
    [
        ((12, 8, 3, 3), 6.56941617921623, 217.26738789484915),
        ((8, 12, 2, 2), 6.718724443991082, 95.84572860378367),
    ],
)
def test_scaled_taps_have_the_eigenvalues_of_weightwatcher(shape, largest, total):
    # `spectral_norm` and `norm` that analyze() of WeightWatcher 0.7.7 gives for a Conv2d with
    # these weights, which it rounds to float32.
    weight = torch.arange(math.prod(shape), dtype=torch.float64).square().sin().reshape(shape)
    found = values(only(Taps(scale=math.sqrt(1 / 2)), weight).stack).square()
    assert len(found) == min(shape[:2]) * shape[2] * shape[3]
    assert found.max().item() == pytest.approx(largest, rel=1e-7)
    assert found.sum().item() == pytest.approx(total, rel=1e-7)


def test_a_scale_does_not_round_half_precision():
    conv = normal(3, 4, 2, 2).bfloat16()
    assert torch.equal(only(Taps(scale=0.3), conv).stack, only(Taps(), conv).stack.double() * 0.3)


# Circulant


@pytest.mark.parametrize(
    ("kernel", "grid"),
    [
        ((3, 2, 3), (5,)),
        ((2, 4, 3), (4,)),
        ((3, 2, 3, 3), (4, 5)),
        ((2, 3, 1, 3), (3, 4)),
        ((2, 3, 1, 1), (3, 4)),
        ((2, 2, 2, 1, 3), (3, 2, 4)),
        ((2, 2, 5, 3), (3, 2)),  # the kernel wraps around the grid, once and more
        ((2, 3, 3, 2), (1, 1)),
    ],
)
def test_circulant_is_the_spectrum_of_the_periodic_operator(kernel, grid):
    weight = normal(*kernel)
    part = only(Circulant(grid=grid), weight)
    assert part.stack.shape == (math.prod(grid), *kernel[:2])
    assert_same_spectrum(part, circular(weight, grid))
    assert_same_spectrum(part, circular_transposed(weight, grid))


def test_a_grouped_circulant_is_the_spectrum_of_the_grouped_operator():
    weight = normal(6, 2, 3, 2)
    part = only(Circulant(grid=4, groups=3), weight)
    assert_same_spectrum(part, circular(weight, (4, 4), groups=3))
    assert_same_spectrum(part, circular_transposed(weight, (4, 4), groups=3))
    assert part.copies == 2


def test_a_depthwise_circulant_is_the_gain_of_each_filter():
    weight = normal(5, 1, 3)
    part = only(Circulant(grid=7, groups=5), weight)
    gains = torch.fft.fft(weight[:, 0], n=7).abs().flatten().sort().values
    torch.testing.assert_close(values(part.stack), gains)
    assert_same_spectrum(part, circular(weight, (7,), groups=5))


@pytest.mark.parametrize(
    ("taps", "grid", "copies"),
    [
        ((3, 3), (4, 4), 2),
        ((3, 3), (5, 3), 2),
        ((3, 3), (2, 3), 2),
        ((1, 1), (3, 4), 12),
        ((3, 1), (4, 5), 10),
        ((3, 1), (2, 5), 5),
        ((2, 2), (2, 2), 1),
        ((3, 3), (1, 1), 1),
        ((3,), (6,), 2),
    ],
)
def test_copies_is_how_often_an_eigenvalue_comes_at_most(taps, grid, copies):
    part = only(Circulant(grid=grid), normal(2, 3, *taps))
    found = values(part.stack)
    times = (found[:, None] - found).abs().lt(1e-9).sum(1)
    assert int(times.max()) == copies == part.copies


def test_a_matrix_is_its_own_circulant():
    matrix = normal(3, 4)
    part = only(Circulant(grid=(8, 8)), matrix)
    assert torch.equal(part.stack[0], matrix)
    assert part.copies == 1


def test_frequencies_are_exact_for_half_precision():
    conv = normal(2, 3, 3, 3).bfloat16()
    found = only(Circulant(grid=4), conv).stack
    torch.testing.assert_close(found, only(Circulant(grid=4), conv.double()).stack)
    assert found.dtype == torch.complex128


# Grouped


@pytest.mark.parametrize(("kernel", "groups"), [((6, 2, 2), 3), ((4, 3, 2, 2), 2), ((4, 1, 3), 4)])
def test_groups_give_the_block_diagonal_operator(kernel, groups):
    weight, taps = normal(*kernel), kernel[2:]
    patch = operator(lambda x: CONV[len(taps)](x, weight, groups=groups), kernel[1] * groups, *taps)
    assert_same_spectrum(only(Grouped(groups=groups), weight), patch)


def test_groups_of_a_transposed_convolution_lie_on_its_first_axis():
    weight = normal(6, 2, 3)  # 6 inputs and 4 outputs in 2 groups
    patch = operator(lambda x: functional.conv_transpose1d(x, weight, padding=2, groups=2), 6, 3)
    assert_same_spectrum(only(Grouped(groups=2, view=Flattened(outputs=1)), weight), patch)


def test_a_depthwise_filter_has_its_norm_as_singular_value():
    weight = normal(8, 1, 3, 3)
    norms = weight.flatten(1).norm(dim=1).sort().values
    torch.testing.assert_close(values(only(Grouped(groups=8), weight).stack), norms)


def test_groups_keep_the_parts_of_the_inner_view():
    weight = normal(4, 2, 2)
    left, right = Grouped(groups=2, view=Taps(pool=False)).split("w", weight)
    assert (left.label, right.label) == ("[0]", "[1]")
    assert torch.equal(left.stack, weight[:, :, 0].reshape(2, 2, 2))
    assert torch.equal(right.stack, weight[:, :, 1].reshape(2, 2, 2))


# Fused, gates, experts


def test_fused_parts_follow_each_other_along_an_axis():
    weight = normal(8, 3)
    query, key, value = Fused(sizes=(4, 2, 2)).split("w", weight)
    assert labels([query, key, value]) == ["[q]", "[k]", "[v]"]
    assert torch.equal(query.stack[0], weight[:4])
    assert torch.equal(key.stack[0], weight[4:6])
    assert torch.equal(value.stack[0], weight[6:])
    gate, up = Fused(parts=("gate", "up"), axis=1).split("w", weight.T)
    assert labels([gate, up]) == ["[gate]", "[up]"]
    assert torch.equal(torch.cat([gate.stack[0], up.stack[0]], dim=1), weight.T)


def gates(view: Gates, weight: Tensor, x: Tensor) -> dict[str, Tensor]:
    return {part.label: x @ part.stack[0].T for part in view.split("w", weight.detach())}


def test_gates_are_those_of_an_lstm():
    cell = nn.LSTMCell(3, 4, bias=False, dtype=torch.float64)
    x, h, c = normal(1, 3), normal(1, 4, seed=1), normal(1, 4, seed=2)
    of_x, of_h = gates(Gates(), cell.weight_ih, x), gates(Gates(), cell.weight_hh, h)
    i, f, g, o = (of_x[label] + of_h[label] for label in ("[i]", "[f]", "[g]", "[o]"))
    memory = f.sigmoid() * c + i.sigmoid() * g.tanh()
    expected = cell(x, (h, c))[0]
    torch.testing.assert_close(o.sigmoid() * memory.tanh(), expected.detach())


def test_gates_are_those_of_a_gru():
    cell = nn.GRUCell(3, 4, bias=False, dtype=torch.float64)
    x, h = normal(1, 3), normal(1, 4, seed=1)
    of_x, of_h = (
        gates(Gates(count=3), cell.weight_ih, x),
        gates(Gates(count=3), cell.weight_hh, h),
    )
    r, z = ((of_x[label] + of_h[label]).sigmoid() for label in ("[r]", "[z]"))
    new = (of_x["[n]"] + r * of_h["[n]"]).tanh()
    torch.testing.assert_close((1 - z) * new + z * h, cell(x, h).detach())


def test_every_expert_is_a_part():
    weight = normal(3, 4, 5)
    parts = Experts().split("w", weight)
    assert labels(parts) == ["[0]", "[1]", "[2]"]
    assert all(torch.equal(part.stack[0], own) for part, own in zip(parts, weight, strict=True))
    nested = Experts(view=Fused(parts=("gate", "up"))).split("w", weight)
    assert labels(nested)[:3] == ["[0][gate]", "[0][up]", "[1][gate]"]


# Rules


def test_the_first_pattern_that_matches_wins():
    view = ByName(
        rules=(("*.depthwise.weight", Grouped(groups=4)), ("features.*", Taps())),
        otherwise=Fused(parts=("a", "b")),
    )
    weight = normal(4, 1, 3)
    assert view.split("features.depthwise.weight", weight)[0].stack.shape == (4, 1, 3)
    assert view.split("features.0.weight", weight)[0].stack.shape == (3, 4, 1)
    assert labels(view.split("Features.0.weight", weight)) == ["[a]", "[b]"]


def test_standard_finds_query_key_and_value_of_attention():
    attention = nn.MultiheadAttention(8, 2, bias=False, dtype=torch.float64)
    x = normal(5, 8)
    with torch.no_grad():  # the parts are views: what is written to them, attention uses
        query, key, value = Standard().split("in_proj_weight", attention.in_proj_weight)
        assert labels([query, key, value]) == ["[q]", "[k]", "[v]"]
        query.stack.zero_()
        assert torch.equal(attention(x, x, x)[1], torch.full((5, 5), 0.2, dtype=torch.float64))
        assert attention(x, x, x)[0].abs().max() > 0
        value.stack.zero_()
        assert attention(x, x, x)[0].abs().max() == 0


def test_standard_cuts_the_columns_of_gpt2():
    weight, x = normal(4, 12), normal(2, 4, seed=1)  # stored (inputs, outputs): y = x W
    parts = Standard().split("h.0.attn.c_attn.weight", weight)
    assert labels(parts) == ["[q]", "[k]", "[v]"]
    for part, expected in zip(parts, (x @ weight).chunk(3, dim=-1), strict=True):
        torch.testing.assert_close(x @ part.stack[0], expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("h.0.attn.c_attn.weight", (12, 4)),
        ("blocks.0.attn.qkv.weight", (12, 4)),
        ("model.layers.0.self_attn.qkv_proj.weight", (12, 4)),
        ("layers.0.attn.Wqkv.weight", (12, 4)),
        ("encoder.self_attn.in_proj_weight", (12, 4)),
        ("model.layers.0.self_attn.W_pack.weight", (12, 4)),
        ("layers.0.0.to_qkv.weight", (12, 4)),
    ],
)
def test_standard_splits_fused_attention_of_public_models(name, shape):
    assert labels(Standard().split(name, normal(*shape))) == ["[q]", "[k]", "[v]"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gpt_neox.layers.0.attention.query_key_value.weight", (12, 4)),  # heads interleaved
        ("transformer.h.0.attn.qkv_proj.weight", (12, 4)),  # CodeGen: heads interleaved
        ("model.layers.0.self_attn.qkv_proj.weight", (10, 4)),  # grouped queries
        ("middle.attention.qkv.weight", (12, 4, 1)),  # a convolution
        ("layers.0.mixer.in_proj.weight", (12, 4)),  # Mamba
        ("blocks.0.my_qkv.weight", (12, 4)),
        ("mlp.fc.weight", (12, 4)),
        ("conv.weight", (6, 4, 3)),
        ("model.layers.0.experts.1.conv.weight", (6, 4, 3)),
        ("model.layers.0.experts.1.w1.weight", (6, 4)),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (6, 4)),
        ("conv.weight", (6, 4, 3, 3)),
    ],
)
def test_standard_leaves_everything_else_whole(name, shape):
    weight = normal(*shape)
    (part,) = Standard().split(name, weight)
    assert part.label == ""
    assert torch.equal(part.stack[0], weight.flatten(1))


def test_standard_leaves_an_lstm_whole():
    lstm = nn.LSTM(4, 4, num_layers=2)
    weights = {name: w for name, w in lstm.named_parameters() if w.ndim == 2}
    assert len(weights) == 4
    for name, weight in weights.items():
        assert torch.equal(only(Standard(), weight).stack[0], weight), name
        assert labels(Standard().split(name, weight)) == [""]


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.experts.gate_up_proj",
        "language_model.model.layers.0.feed_forward.experts.down_proj",
        "model.layers.0.block_sparse_moe.input_linear.weight",
        "model.layers.0.block_sparse_moe.output_linear.weight",
    ],
)
def test_standard_splits_stacked_experts(name):
    weight = normal(8, 6, 4)
    parts = Standard().split(name, weight)
    assert labels(parts) == [f"[{number}]" for number in range(8)]
    assert torch.equal(torch.cat([part.stack for part in parts]), weight)


# Laws


# Views that only rearrange, given a number that divides the first axis of the tensor.
REARRANGING = [
    lambda _: Flattened(),
    lambda _: Flattened(outputs=1),
    lambda _: Taps(),
    lambda _: Taps(pool=False),
    lambda divisor: Grouped(groups=divisor),
    lambda divisor: Grouped(groups=divisor, view=Taps()),
    lambda divisor: Fused(parts=tuple("abcd"[:divisor])),
    lambda _: Experts(),
    lambda _: Experts(view=Taps(pool=False)),
    lambda _: ByName(rules=(("v", Taps()),), otherwise=Experts()),
    lambda _: Standard(),
]


def views_and_tensors(test):
    """Run a law for views with tensors that fit them."""

    @given(
        make=st.sampled_from(REARRANGING),
        divisor=st.integers(1, 4),
        rows=st.integers(1, 4),
        rest=st.lists(st.integers(1, 4), min_size=2, max_size=4),
        seed=st.integers(0, 99),
    )
    def law(make, divisor, rows, rest, seed):
        test(make(divisor), normal(divisor * rows, *rest, seed=seed))

    return law


@views_and_tensors
def test_no_weight_is_lost_or_taken_twice(view, tensor):
    parts = view.split("w", tensor)
    entries = torch.cat([part.stack.flatten() for part in parts])
    assert torch.equal(entries.sort().values, tensor.flatten().sort().values)
    assert len(set(labels(parts))) == len(parts)
    squares = sum(values(part.stack).square().sum() for part in parts)
    torch.testing.assert_close(squares, tensor.square().sum())


@views_and_tensors
def test_views_keep_the_graph(view, tensor):
    tensor.requires_grad_()
    sum(part.stack.square().sum() for part in view.split("w", tensor)).backward()
    torch.testing.assert_close(tensor.grad, 2 * tensor.detach())


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(3, 5))
def test_circulant_multiplies_squares_by_the_points_of_the_grid(kernel, points):
    weight = normal(3, 2, *kernel).requires_grad_()
    stack = only(Circulant(grid=points), weight).stack
    stack.abs().square().sum().backward()
    torch.testing.assert_close(weight.grad, 2 * points ** len(kernel) * weight.detach())
    assert values(stack).square().sum().item() == pytest.approx(
        points ** len(kernel) * weight.square().sum().item()
    )


@pytest.mark.parametrize(
    ("view", "shape"),
    [
        (Flattened(), (4, 3, 2, 2)),
        (Taps(), (4, 3, 2, 2)),
        (Taps(pool=False), (4, 3, 2, 2)),
        (Circulant(grid=32), (4, 3, 1, 1)),
        (Fused(parts=("a", "b")), (4, 3)),
        (Fused(parts=("a", "b"), axis=1), (3, 4)),
        (Gates(), (4, 3)),
        (Experts(), (4, 3, 2)),
        (Standard(), (4, 3, 2)),
    ],
)
def test_views_do_not_copy(view, shape):
    tensor = normal(*shape)
    for part in view.split("w", tensor):
        assert part.stack.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "view",
    [
        Flattened(outputs=1),
        Taps(scale=0.5),
        Circulant(grid=(4, 4)),
        Grouped(groups=2),
        Fused(sizes=(4, 1, 1)),
        Gates(count=3),
        Experts(view=Taps()),
        ByName(rules=(("*", Taps()),)),
        Standard(),
    ],
)
def test_a_view_is_a_value(view):
    there = pickle.loads(pickle.dumps(view))  # noqa: S301 - our own bytes
    assert there == view
    assert hash(there) == hash(view)
    with pytest.raises(TypeError, match="positional"):
        type(view)(1)


def test_a_view_must_say_how_it_splits():
    class Nothing(View):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?split"):
        Nothing()


# Refusals


@pytest.mark.parametrize(
    ("view", "shape", "sentence"),
    [
        (Flattened(outputs=1), (3,), "layer.w of shape 3 has no axis 1 for its outputs"),
        (Taps(), (3,), "layer.w of shape 3 is no convolution"),
        (Circulant(), (3,), "layer.w of shape 3 is no convolution"),
        (Circulant(grid=(8, 8)), (3, 2, 3), "layer.w of shape 3x2x3 has 1 kernel axes, but"),
        (Circulant(groups=2), (3, 2, 3), "layer.w of shape 3x2x3 cannot be cut into 2 equal"),
        (Grouped(groups=4), (6, 1, 3), "layer.w of shape 6x1x3 cannot be cut into 4 equal"),
        (Fused(), (8, 2), "layer.w of shape 8x2 cannot be cut into 3 equal parts along axis 0"),
        (Fused(axis=2), (9, 3), "layer.w of shape 9x3 has no axis 2 to cut"),
        (Fused(sizes=(4, 2, 2)), (9, 3), "layer.w of shape 9x3 is 9 long along axis 0, but"),
        (Gates(), (6, 3), "layer.w of shape 6x3 does not hold 4 gates"),
        (Experts(), (6, 3), "layer.w of shape 6x3 holds no stack of experts"),
        (Experts(view=Fused()), (2, 4, 3), r"layer.w\[0\] of shape 4x3 cannot be cut into 3"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(view, shape, sentence):
    with pytest.raises(UsageError, match=sentence):
        view.split("layer.w", normal(*shape))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Flattened(outputs=-1), "outputs must be an axis from 0 on, but is -1"),
        (lambda: Taps(scale=0.0), "scale must be positive and finite, but is 0"),
        (lambda: Taps(scale=math.inf), "scale must be positive and finite, but is inf"),
        (lambda: Circulant(grid=0), "a grid needs at least one point along each axis, not 0"),
        (lambda: Circulant(grid=(4, 0)), r"at least one point along each axis, not \(4, 0\)"),
        (lambda: Circulant(grid=()), r"at least one point along each axis, not \(\)"),
        (lambda: Circulant(groups=0), "groups must be at least 1, but is 0"),
        (lambda: Grouped(groups=0), "groups must be at least 1, but is 0"),
        (lambda: Fused(parts=()), "parts need names that differ"),
        (lambda: Fused(parts=("q", "q")), "parts need names that differ"),
        (lambda: Fused(axis=-1), "axis must be 0 or more, but is -1"),
        (lambda: Fused(sizes=(4, 2)), "sizes must be one positive length for each of the 3"),
        (lambda: Fused(sizes=(4, 2, 0)), "sizes must be one positive length for each of the 3"),
        (lambda: Gates(count=2), r"count must be 4 \(LSTM\) or 3 \(GRU\) gates, but is 2"),
    ],
)
def test_settings_without_meaning_are_refused(build, sentence):
    with pytest.raises(UsageError, match=sentence):
        build()
