"""Relative entropy of posteriors on weights, rounded up, and normal values that anyone redraws.

What a PAC-Bayes bound pays for is KL(posterior || prior). Gaussians are given by Cholesky factors,
of the covariance for a posterior and of the precision for a prior, so that nothing but sums of
products is computed: their rounding error is bounded by the sums of the absolute terms (Higham
2002, Accuracy and stability of numerical algorithms, sections 3.1 and 4.2) and added.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.counter import Stream
from tailor.numerics.stable.transform import normals

EPS = float(np.finfo(np.float64).eps)
BLOCK = 1024  # terms that are added before their sum is passed on


def diagonal_kl(
    mean: Float64[Tensor, "*shape"],
    deviation: Float64[Tensor, "*shape"],
    prior_mean: Float64[Tensor, "*shape"],
    prior_deviation: Float64[Tensor, "*shape"],
) -> float:
    """KL of independent normal weights from independent normal weights, in nats, rounded up.

    Raises:
        UsageError: A deviation is not a positive number, or a mean is not finite.
    """
    _must_be_finite("means", mean, prior_mean)
    _must_be_positive("deviations", deviation, prior_deviation)
    ratio = deviation / prior_deviation
    off = (mean - prior_mean) / prior_deviation
    return _half_sum([ratio**2, off**2, -2 * ratio.log(), -torch.ones_like(ratio)])


def isotropic_kl(
    mean: Float64[Tensor, "dim"], factor: Float64[Tensor, "dim dim"], scale: float
) -> float:
    """KL of N(mean, L L') from N(0, scale^2 I), in nats, rounded up.

    Args:
        mean: Of the posterior.
        factor: L: lower triangular, with a positive diagonal.
        scale: Standard deviation of each weight under the prior.

    Raises:
        UsageError: The factor is no such matrix, or a number is not finite or not positive.
    """
    if not 0 < scale < math.inf:
        raise UsageError(f"a prior needs a finite scale above 0, but has {scale}")
    _must_be_factor(mean, factor)
    ratio = factor / scale
    logs = -2 * ratio.diagonal().log()
    return _half_sum([ratio**2, (mean / scale) ** 2, logs, -torch.ones_like(mean)])


def full_kl(
    mean: Float64[Tensor, "dim"],
    factor: Float64[Tensor, "dim dim"],
    prior_mean: Float64[Tensor, "dim"],
    prior_root: Float64[Tensor, "dim dim"],
) -> float:
    """KL of N(mean, L L') from the Gaussian of mean ``prior_mean`` and precision R R', rounded up.

    It is (|R'L|^2 + |R'(mean - prior_mean)|^2 - dim) / 2 - ln det L - ln det R, in nats.

    Args:
        mean: Of the posterior.
        factor: L: lower triangular, with a positive diagonal.
        prior_mean: Of the prior.
        prior_root: R: upper triangular, with a positive diagonal.

    Raises:
        UsageError: A factor is no such matrix, or a mean is not finite.
    """
    _must_be_factor(mean, factor)
    _must_be_factor(prior_mean, prior_root.T)
    apart = mean - prior_mean
    both, off = prior_root.T @ factor, prior_root.T @ apart
    # By Cauchy and Schwarz, no sum of products has terms that add up to more than these.
    unit, columns = (len(mean) + 2) * EPS, prior_root.norm(dim=0)
    far, wide = unit * columns * apart.norm(), unit * columns[:, None] * factor.norm(dim=0)
    slack = (far * (2 * off.abs() + far)).sum() + (wide * (2 * both.abs() + wide)).sum()
    terms = [
        both**2,
        off**2,
        -2 * factor.diagonal().log(),
        -2 * prior_root.diagonal().log(),
        -torch.ones_like(mean),
    ]
    return _half_sum(terms, slack=2 * float(slack))


def categorical_kl(
    posterior: Float64[Tensor, "weights levels"], prior: Float64[Tensor, "levels"]
) -> float:
    """KL of independent weights on the levels of a grid from one law for all, rounded up.

    Args:
        posterior: Probabilities of each weight; each row is divided by its sum.
        prior: Probability of each level; divided by the sum.

    Raises:
        UsageError: A probability is negative or not finite, a row is zero, or the prior excludes
            a level that the posterior uses.
    """
    _must_be_finite("probabilities", posterior, prior)
    if bool((posterior < 0).any() or (prior < 0).any()) or bool((posterior.sum(dim=1) <= 0).any()):
        raise UsageError("probabilities must be 0 or more, and at least one of each weight above 0")
    q = posterior / posterior.sum(dim=1, keepdim=True)
    p = (prior / prior.sum()).expand_as(q)
    if bool((q[p == 0] > 0).any()):
        raise UsageError("the prior gives probability 0 to a level that the posterior uses")
    ratio = torch.where(q > 0, q / torch.where(p > 0, p, 1.0), 1.0)
    terms = q * ratio.log()
    slack = (len(prior) + 8) * EPS * float((terms.abs() + q).sum())
    return _half_sum([2 * terms], slack=2 * slack)


def normal_rows(
    bits: Stream, first: int, rows: int, columns: int
) -> Float64[Tensor, "rows columns"]:
    """Independent standard normal values, each a function of the stream, its row and its column.

    Row i takes the words from i w on, w being ``columns`` rounded up to an even number: half of
    them are radii and the other half angles (Box & Muller 1958); cosines come first.
    """
    half = (columns + 1) // 2
    words = bits.words(first * 2 * half, rows * 2 * half).view(rows, 2, half)
    return torch.cat(normals(words[:, 0], words[:, 1]), dim=1)[:, :columns]


def uniform_rows(
    bits: Stream, first: int, rows: int, columns: int
) -> Float64[Tensor, "rows columns"]:
    """Independent values from the middles of 2^53 equal parts of (0, 1), a word for each."""
    words = bits.words(first * columns, rows * columns).view(rows, columns)
    return ((words >> 11) & ((1 << 53) - 1)).to(torch.float64).add(0.5).mul(2.0**-53)


def _half_sum(terms: list[Float64[Tensor, "..."]], slack: float = 0.0) -> float:
    """Half the sum of all terms, rounded up; at least 0, as a divergence is.

    Each term is right to a few units in its last digit (a logarithm: in that of 1). Blocks are
    added in any order, with an error below their length times that unit times the sum of their
    sizes; the blocks' sums are added exactly.

    Args:
        terms: What is added.
        slack: Further error of the terms themselves.
    """
    total = math.fsum(part for term in terms for part in _block_sums(term))
    size = math.fsum(part for term in terms for part in _block_sums(term.abs()))
    longest = min(BLOCK, max(term.numel() for term in terms))
    error = 2 * (longest + 8) * EPS * size + slack
    return max(0.0, math.nextafter((total + error) / 2, math.inf))


def _block_sums(term: Float64[Tensor, "..."]) -> list[float]:
    return [float(block.sum()) for block in torch.split(term.flatten(), BLOCK)]


def _must_be_factor(mean: Float[Tensor, "dim"], factor: Float[Tensor, "dim dim"]) -> None:
    _must_be_finite("a mean and a factor", mean, factor)
    _must_be_positive("the factor's diagonal", factor.diagonal())
    if bool((factor.triu(1) != 0).any()):
        raise UsageError("a Cholesky factor must be zero on the other side of its diagonal")


def _must_be_finite(what: str, *tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise UsageError(f"{what} must be finite numbers, but some are not")


def _must_be_positive(what: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if not bool((tensor > 0).all() and torch.isfinite(tensor).all()):
            raise UsageError(
                f"{what} must be finite and above 0, but the smallest is {float(tensor.min()):g}; "
                "a posterior without spread has no finite divergence from a prior with a density"
            )
