"""What Arora et al. (2018) measure on each example, before any minimum is taken."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.measures.chain import Chain, Link, norms, outputs, pieces, tangents
from tailor.stages.measures.jacobian import Counting, Squares, jacobian_squares
from tailor.tasks import Data

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByExample:
    """Every quantity of every example. An infinite cushion says that nothing limits it there.

    Attributes:
        scores: What the network gives.
        layer: Layer cushions.
        contraction: ||x^i|| / ||phi(x^i)|| of each hidden layer; infinite where all activations
            are zero, and 1 without a ReLU.
        between: Interlayer cushions.
        error: Their standard errors; 0 where they are exact.
        spread: Factors beta by which the Jacobian at one pixel exceeds an even share.
        gap: Largest ||x^j - J^{i,j} x^i|| / ||x^j||: 0 without biases, up to rounding.
        exact: Which pairs were computed row by row.
        shapes: Of each layer's values: channels, then pixels.
    """

    scores: Float[Tensor, "n classes"]
    layer: tuple[Float[Tensor, "n"], ...]
    contraction: tuple[Float[Tensor, "n"], ...]
    between: dict[Pair, Float[Tensor, "n"]]
    error: dict[Pair, Float[Tensor, "n"]]
    spread: dict[Pair, Float[Tensor, "n"]]
    gap: Float[Tensor, "n"]
    exact: dict[Pair, bool]
    shapes: tuple[tuple[int, int], ...]

    def kept(self, outliers: float) -> Bool[Tensor, "n"]:
        """The examples that are not among the worst share for any quantity."""
        n = len(self.scores)
        worst = math.floor(outliers * n)
        keep = torch.ones(n, dtype=torch.bool)
        largest = [*self.contraction, *self.spread.values()]
        largest += [-one for one in (*self.layer, *self.between.values())]
        for values in largest:
            keep[values.argsort(descending=True, stable=True)[:worst]] = False
        return keep


def measure(chain: Chain, data: Data, counting: Counting, generator: torch.Generator) -> ByExample:
    """Measure all examples, some at a time.

    Raises:
        UsageError: A layer is all zeros, or the network cannot be run on the data.
    """
    for link in chain:
        if not bool(link.module.weight.any()):
            raise UsageError(f"{link.name} is all zeros; a cushion compares its output with it")
    return _joined([_piece(chain, x, counting, generator) for x in pieces(chain, data)])


@torch.no_grad()
def _piece(chain: Chain, x: Tensor, counting: Counting, generator: torch.Generator) -> ByExample:
    values = outputs(chain, x)
    sizes = [norms(one) for one in values]
    with torch.enable_grad():
        squares = jacobian_squares(chain, x, counting, generator)
    between: dict[Pair, Tensor] = {}
    error: dict[Pair, Tensor] = {}
    gap = torch.zeros(len(x), dtype=x.dtype)
    for i in range(len(chain) - 1):
        _, slopes = tangents(chain, i, values[i], values[i])
        for j, slope in enumerate(slopes, start=i + 1):
            between[i, j], error[i, j] = _interlayer(slope, sizes[i], squares[i, j])
            gap = torch.maximum(gap, _ratio(norms(values[j] - slope), sizes[j], empty=0.0))
    return ByExample(
        scores=values[-1],
        layer=tuple(
            _layer(link, before) for link, before in zip(chain, [x, *values[:-1]], strict=True)
        ),
        contraction=tuple(
            _contraction(link, one) for link, one in zip(chain[1:], values[:-1], strict=True)
        ),
        between=between,
        error=error,
        spread={pair: _spread(one) for pair, one in squares.items()},
        gap=gap,
        exact={pair: one.exact for pair, one in squares.items()},
        shapes=tuple((one.shape[1], one[0].numel() // one.shape[1]) for one in values),
    )


def _layer(link: Link, before: Tensor) -> Float[Tensor, "n"]:
    """||A u|| / (||A||_F ||u||); the norm of a kernel is that of its entries, each counted once."""
    u = link.enter(before)
    return _ratio(norms(link.linear(u)), link.module.weight.norm() * norms(u))


def _contraction(after: Link, x: Tensor) -> Float[Tensor, "n"]:
    """||x|| / ||phi(x)|| of the values that go into a ReLU."""
    size = norms(x)
    return _ratio(size, norms(x.clamp(min=0))) if after.activated else torch.ones_like(size)


def _interlayer(
    slope: Tensor, size: Float[Tensor, "n"], squares: Squares
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """sqrt(pixels) ||J x|| / (||J||_F ||x||), and its standard error by the delta method."""
    pixels = squares.by_pixel.shape[1]
    mu = _ratio(math.sqrt(pixels) * norms(slope), squares.total.sqrt() * size)
    off = mu * _ratio(squares.error, 2 * squares.total, empty=0.0)
    return mu, torch.where(mu.isfinite(), off, 0.0)


def _spread(squares: Squares) -> Float[Tensor, "n"]:
    """The largest of sqrt(pixels) ||J at a pixel||_F / ||J||_F."""
    pixels = squares.by_pixel.shape[1]
    most = squares.by_pixel.amax(dim=1).sqrt()
    return _ratio(math.sqrt(pixels) * most, squares.total.sqrt(), empty=1.0)


def _ratio(above: Tensor, below: Tensor, *, empty: float = math.inf) -> Tensor:
    """The quotient, and ``empty`` where both are zero."""
    return torch.where((above == 0) & (below == 0), empty, above / below)


def _joined(parts: list[ByExample]) -> ByExample:
    def along(name: str) -> dict[Pair, Tensor]:
        keys = getattr(parts[0], name)
        return {key: torch.cat([getattr(part, name)[key] for part in parts]) for key in keys}

    def each(name: str) -> tuple[Tensor, ...]:
        lists = zip(*(getattr(part, name) for part in parts), strict=True)
        return tuple(torch.cat(one) for one in lists)

    return ByExample(
        scores=torch.cat([part.scores for part in parts]),
        layer=each("layer"),
        contraction=each("contraction"),
        between=along("between"),
        error=along("error"),
        spread=along("spread"),
        gap=torch.cat([part.gap for part in parts]),
        exact=parts[0].exact,
        shapes=parts[0].shapes,
    )


def reach(link: Link) -> int:
    """In how many places a kernel sees one input: the product of ceil(width / stride)."""
    module = link.module
    if isinstance(module, nn.Linear):
        return 1
    sides = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    return math.prod(k if d > 1 else -(-k // s) for k, s, d in sides)
