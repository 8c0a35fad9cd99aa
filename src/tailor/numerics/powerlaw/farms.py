"""FARMS (Hu et al. 2025): spectra of windows of one fixed aspect ratio, then a fit of the tail."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit
from tailor.numerics.powerlaw.hill import HillMid

BLOCK = 1 << 24  # entries of the windows that are decomposed at once, 128 MiB in float64


class MatrixFit(ABC):
    """An estimator of a density exponent that needs the matrices, not only their spectrum.

    Attributes:
        exponent_of_tail: As for ``TailFit``.
    """

    exponent_of_tail: ClassVar[bool] = False

    @abstractmethod
    def fit_matrices(self, stack: Float[Tensor, "count rows columns"]) -> PowerLawFit | NoFit:
        """Fit the matrices of one layer together; a convolution has one per kernel position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FARMS(MatrixFit):
    """Fixed-aspect-ratio sampling of Hu et al. (2025), geometry as in their published code.

    The shape of a spectrum depends on the aspect ratio of its matrix (Marchenko & Pastur 1967).
    Windows of one aspect ratio make layers of different shape comparable.

    One matrix: windows of min(window, rows, columns) rows and ``ratio`` times as many columns
    at up to ``windows`` x ``windows`` even places; their eigenvalues are pooled and fitted.
    Several matrices (a convolution's kernel positions): each is turned upright and cut into
    rows // columns square blocks one below the other (their columns times ``ratio`` for
    ratios below 1, their rows divided by it above); the eigenvalues of each block are pooled
    over the matrices and fitted, and the exponents of the blocks are averaged. The published
    code also multiplies a convolution by sqrt(1/2), which moves xmin and nothing else; here
    the matrices stay as they are.

    sigma is the fit's own, times the square root of the number of windows that a covered
    entry lies in on average, since a fit counts it that often; over blocks it is that of a mean
    of independent exponents. What HillMid says of its scale holds here too: pure noise gives 2.12,
    and columns with Pareto scales that make tails of alpha 2.5 and 4 give 1.88 and 2.04.

    Attributes:
        window: Rows of a window (100 for image models, 2000 for language models; Hu et al.).
        ratio: Columns of a window over its rows (1; Hu et al.).
        windows: Places along each axis (9 for image models, 10 or 15 for language models).
        fit: Fit of the pooled eigenvalues (HillMid, as published for image models; XminPeak
            for language models).

    Raises:
        UsageError: A window without area, or fewer than two places along an axis.
    """

    window: int = 100
    ratio: float = 1.0
    windows: int = 9
    fit: TailFit = field(default_factory=HillMid)

    def __post_init__(self) -> None:
        if self.window < 1 or not 0 < self.ratio < float("inf"):
            raise UsageError(
                f"window must be at least 1 and ratio positive, but are {self.window}, {self.ratio}"
            )
        if self.windows < 2:
            raise UsageError(f"windows must be at least 2 along an axis, but is {self.windows}")

    def fit_matrices(self, stack: Float[Tensor, "count rows columns"]) -> PowerLawFit | NoFit:
        """See ``MatrixFit.fit_matrices``.

        Raises:
            UsageError: A weight is NaN or infinite.
        """
        if 0 in stack.shape:
            return NoFit(reason=f"a stack of shape {tuple(stack.shape)} has no entries", n=0)
        if not bool(torch.isfinite(stack).all()):
            raise UsageError("FARMS needs finite weights, but some are NaN or infinite")
        matrices = stack.detach()
        return self._fit_one(matrices[0]) if len(matrices) == 1 else self._fit_several(matrices)

    def _fit_one(self, matrix: Float[Tensor, "rows columns"]) -> PowerLawFit | NoFit:
        """All windows of a matrix pooled."""
        rows, columns = matrix.shape
        height = max(1, min(self.window, rows, columns, int(columns / self.ratio)))
        width = max(1, int(height * self.ratio))
        grid, overlap = matrix, 1.0
        for axis, size in enumerate((height, width)):
            length = matrix.shape[axis]
            step = max(1, (length - size) // (self.windows - 1))
            places = min(self.windows, (length - size) // step + 1)
            grid = grid.unfold(axis, size, step).narrow(axis, 0, places)
            overlap *= places * size / (size + (places - 1) * min(step, size))
        return _widened(self.fit.fit(_pooled(grid)), overlap**0.5)

    def _fit_several(self, stack: Float[Tensor, "count rows columns"]) -> PowerLawFit | NoFit:
        """The mean over the blocks of upright matrices."""
        tall = stack if stack.shape[1] >= stack.shape[2] else stack.mT
        columns = tall.shape[2]
        height = max(1, int(columns / max(1.0, self.ratio)))
        width = max(1, int(columns * min(1.0, self.ratio)))
        fits = []
        for block in range(tall.shape[1] // columns):
            part = tall[:, block * height : (block + 1) * height, :width]
            fit = self.fit.fit(_pooled(part))
            if isinstance(fit, NoFit):
                return fit
            fits.append(fit)
        return _mean(fits)


def _pooled(windows: Float[Tensor, "*places height width"]) -> Float[ndarray, "n"]:
    """Eigenvalues of all windows, without those that are rounding error of their window."""
    height, width = windows.shape[-2:]
    pool = []
    # Rows of windows, so that the views are copied no more than a block at a time.
    for row in windows.unbind() if windows.ndim > 3 else [windows]:
        for some in torch.split(row, max(1, BLOCK // (height * width))):
            squares = torch.linalg.svdvals(some.to("cpu", torch.float64)).square()
            floor = max(height, width) * torch.finfo(torch.float64).eps * squares[:, :1]
            pool.append(squares[squares > floor])
    return np.asarray(torch.cat(pool).numpy(), dtype=np.float64)


def _widened(fit: PowerLawFit | NoFit, factor: float) -> PowerLawFit | NoFit:
    """The same exponent with the distances to the ends of its interval times ``factor``."""
    if isinstance(fit, NoFit):
        return fit
    return replace(
        fit,
        sigma=factor * fit.sigma,
        low=max(1.0, fit.alpha - factor * (fit.alpha - fit.low)),
        high=fit.alpha + factor * (fit.high - fit.alpha),
    )


def _mean(fits: list[PowerLawFit]) -> PowerLawFit:
    """The mean exponent of independent fits, with the means of xmin and D beside it."""
    alpha = float(np.mean([fit.alpha for fit in fits]))
    sigma = float(np.sqrt(np.sum([fit.sigma**2 for fit in fits])) / len(fits))
    return PowerLawFit(
        alpha=alpha,
        sigma=sigma,
        low=max(1.0, alpha - NORMAL_975 * sigma),
        high=alpha + NORMAL_975 * sigma,
        interval="asymptotic",
        xmin=float(np.mean([fit.xmin for fit in fits])),
        xmax=max(fit.xmax for fit in fits),
        D=float(np.mean([fit.D for fit in fits])),
        n_tail=sum(fit.n_tail for fit in fits),
        n=sum(fit.n for fit in fits),
    )
