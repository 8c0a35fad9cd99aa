"""The measured quantities of Arora, Ge, Neyshabur & Zhang (2018), and what they add up to."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.measures.chain import Chain, chain_of
from tailor.stages.measures.cushions import ByExample, measure, reach
from tailor.stages.measures.effective import EffectiveParameters, Ingredients, effective
from tailor.stages.measures.explanatory import Explanatory
from tailor.stages.measures.jacobian import Counting
from tailor.stages.measures.margin import margin_loss, margin_values, quantile
from tailor.stages.measures.project import GaussianNoise, Noise
from tailor.stages.measures.smoothness import Smoothness, smoothness
from tailor.tasks import Data

EXACT_ROWS = 1024  # backward passes that we think bearable; tuned by us
PROBES = 64  # random signs: a relative standard error of about 0.1 for a norm; tuned by us
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class InterlayerCushion:
    """The interlayer cushion of one pair of layers.

    Attributes:
        onto: The later layer j.
        value: Smallest over the examples of sqrt(pixels) ||J x|| / (||J||_F ||x||); None if no
            example limits it.
        exact: Whether ||J||_F was computed; otherwise it is Hutchinson's estimate, and the
            smallest of estimates is too small on average.
        standard_error: Of the example that gave the value; 0 where exact.
    """

    onto: str
    value: float | None
    exact: bool
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMeasures:
    """What was measured at one layer, over the examples that were kept.

    Attributes:
        name: Of the layer.
        weights: Number of entries of its matrix or kernel.
        width: Units, or channels.
        pixels: Places of each channel; 1 for a linear layer.
        cushion: Layer cushion mu: the smallest ||A u|| / (||A||_F ||u||). None if all inputs are
            zero.
        sensitivity: Mean noise sensitivity ||A||_F^2 ||u||^2 / ||A u||^2 to Gaussian noise on u,
            at least the stable rank for a matrix; None if it is infinite for an example.
        interlayer: Cushions from this layer to the later ones.
        minimal_cushion: The smallest of them and 1 / sqrt(width).
        contraction: The largest ||x|| / ||phi(x)||; None where it is infinite.
        silent: Number of examples for which all activations are zero.
        first_silent: The first few of them, by their place in the data.
        spread: The beta for which the Jacobians are well distributed over the pixels; 1 if linear.
        reach: ceil(side / stride) of the kernel, multiplied over its sides; 1 if linear.
        effective: contraction^2 spread^2 reach / (cushion^2 minimal_cushion^2), by which layers
            are compared; None if a factor is.
    """

    name: str
    weights: int
    width: int
    pixels: int
    cushion: float | None
    sensitivity: float | None
    interlayer: tuple[InterlayerCushion, ...]
    minimal_cushion: float
    contraction: float | None
    silent: int
    first_silent: tuple[int, ...]
    spread: float
    reach: int
    effective: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AroraMeasures(Explanatory):
    """Noise stability of a network on a sample, as in Arora et al. (2018).

    Attributes:
        n: Number of examples.
        left_out: Share of the examples that were left out as outliers of any quantity; a bound
            would have to add it.
        gamma_quantile: Share of the examples whose margin may be smaller than gamma.
        gamma: The margin.
        margin_loss: Share of examples with margin at most gamma.
        margin_loss_twice: The same for 2 gamma, which closeness gamma in each score needs.
        largest_output: Largest norm of an example's scores.
        contraction: Activation contraction c: the largest over all hidden layers; None where it
            is infinite.
        smoothness: Interlayer smoothness; None with a single layer.
        layers: By layer.
        effective: What it adds up to.
        homogeneous: Whether M(x) = J x, up to rounding, as the theorem needs: there are no biases.
        identity_gap: Largest ||x^j - J x^i|| / ||x^j||.
        seed: Of noise and estimates.
        notes: What departs from the paper's setting, in words.
    """

    n: int
    left_out: float
    gamma_quantile: float
    gamma: float
    margin_loss: float
    margin_loss_twice: float
    largest_output: float
    contraction: float | None
    smoothness: Smoothness | None
    layers: tuple[LayerMeasures, ...]
    effective: EffectiveParameters
    homogeneous: bool
    identity_gap: float
    seed: int
    notes: tuple[str, ...]
    why_not: str = (
        "These are extremes over the training sample; the theorem that uses them is about a "
        "compressed network and not this one, hides constants, logarithms and the price of "
        "writing numbers down, and exceeds 1 by far in practice."
    )


def arora(
    model: nn.Module,
    data: Data,
    *,
    gamma_quantile: float = 0.05,
    outliers: float = 0.0,
    delta: float = 0.05,
    noise: Noise | None = None,
    draws: int = 20,
    exact_rows: int = EXACT_ROWS,
    probes: int = PROBES,
    seed: int = 0,
) -> AroraMeasures:
    """Measure the cushions of a network, its contraction and its smoothness on a sample.

    The network is a chain of ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d`` with ReLU, pooling and
    reshaping between them; it is copied and evaluated in float64. Memory is bounded: examples
    and rows of Jacobians are taken some at a time. With biases J x is found by differentiation,
    and the record says that the theorem no longer holds.

    Args:
        model: The network; it ends with its class scores.
        data: The sample; the paper takes the training sample.
        gamma_quantile: gamma is the margin that this share of the examples stays below.
        outliers: Of each quantity this share of worst examples is left out, from all quantities;
            what is left out in all may be more.
        delta: Failure probability of the theorem, and of the noise.
        noise: For the smoothness; ``GaussianNoise()`` if None.
        draws: Of the noise.
        exact_rows: Layers with more values than that have their Jacobians estimated.
        probes: Random vectors of such an estimate.
        seed: Of noise and estimates.

    Raises:
        UsageError: The network is no such chain, a setting is out of range, or gamma is not
            positive: a network that errs on so many examples has no margin to speak of.
        NonFinite: A weight is NaN or infinite.
    """
    _check(gamma_quantile, outliers, delta, draws, exact_rows, probes)
    chain = chain_of(model, who="arora")
    generator = torch.Generator().manual_seed(seed)
    found = measure(chain, data, Counting(exact_rows=exact_rows, probes=probes), generator)
    margin = margin_values(found.scores, data)
    gamma = quantile(margin, gamma_quantile)
    if not gamma > 0:
        raise UsageError(
            f"the margin at quantile {gamma_quantile} is {gamma:.4g}, but a positive one is "
            "needed; train the network further, or take a larger gamma_quantile"
        )
    keep = found.kept(outliers)
    if not bool(keep.any()):
        raise UsageError(f"with outliers={outliers} no example is left; take a smaller share")
    layers = tuple(_layer(chain, i, found, keep) for i in range(len(chain)))
    largest = float(found.scores.norm(dim=1)[keep].max())
    contraction = _worst([one.contraction for one in layers])
    return AroraMeasures(
        n=len(data),
        left_out=float((~keep).double().mean()),
        gamma_quantile=gamma_quantile,
        gamma=gamma,
        margin_loss=margin_loss(margin, gamma),
        margin_loss_twice=margin_loss(margin, 2 * gamma),
        largest_output=largest,
        contraction=contraction,
        smoothness=_smoothness(chain, data.at(keep), noise, draws, delta, seed),
        layers=layers,
        effective=effective(_ingredients(chain, layers, len(data), gamma, largest, delta)),
        homogeneous=all(link.module.bias is None for link in chain),
        identity_gap=float(found.gap.max()),
        seed=seed,
        notes=_notes(chain, data, found, layers),
    )


def _layer(chain: Chain, i: int, found: ByExample, keep: Tensor) -> LayerMeasures:
    link, (width, pixels) = chain[i], found.shapes[i]
    pairs = [(i, j) for j in range(i + 1, len(chain))]
    cushion = _smallest(found.layer[i][keep])
    between = tuple(_between(chain, found, pair, keep) for pair in pairs)
    minimal = min([1 / math.sqrt(width), *(b.value for b in between if b.value is not None)])
    ratios = found.contraction[i] if pairs else torch.ones(len(keep), dtype=torch.float64)
    silent = ratios.isinf().nonzero().flatten().tolist()
    contraction = _finite(ratios[keep].max())
    spread = max([1.0, *(float(found.spread[pair][keep].max()) for pair in pairs)])
    summand = None
    if contraction is not None and cushion and minimal:
        summand = (contraction * spread / (cushion * minimal)) ** 2 * reach(link)
    return LayerMeasures(
        name=link.name,
        weights=link.module.weight.numel(),
        width=width,
        pixels=pixels,
        cushion=cushion,
        sensitivity=_finite(found.layer[i][keep].pow(-2).mean()),
        interlayer=between,
        minimal_cushion=minimal,
        contraction=contraction,
        silent=len(silent),
        first_silent=tuple(silent[:SHOWN]),
        spread=spread,
        reach=reach(link),
        effective=summand,
    )


def _between(
    chain: Chain, found: ByExample, pair: tuple[int, int], keep: Tensor
) -> InterlayerCushion:
    values = found.between[pair][keep]
    return InterlayerCushion(
        onto=chain[pair[1]].name,
        value=_smallest(values),
        exact=found.exact[pair],
        standard_error=float(found.error[pair][keep][int(values.argmin())]),
    )


def _smallest(values: Float[Tensor, "n"]) -> float | None:
    """None if no example limits it."""
    return _finite(values.min())


def _finite(value: Float[Tensor, ""]) -> float | None:
    return float(value) if math.isfinite(value) else None


def _worst(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _smoothness(
    chain: Chain, data: Data, noise: Noise | None, draws: int, failure: float, seed: int
) -> Smoothness | None:
    if len(chain) == 1:
        return None
    how = GaussianNoise() if noise is None else noise
    return smoothness(chain, data, noise=how, draws=draws, failure=failure, seed=seed)


def _ingredients(
    chain: Chain,
    layers: tuple[LayerMeasures, ...],
    n: int,
    gamma: float,
    largest: float,
    delta: float,
) -> Ingredients:
    return Ingredients(
        n=n,
        gamma=gamma,
        largest_output=largest,
        delta=delta,
        weights=sum(one.weights for one in layers),
        widest=max(one.width for one in layers),
        convolutions=any(not isinstance(link.module, nn.Linear) for link in chain),
        contraction=_worst([one.contraction for one in layers]),
        cushions=tuple(one.cushion for one in layers),
        minimal=tuple(one.minimal_cushion for one in layers),
        factors=tuple(one.spread**2 * one.reach for one in layers),
        names=tuple(one.name for one in layers),
    )


def _notes(
    chain: Chain, data: Data, found: ByExample, layers: tuple[LayerMeasures, ...]
) -> tuple[str, ...]:
    """What the reader has to know."""
    said = []
    if any(link.module.bias is not None for link in chain):
        said.append(
            "The network has biases, so M(x) = J x does not hold and the theorem does not apply; "
            "J x was found by differentiation."
        )
    if bool((data.x < 0).any()):
        said.append("Some inputs are negative; the first layer sees them without a ReLU.")
    if not all(found.exact.values()):
        said.append(
            "Jacobians of large layers are Hutchinson's estimates; a smallest estimate is too "
            "small on average."
        )
    for one in layers:
        if one.silent:
            said.append(
                f"All activations after {one.name} are zero for {one.silent} examples, the first "
                f"number {one.first_silent[0]}; the contraction there is infinite."
            )
    if any(link.pools for link in chain):
        said.append("Pooling is taken as a part of what follows the ReLU; the paper has none.")
    return tuple(said)


def _check(
    gamma_quantile: float, outliers: float, delta: float, draws: int, exact_rows: int, probes: int
) -> None:
    shares = {"gamma_quantile": gamma_quantile, "outliers": outliers}
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise UsageError(f"{name} must lie in [0, 1), but is {share}")
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie strictly between 0 and 1, but is {delta}")
    for name, count in {"draws": draws, "probes": probes, "exact_rows": exact_rows + 1}.items():
        if count < 1:
            raise UsageError(f"{name} is too small: {count}")
