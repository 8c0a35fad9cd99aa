"""Laws of whole networks whose weights are independent: Gaussian, or on the levels of a grid."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tailor.errors import UsageError
from tailor.numerics.counter import Stream
from tailor.numerics.posteriors import normal_rows, uniform_rows
from tailor.stages.certify.gibbs.posterior import Posterior, pieces
from tailor.tasks import Data

CHUNK = 1 << 22  # weights that are drawn at a time


class IndependentWeights(Posterior):
    """A network whose weights are independent; every draw makes all of them anew.

    Local reparametrisation and one network for a batch would save time, but then the draws of
    different examples are not independent in general, and the pooled count is not what its
    interval is for.
    """

    network: nn.Module

    @abstractmethod
    def shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of the weights, in the order of the parameters."""

    @abstractmethod
    def weights(self, bits: Stream, first: int, rows: int) -> Float64[Tensor, "rows weights"]:
        """All weights of some networks, one network in a row, in the order of the parameters."""

    def scores(
        self, data: Data, repeats: int, bits: Stream
    ) -> Iterator[tuple[slice, Float[Tensor, "n classes"]]]:
        """See ``Posterior.scores``."""
        shapes = self.shapes()
        sizes = [shape.numel() for shape in shapes.values()]

        def one(weights: Tensor, x: Tensor) -> Tensor:
            parts = zip(shapes.items(), torch.split(weights, sizes), strict=True)
            named = {name: part.view(shape) for (name, shape), part in parts}
            scores: Tensor = functional_call(self.network, named, (x[None],))
            return scores[0]

        for repeat in range(repeats):
            for part in pieces(len(data), max(1, CHUNK // sum(sizes))):
                first = repeat * len(data) + part.start
                weights = self.weights(bits, first, part.stop - part.start)
                x = data.x[part]
                x = x.to(torch.float64) if x.is_floating_point() else x
                yield part, vmap(one)(weights, x)


class GaussianWeights(IndependentWeights):
    """Independent normal weights, in any network without buffers of its own.

    Args:
        build: Makes the network of the means.
        deviation: Standard deviation of each weight before any fit.
    """

    def __init__(self, build: Callable[[], nn.Module], deviation: float = 1.0) -> None:
        super().__init__()
        self.network = _bare(build())
        self.deviation = copy.deepcopy(self.network)
        with torch.no_grad():
            for weight in self.deviation.parameters():
                weight.fill_(deviation)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the mean network."""
        scores: Tensor = self.network(x)
        return scores

    def shapes(self) -> dict[str, torch.Size]:
        """See ``IndependentWeights.shapes``."""
        return {name: weight.shape for name, weight in self.network.named_parameters()}

    def pairs(self) -> list[tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]]:
        """Means and deviations of each tensor, in float64."""
        both = zip(self.network.parameters(), self.deviation.parameters(), strict=True)
        return [(a.detach().to(torch.float64), b.detach().to(torch.float64)) for a, b in both]

    def weights(self, bits: Stream, first: int, rows: int) -> Float64[Tensor, "rows weights"]:
        """See ``IndependentWeights.weights``."""
        mean, deviation = (
            torch.cat([t.flatten() for t in ts]) for ts in zip(*self.pairs(), strict=True)
        )
        return mean + deviation * normal_rows(bits, first, rows, len(mean))


class DiscreteWeights(IndependentWeights):
    """Independent weights, each on the levels of a grid, in any network without buffers.

    In place of a weight stand its probabilities, along one more axis.

    Args:
        build: Makes the network; its weights only give names and shapes.
        levels: Values that a weight may take, rising.
    """

    def __init__(
        self, build: Callable[[], nn.Module], levels: tuple[float, ...] = (-1.0, 0.0, 1.0)
    ) -> None:
        super().__init__()
        if len(levels) < 2 or sorted(set(levels)) != list(levels):
            raise UsageError(f"needs two or more different levels, rising, but got {levels}")
        self.levels = levels
        self.network = _bare(build())
        for module in self.network.modules():
            for name, weight in [*module._parameters.items()]:
                if weight is not None:
                    table = torch.full((*weight.shape, len(levels)), 1 / len(levels))
                    module._parameters[name] = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the likeliest network."""
        named = {
            name: self._values(table)[table.argmax(dim=-1)]
            for name, table in self.network.named_parameters()
        }
        scores: Tensor = functional_call(self.network, named, (x,))
        return scores

    def shapes(self) -> dict[str, torch.Size]:
        """See ``IndependentWeights.shapes``."""
        return {name: table.shape[:-1] for name, table in self.network.named_parameters()}

    def tables(self) -> list[Float64[Tensor, "weights levels"]]:
        """Probabilities of each tensor's weights, in float64."""
        width = len(self.levels)
        tables = self.network.parameters()
        return [table.detach().to(torch.float64).reshape(-1, width) for table in tables]

    def weights(self, bits: Stream, first: int, rows: int) -> Float64[Tensor, "rows weights"]:
        """See ``IndependentWeights.weights``: the level at which the sum passes the value."""
        table = torch.cat(self.tables())
        reached = table.cumsum(dim=1)
        uniform = uniform_rows(bits, first, rows, len(table)) * reached[:, -1]
        level = (uniform[:, :, None] >= reached[None, :, :-1]).sum(dim=2)
        return self._values(table)[level]

    def _values(self, like: Tensor) -> Tensor:
        return torch.tensor(self.levels, dtype=like.dtype)


def _bare(network: nn.Module) -> nn.Module:
    """The network, if its state is its parameters alone.

    Raises:
        UsageError: It has buffers that a file would hold.
    """
    own = {name for name, _ in network.named_parameters()}
    others = [name for name in network.state_dict() if name not in own]
    if others:
        raise UsageError(
            f"a law of weights needs a network without buffers, but it has {others[0]}; fold "
            "running statistics into the weights, or declare the part with Frozen"
        )
    return network
