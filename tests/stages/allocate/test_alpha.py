"""AlphaPruning: the published shares of LLaMA-7B, the cap, and when exponents say nothing."""

import numpy as np
import pytest
import torch

from tailor.errors import NonFinite, UsageError
from tailor.numerics.powerlaw import FARMS, HillMid, XminPeak
from tailor.stages.allocate import AlphaPruning, UniformAllocation
from tailor.stages.allocate.alpha import quarters
from tests.stages.allocate.layers import SCORE, layers, shapes, total_dropped

# Shares of the 32 blocks of LLaMA-7B at a sparsity of 0.7, from the exponents that AlphaPruning
# publishes (data/llama-7b-hf/alpha_peak.npy at 5f0e984) by its formula, to six digits.
EPS_2 = [
    *(0.570422, 0.617598, 0.631531, 0.630738, 0.652856, 0.648245, 0.630059, 0.592167),
    *(0.597390, 0.568035, 0.587082, 0.589372, 0.598992, 0.610863, 0.618775, 0.668128),
    *(0.658680, 0.715606, 0.790572, 0.743789, 0.794615, 0.824837, 0.770052, 0.762925),
    *(0.812166, 0.852052, 0.831261, 0.841471, 0.786921, 0.829673, 0.841423, 0.731703),
]
EPS_3 = [
    *(0.504228, 0.575504, 0.596555, 0.595356, 0.628774, 0.621807, 0.594331, 0.537082),
    *(0.544972, 0.500622, 0.529400, 0.532859, 0.547394, 0.565329, 0.577282, 0.651847),
    *(0.637572, 0.723578, 0.836840, 0.766158, 0.842948, 0.888609, 0.805837, 0.795069),
    *(0.869465, 0.929726, 0.898315, 0.913739, 0.831323, 0.895915, 0.913668, 0.747898),
]
# Mean exponents of the blocks, to four digits.
MEANS = [
    *(2.6222, 2.8899, 2.9690, 2.9645, 3.0900, 3.0638, 2.9606, 2.7456, 2.7752, 2.6086, 2.7167),
    *(2.7297, 2.7843, 2.8517, 2.8966, 3.1767, 3.1230, 3.4461, 3.8715, 3.6060, 3.8945, 4.0660),
    *(3.7551, 3.7146, 3.9941, 4.2204, 4.1024, 4.1604, 3.8508, 4.0934, 4.1601, 3.5374),
]
MATRICES = {
    **{f"self_attn.{k}_proj": (4096, 4096) for k in "qkvo"},
    **{f"mlp.{k}_proj": (11008, 4096) for k in ("gate", "up")},
    "mlp.down_proj": (4096, 11008),
}


def llama(per_block):
    """Layers of LLaMA-7B and their exponents, one for each block."""
    given = {f"model.layers.{b}.{n}.weight": s for b in range(32) for n, s in MATRICES.items()}
    alphas = {name: float(per_block[int(name.split(".")[2])]) for name in given}
    return shapes(given), alphas


def block_shares(eps, sparsity, per_block, **options):
    given, alphas = llama(per_block)
    found = AlphaPruning(eps=eps, alphas=alphas, **options).allocate(given, sparsity, score=SCORE)
    assert total_dropped(found) == round(sparsity * sum(found.sizes.values()))
    return np.array([found.ratio(one.name) for one in given]).reshape(32, 7)


def test_the_published_shares_at_one_eps_give_those_at_the_other():
    """The exponents themselves, up to scale and shift, are read off one table of six digits."""
    shares = block_shares(0.2, 0.7, EPS_3)
    np.testing.assert_allclose(shares, np.repeat(EPS_2, 7).reshape(32, 7), rtol=0, atol=1e-6)
    assert shares[:, 0].argmin() == 9
    assert shares[:, 0].argmax() == 25


@pytest.mark.parametrize(("eps", "expected"), [(0.2, EPS_2), (0.3, EPS_3)])
def test_means_of_four_digits_give_the_published_shares_as_far_as_they_can(eps, expected):
    """A mean is right to 5e-5 of a range of 1.6, of which eps makes 0.71 x 2 eps, at either end."""
    reachable = 0.71 * 2 * eps * 2 * 5e-5 / 1.6 + 5e-7
    np.testing.assert_allclose(
        block_shares(eps, 0.7, MEANS)[:, 0], expected, rtol=0, atol=reachable
    )


@pytest.mark.parametrize(
    ("eps", "sparsity", "eta", "least", "largest"),
    [
        (0.1, 0.5, 0.503561, 0.453205, 0.553918),
        (0.1, 0.7, 0.704986, 0.634487, 0.775485),
        (0.1, 0.8, 0.805698, 0.725128, 0.886268),
        (0.2, 0.5, 0.507174, 0.405739, 0.608609),
        (0.2, 0.7, 0.710043, 0.568035, 0.852052),
        (0.2, 0.8, 0.811478, 0.649182, 0.973774),
        (0.3, 0.5, 0.510838, 0.357587, 0.664090),
        (0.3, 0.7, 0.715174, 0.500622, 0.929726),
    ],
)
def test_published_factors_and_ranges(eps, sparsity, eta, least, largest):
    shares = block_shares(eps, sparsity, EPS_3)
    assert shares.min() == pytest.approx(least, abs=1e-6)
    assert shares.max() == pytest.approx(largest, abs=1e-6)
    assert shares.min() / (1 - eps) == pytest.approx(eta, abs=1.5e-6)


@pytest.mark.parametrize(
    ("sparsity", "capped", "least"), [(0.8, 7, 0.580875), (0.85, 12, 0.640272)]
)
def test_the_cap_holds_where_the_formula_asks_for_more_than_there_is(sparsity, capped, least):
    shares = block_shares(0.3, sparsity, EPS_3)
    assert (shares[:, 0] > 0.99 - 1e-6).sum() == capped
    assert shares.min() == pytest.approx(least, abs=1e-6)
    assert shares.max() <= 0.99


def test_each_matrix_by_itself():
    given = shapes({"0.a": (1000, 10), "0.b": (1000, 10), "1.a": (1000, 10)})
    alphas = {"0.a": 2.0, "0.b": 3.0, "1.a": 4.0}
    alone = AlphaPruning(alphas=alphas, group="layer").allocate(given, 0.5, score=SCORE)
    assert list(alone.drop.values()) == [4000, 5000, 6000]
    together = AlphaPruning(alphas=alphas).allocate(given, 0.5, score=SCORE)
    assert together.drop["0.a"] == together.drop["0.b"] < together.drop["1.a"]
    assert together.metric == alphas  # of the matrix, not of its block


def test_equal_exponents_are_uniform():
    given = shapes({"0.a": (10, 10), "1.a": (20, 10)})
    found = AlphaPruning(alphas={"0.a": 3.0, "1.a": 3.0}).allocate(given, 0.5, score=SCORE)
    assert found.drop == UniformAllocation().allocate(given, 0.5, score=SCORE).drop
    assert found.note == "uniform, since all exponents are equal"


def tailed(power, seed, rows=48, columns=64):
    """Gaussian entries, columns with Pareto scales: the smaller the power, the heavier the tail."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(columns, generator=generator) ** (-1 / power)
    return torch.randn(rows, columns, generator=generator) * scale


def test_heavier_tails_lose_less():
    tensors = {f"{i}.w": tailed(power, i) for i, power in enumerate((0.6, 2.0, 50.0))}
    found = AlphaPruning().allocate(layers(tensors), 0.5, score=SCORE)
    assert found.note == ""
    assert found.dropped("0.w") < found.dropped("1.w") < found.dropped("2.w")
    assert found.dropped("2.w") == pytest.approx(found.dropped("0.w") * 1.2 / 0.8, abs=2)


def test_measured_exponents_are_those_of_the_fit():
    tensors = {f"{i}.w": tailed(2.0, i) for i in range(2)}
    found = AlphaPruning(fit=HillMid(), gate=False).allocate(layers(tensors), 0.5, score=SCORE)
    for name, w in tensors.items():
        values = torch.linalg.svdvals(w.double()).square().sort().values.numpy()
        upper = values[len(values) // 2 :]
        expected = 1 + len(upper) / np.log(upper / upper[0]).sum()
        assert found.metric[name] == pytest.approx(expected, rel=1e-9)


def test_noise_does_not_pass_the_gate():
    """Eight Gaussian matrices differ by chance alone, which the formula stretches to 40 %."""
    tensors = {f"{i}.w": tailed(float("inf"), i) for i in range(8)}
    found = AlphaPruning(fit=HillMid()).allocate(layers(tensors), 0.5, score=SCORE)
    assert set(found.drop.values()) == {48 * 64 // 2}
    assert "uniform, since the exponents of the groups spread by" in found.note
    bold = AlphaPruning(fit=HillMid(), gate=False).allocate(layers(tensors), 0.5, score=SCORE)
    assert max(bold.drop.values()) / min(bold.drop.values()) == pytest.approx(1.5, rel=0.01)


def test_shape_alone_is_no_reason_to_prune_more_by_windows():
    shape = {"0.w": (64, 64), "1.w": (64, 256), "2.w": (64, 64), "3.w": (64, 256)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*one, generator=generator) for name, one in shape.items()}
    whole = AlphaPruning(fit=HillMid()).allocate(layers(tensors), 0.5, score=SCORE)
    assert whole.ratio("1.w") > 1.2 * whole.ratio("0.w")
    windows = AlphaPruning(fit=FARMS(window=64, windows=5)).allocate(
        layers(tensors), 0.5, score=SCORE
    )
    assert "uniform" in windows.note


def test_quarters_are_disjoint_and_of_the_same_shape():
    matrix = torch.arange(7 * 10).reshape(7, 10).float()
    parts = quarters(matrix)
    assert [tuple(part.shape) for part in parts] == [(3, 5)] * 4
    every = torch.cat([part.flatten() for part in parts])
    assert len(every.unique()) == 60
    assert [tuple(part.shape) for part in quarters(torch.zeros(8, 3))] == [(4, 3)] * 2


def test_a_convolution_and_a_matrix_without_an_exponent():
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "0.w": torch.randn(40, 30, 3, 3, generator=generator),
        "1.w": tailed(0.6, 1),
        "2.w": torch.zeros(30, 30),
        "3.w": torch.randn(0, 30),
    }
    found = AlphaPruning(gate=False).allocate(layers(tensors), 0.5, score=SCORE)
    assert set(found.metric) == {"0.w", "1.w"}
    assert "no exponent for 2 of 4 matrices, such as 2.w: 0 of 0 values" in found.note
    assert found.ratio("1.w") < found.ratio("2.w") < found.ratio("0.w")
    assert total_dropped(found) == round(0.5 * sum(w.numel() for w in tensors.values()))


def test_too_small_to_tell():
    tensors = {f"{i}.w": tailed(2.0, i, rows=21, columns=21) for i in range(3)}
    found = AlphaPruning().allocate(layers(tensors), 0.5, score=SCORE)
    assert found.note == (
        "uniform, since the matrices are too small to tell the error of their exponents"
    )
    one = AlphaPruning().allocate(layers({"0.w": tailed(2.0, 0)}), 0.5, score=SCORE)
    assert one.note == "uniform, since only 1 of the groups have an exponent"


def test_the_authors_estimator_runs():
    tensors = {f"{i}.w": tailed(2.0, i) for i in range(2)}
    peak = AlphaPruning(fit=XminPeak(compat=True), gate=False, eps=0.3)
    found = peak.allocate(layers(tensors), 0.5, score=SCORE)
    assert sorted(found.drop.values()) == [round(0.35 * 3072), round(0.65 * 3072)]


def test_refusals():
    given = shapes({"0.a": (10, 10), "1.a": (20, 10)})
    with pytest.raises(
        UsageError, match=r"alphas give no finite exponent for 1\.a; give one for each"
    ):
        AlphaPruning(alphas={"0.a": 2.0}).allocate(given, 0.5, score=SCORE)
    with pytest.raises(UsageError, match=r"alphas give no finite exponent for 0\.a"):
        AlphaPruning(alphas={"0.a": float("nan"), "1.a": 2.0}).allocate(given, 0.5, score=SCORE)
    with pytest.raises(UsageError, match=r"eps must lie in \[0, 1\), but is 1.0"):
        AlphaPruning(eps=1.0)
    with pytest.raises(UsageError, match="group must be 'block' or 'layer', but is 'model'"):
        AlphaPruning(group="model")
    broken = torch.ones(5, 5)
    broken[0, 0] = float("nan")
    with pytest.raises(NonFinite, match="w holds 1 NaN or infinite weights"):
        AlphaPruning().allocate(layers({"w": broken}), 0.5, score=SCORE)
