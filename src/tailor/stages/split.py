"""The split of Shin (2021): a few large entries, and many small ones that noise may replace.

The paper's program keeps what is larger than one standard deviation, and draws the rest anew.
Zeros in place of noise are better in mean square, and sparse: for noise G that is independent of
the removed part A and has mean 0, E||(A - G) x||^2 = ||A x||^2 + E||G x||^2. So zero is the
default here; the noise is there to reproduce the paper, and to ask how much noise a layer bears.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.numerics.truncation import double
from tailor.stages.allocate import Allocation, ByError
from tailor.stages.scores import Magnitude
from tailor.stages.scores.smallest import smallest_dropped
from tailor.weights.layer import Layer

Refill: TypeAlias = Literal["zero", "redraw_matched", "redraw_global"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """A matrix as the sum of its large and its small entries.

    Attributes:
        keep: Where the large ones are.
        large: The matrix with zeros where the small ones are.
        small: The matrix with zeros where the large ones are.
        threshold: Size of the largest small entry; all larger ones are kept, and of those equal
            to it the last. 0 if there is none.
        kept: Number of large entries.
        energy_kept: Their share of the sum of squares; 1 for a matrix of zeros.
        rule: How many were kept, as text.
    """

    keep: Bool[Tensor, "out in"]
    large: Float[Tensor, "out in"]
    small: Float[Tensor, "out in"]
    threshold: float
    kept: int
    energy_kept: float
    rule: str

    @property
    def share(self) -> float:
        """Large entries over all entries."""
        return self.kept / self.keep.numel()


def split(matrix: Shaped[Tensor, "*shape"], rule: Allocation | int | float | None = None) -> Split:
    """Keep the largest entries of a matrix.

    Args:
        matrix: Any real matrix, flattened if it is a kernel; it stays as it is.
        rule: How many to keep: a number of entries, a share of them in (0, 1), or an allocation
            that finds its own sparsity. ``ByError()`` if none is given: as few as leave a relative
            error of 0.1. ``ByDeviation()`` is the rule of the paper's program, ``ByTailIndex()``
            that of its theory.

    Raises:
        UsageError: The matrix is not real, not two-dimensional or empty, or the rule does not
            apply to it, for instance since its entries have a finite variance.
        NonFinite: An entry is NaN or infinite.
    """
    W = _checked(matrix)
    chosen = ByError() if rule is None else rule
    drop = W.numel() - _kept(W, chosen)
    keep = smallest_dropped(W.abs(), drop)
    small = W.masked_fill(keep, 0)
    whole, lost = float(W.square().sum()), float(small.square().sum())
    return Split(
        keep=keep,
        large=matrix.detach().masked_fill(~keep, 0),
        small=small.to(matrix),
        threshold=float(small.abs().max()),
        kept=W.numel() - drop,
        energy_kept=1 - lost / whole if whole else 1.0,
        rule=repr(chosen),
    )


def _checked(matrix: Tensor) -> Float64[Tensor, "out in"]:
    if matrix.ndim != 2 or matrix.numel() == 0 or not matrix.is_floating_point():
        raise UsageError(
            f"a split needs a real matrix with entries, but got a tensor of shape "
            f"{tuple(matrix.shape)} and type {str(matrix.dtype).removeprefix('torch.')}; "
            "flatten(1) makes a matrix of a kernel"
        )
    odd = int((~torch.isfinite(matrix.detach())).sum())
    if odd:
        raise NonFinite(f"the matrix holds {odd} NaN or infinite values; mend or reload it")
    return double(matrix)


def _kept(W: Float64[Tensor, "out in"], rule: Allocation | int | float) -> int:
    """How many entries are kept."""
    if isinstance(rule, Allocation):
        layer = Layer(
            name="matrix", key="matrix", shape=tuple(W.shape), dtype="float64", load=lambda: W
        )
        return W.numel() - rule.allocate([layer], None, score=Magnitude()).dropped("matrix")
    if isinstance(rule, bool) or not (isinstance(rule, int) or 0 < rule < 1):
        raise UsageError(
            f"a number of entries to keep, a share in (0, 1) or an allocation is needed, but got "
            f"{rule!r}"
        )
    kept = rule if isinstance(rule, int) else round(rule * W.numel())
    if not 0 <= kept <= W.numel():
        raise UsageError(f"{kept} of {W.numel()} entries cannot be kept")
    return kept


def refill(parts: Split, mode: Refill = "zero", *, seed: int = 0) -> Float[Tensor, "out in"]:
    """The matrix with something else in place of its small entries.

    Args:
        parts: From ``split``.
        mode: ``"zero"``; ``"redraw_matched"``, normal values with the mean and the standard
            deviation of the small entries; or ``"redraw_global"``, with those of all entries, as in
            the paper's program.
        seed: Of the normal values.

    Raises:
        UsageError: There is no such mode.
    """
    mean, spread = _law(parts, mode)
    if mode == "zero":
        return parts.large.clone()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(parts.large.shape, generator=generator, dtype=torch.float64)
    drawn = (mean + spread * noise).to(parts.large)
    return torch.where(parts.keep, parts.large, drawn)


def _law(parts: Split, mode: Refill) -> tuple[float, float]:
    """Mean and standard deviation of what replaces the small entries."""
    if mode == "zero":
        return 0.0, 0.0
    if mode == "redraw_matched":
        values = double(parts.small)[~parts.keep]
    elif mode == "redraw_global":
        values = double(parts.large + parts.small).flatten()
    else:
        raise UsageError(
            f'the mode must be "zero", "redraw_matched" or "redraw_global", but is {mode!r}'
        )
    if len(values) == 0:
        return 0.0, 0.0
    return float(values.mean()), float(values.std()) if len(values) > 1 else 0.0


def output_error(
    matrix: Float[Tensor, "out in"],
    other: Float[Tensor, "_ _"],
    inputs: Float[Tensor, "n _"],
) -> Float64[Tensor, "n"]:
    """||(W' - W) x|| / ||W x|| for each input x; 0 where both are 0.

    Raises:
        UsageError: The shapes do not fit.
    """
    if matrix.shape != other.shape or inputs.ndim != 2 or inputs.shape[1] != matrix.shape[1]:
        raise UsageError(
            "two matrices of one shape and inputs as rows are needed, but got "
            f"{tuple(matrix.shape)}, {tuple(other.shape)} and {tuple(inputs.shape)}"
        )
    X, W = double(inputs), double(matrix)
    changed = torch.linalg.vector_norm(X @ (double(other) - W).mT, dim=1)
    plain = torch.linalg.vector_norm(X @ W.mT, dim=1)
    return torch.where(changed == 0, 0.0, changed / plain)


def redraw_flip_bound(
    parts: Split,
    inputs: Float[Tensor, "n _"],
    labels: Int[Tensor, "_"],
    *,
    bias: Float[Tensor, "out"] | None = None,
    mode: Refill = "redraw_matched",
) -> Float64[Tensor, "n"]:
    """For each input, a bound on the probability that a redraw moves it away from its class.

    The matrix is that of the last layer, and z the scores at the mean of what is drawn. With
    independent normal noise of standard deviation s, the difference of the scores of the classes y
    and j has the variance s^2 (||x on the small entries of row y||^2 + the same for j), and

        P(flip) <= sum over j of Phi(-(z_y - z_j) / that standard deviation),

    at most 1, by a union bound over the classes. It holds for every input, and is loose: the
    differences share the noise of row y.

    Args:
        parts: From ``split``.
        inputs: What the last layer sees.
        labels: The class of each, such as the one that the network says.
        bias: Of the last layer.
        mode: What is drawn, as for ``refill``.

    Raises:
        UsageError: The shapes do not fit, or there is no such class or mode.
    """
    n, (out, columns) = len(inputs), parts.keep.shape
    if inputs.shape != (n, columns) or labels.shape != (n,) or not _classes(labels, out):
        raise UsageError(
            f"inputs of {columns} numbers and labels from 0 to {out - 1} are needed, but got "
            f"shapes {tuple(inputs.shape)} and {tuple(labels.shape)}"
        )
    mean, spread = _law(parts, mode)
    X, drawn = double(inputs), (~parts.keep).to(torch.float64)
    z = X @ (double(parts.large) + mean * drawn).mT
    z = z if bias is None else z + double(bias[None])
    power = X.square() @ drawn.mT
    at = labels[:, None]
    margin = z.gather(1, at) - z
    deviation = spread * (power.gather(1, at) + power).sqrt()
    certain = torch.where(margin > 0, -math.inf, math.inf)
    chance = torch.special.ndtr(torch.where(deviation > 0, -margin / deviation, certain))
    bound: Tensor = chance.scatter(1, at, 0.0).sum(dim=1).clamp(max=1.0)
    return bound


def _classes(labels: Tensor, out: int) -> bool:
    whole = not labels.is_floating_point() and not labels.is_complex()
    return whole and bool(((labels >= 0) & (labels < out)).all())
