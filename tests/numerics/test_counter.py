"""Keyed bits against published words and plain integers; rows of noise drawn from them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailor.numerics.counter import GOLDEN, LEAST_CHANGES, Stream, stream
from tailor.numerics.stable.keyed import keyed_rows

KINDS = ["shared", "iid", "rotation"]
MASK = 2**64 - 1


def unsigned(words):
    return [word & MASK for word in words.tolist()]


# ---- the words --------------------------------------------------------------------------


def test_words_are_the_published_ones():
    """Of SplitMix64, with seed 0 (in the sources of xoshiro's authors) and 1234567 (Rosetta)."""
    assert unsigned(Stream(start=0).words(0, 3)) == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert unsigned(Stream(start=1234567).words(0, 5)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def plainly(start, step, place):
    """SplitMix64 in unsigned integers."""
    z = (start + (place + 1) * step) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(st.integers(0, MASK), st.integers(0, MASK), st.integers(0, 2**70), st.integers(0, 20))
def test_words_equal_those_of_plain_integers(start, step, first, count):
    found = Stream(start=start, step=step | 1).words(first, count)
    assert unsigned(found) == [plainly(start, step | 1, first + i) for i in range(count)]


def test_a_key_decides_on_the_stream():
    keys = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a", "1", 1), (0, "a1", 1)]
    streams = [stream(*key) for key in keys]
    assert len({(one.start, one.step) for one in streams}) == len(keys)
    assert stream(0, "a", 1) == streams[0]
    for number in range(2000):
        step = stream(number).step
        assert step % 2 == 1
        assert (step ^ step >> 1).bit_count() >= LEAST_CHANGES
    assert GOLDEN % 2 == 1


def test_the_bits_of_many_streams_are_even_and_unrelated():
    words = torch.stack([stream(5, "w", step).words(0, 64) for step in range(500)]).numpy()
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 64)
    n = len(bits)
    # 64 sums of n coins, and 64 x 63 / 2 of their products: all within 5 standard deviations.
    assert abs(bits.sum(axis=0) - n / 2).max() < 5 * math.sqrt(n) / 2
    signs = bits * 2.0 - 1
    products = signs.T @ signs - n * np.eye(64)
    assert abs(products).max() < 5 * math.sqrt(n)
    # The same word of neighbouring steps, and neighbouring words of one step.
    spread = words.astype(np.float64) / 2**63
    for one, other in ((spread[1:], spread[:-1]), (spread[:, 1:], spread[:, :-1])):
        r = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(r) < 5 / math.sqrt(one.size)
    assert stats.kstest(spread.ravel(), "uniform", args=(-1, 2)).pvalue > 0.01


# ---- rows of noise ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [1.3, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_can_be_drawn_alone(kind, alpha, dtype):
    def draw(*ends):
        return keyed_rows(kind, alpha, (3, "w", 8), range(*ends), 7, dtype=dtype)

    whole = draw(0, 29)
    assert whole.shape == (29, 1 if kind == "shared" else 7)
    assert whole.dtype == dtype
    for cuts in ([0, 15, 29], [0, 1, 2, 28, 29], [0, 10, 10, 29]):
        parts = [draw(a, b) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_the_key_counts(kind):
    def draw(*key):
        return keyed_rows(kind, 1.5, key, range(50), 3)

    one = draw(0, "w", 0)
    assert torch.equal(one, draw(0, "w", 0))
    for other in (draw(1, "w", 0), draw(0, "v", 0), draw(0, "w", 1)):
        assert (one != other).all()
    assert len(one.unique()) == one.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.8, 1.0, 1.7, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_characteristic_function(kind, alpha, dtype):
    """Projected on vectors u: exp(-|sum u|^a), exp(-sum |u_j|^a) and exp(-|u|_2^a)."""
    n = 50_000
    noise = keyed_rows(kind, alpha, (0, "w", 5), range(n), 3, dtype=dtype).expand(n, 3)
    for u in np.array([[1.0, 0.0, 0.0], [0.3, -0.5, 0.7], [0.0, 0.8, 0.8], [-0.2, 0.1, 0.2]]):
        power = {
            "shared": abs(u.sum()) ** alpha,
            "iid": (abs(u) ** alpha).sum(),
            "rotation": np.linalg.norm(u) ** alpha,
        }[kind]
        found = np.exp(1j * (noise.double().numpy() @ u)).mean()
        assert abs(found - math.exp(-power)) < 4 / math.sqrt(n)


def test_rotation_has_no_preferred_direction():
    noise = keyed_rows("rotation", 1.2, (0, "w", 0), range(20_000), 5).double().numpy()
    direction = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    for column in direction.T:  # the square of an entry of a unit vector of 5 is Beta(1/2, 2)
        assert stats.kstest(column**2, "beta", args=(0.5, 2)).pvalue > 0.01
