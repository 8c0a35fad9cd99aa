"""A Gaussian with all correlations over the last layer, on features that no data went into."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.counter import Stream
from tailor.numerics.posteriors import normal_rows
from tailor.stages.certify.gibbs.posterior import Posterior, pieces
from tailor.tasks import Data

CHUNK = 1 << 24  # numbers that are held at a time


class GaussianHead(Posterior):
    """Class scores linear in features, with a Gaussian law over the coefficients.

    Scores of C classes matter up to a common shift only, so the coefficients are those of C - 1
    contrasts: an orthonormal basis of the scores that sum to zero (Helmert's). The common part
    would follow the prior and cost nothing; here it is left out. Errors do not depend on the
    scale of the coefficients either, so a prior needs no grid of scales.

    Given an example, its scores are Gaussian with a known mean and covariance. They are drawn
    from that law, which is the law of the scores of a fresh network.

    Args:
        features: Frozen first layers.
        width: Number of features.
        classes: Number of classes.
    """

    def __init__(self, features: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        if width < 1 or classes < 2:
            raise UsageError(f"needs features and 2 classes, but got {width} and {classes}")
        self.features, self.width, self.classes = features, width, classes
        size = width * (classes - 1)
        self.mean = nn.Parameter(torch.zeros(classes - 1, width))
        # The rows of the Cholesky factor of the covariance, up to the diagonal, one by one.
        self.factor = nn.Parameter(torch.zeros(size * (size + 1) // 2))
        with torch.no_grad():
            self.factor[torch.arange(1, size + 1).cumsum(0) - 1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the mean predictor."""
        means: Tensor = self.features(x).to(self.mean.dtype) @ self.mean.T
        return means @ contrasts(self.classes).T.to(means.dtype)

    def triangle(self) -> Float[Tensor, "dim dim"]:
        """The Cholesky factor as a matrix, in float64."""
        size = self.mean.numel()
        rows, columns = torch.tril_indices(size, size)
        full = torch.zeros(size, size, dtype=torch.float64)
        full[rows, columns] = self.factor.detach().to(torch.float64)
        return full

    def set(self, mean: Float[Tensor, "contrasts width"], factor: Float[Tensor, "dim dim"]) -> None:
        """Take over a mean and a Cholesky factor."""
        rows, columns = torch.tril_indices(len(factor), len(factor))
        with torch.no_grad():
            self.mean.copy_(mean)
            self.factor.copy_(factor[rows, columns])

    def scores(
        self, data: Data, repeats: int, bits: Stream
    ) -> Iterator[tuple[slice, Float[Tensor, "n classes"]]]:
        """See ``Posterior.scores``."""
        means, roots = self._law_of(data)
        n, width = means.shape
        basis = contrasts(self.classes)
        for repeat in range(repeats):
            for part in pieces(n, CHUNK // 16):
                normal = normal_rows(bits, repeat * n + part.start, part.stop - part.start, width)
                drawn = means[part] + (roots[part] @ normal[:, :, None]).squeeze(2)
                yield part, drawn @ basis.T

    def _law_of(
        self, data: Data
    ) -> tuple[Float[Tensor, "n contrasts"], Float[Tensor, "n contrasts contrasts"]]:
        """Mean of each example's contrasts, and the Cholesky factor of their covariance.

        A covariance that is not positive within rounding has a factor of NaN, which counts as
        an error.
        """
        triangle, mean = self.triangle(), self.mean.detach().to(torch.float64)
        blocks = triangle.view(len(mean), self.width, -1)
        means, roots = [], []
        for part in pieces(len(data), max(1, CHUNK // mean.numel() // len(mean))):
            features = self.features(data.x[part].to(torch.float64)).to(torch.float64)
            means.append(features @ mean.T)
            spread = torch.stack([features @ block for block in blocks], dim=1)
            root, failed = torch.linalg.cholesky_ex(spread @ spread.transpose(1, 2))
            roots.append(torch.where(failed[:, None, None] == 0, root, math.nan))
        return torch.cat(means), torch.cat(roots)


def contrasts(classes: int) -> Float[Tensor, "classes contrasts"]:
    """Helmert's orthonormal basis of the vectors that sum to zero."""
    basis = torch.zeros(classes, classes - 1, dtype=torch.float64)
    for k in range(1, classes):
        basis[:k, k - 1], basis[k, k - 1] = 1.0, -float(k)
        basis[:, k - 1] /= math.sqrt(k * (k + 1))
    return basis
