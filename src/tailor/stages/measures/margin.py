"""How far the right class is ahead of the others."""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.measures.explanatory import Explanatory
from tailor.tasks import Data
from tailor.tasks.data import blocks, lead

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBelow:
    """The empirical margin loss at one margin.

    Attributes:
        gamma: The margin.
        share: Of the examples whose margin is at most that.
    """

    gamma: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins(Explanatory):
    """Margins of a classifier: f(x)[y] - max over j != y of f(x)[j].

    Attributes:
        n: Number of examples.
        classes: Number of classes.
        levels: For which shares of the examples there are quantiles.
        quantiles: Margins at these, each the margin of an example: the share of smaller ones is
            at most the level.
        normalised: The same for margins over the norm of the example's scores, which do not
            change when the last layer is scaled.
        below: Shares of examples with at most certain margins; at 0 it is the training error
            where ties count as errors.
        largest_output: Largest norm of an example's scores.
        mean: Mean margin.
    """

    n: int
    classes: int
    levels: tuple[float, ...]
    quantiles: tuple[float, ...]
    normalised: tuple[float, ...]
    below: tuple[ShareBelow, ...]
    largest_output: float
    mean: float
    why_not: str = (
        "Margins were measured on a sample, and a margin bound needs a price for the class of "
        "networks too; a margin alone bounds nothing."
    )


def margins(
    model: nn.Module,
    data: Data,
    *,
    gammas: tuple[float, ...] = (0.0,),
    levels: tuple[float, ...] = LEVELS,
) -> Margins:
    """The distribution of the margins on a sample.

    The model is evaluated in float64 on the CPU, in evaluation mode, and is left as it was.

    Args:
        model: Gives one row of class scores for each example.
        data: The sample.
        gammas: Margins at which the margin loss is wanted.
        levels: Shares of the examples at which quantiles are wanted, in [0, 1].

    Raises:
        UsageError: There are no examples or fewer than two classes, scores are not finite, or a
            level is not a share.
    """
    scores = scores_of(model, data)
    found = margin_values(scores, data)
    size = scores.norm(dim=1)
    return Margins(
        n=len(data),
        classes=scores.shape[1],
        levels=levels,
        quantiles=tuple(quantile(found, level) for level in levels),
        normalised=tuple(
            quantile(torch.where(size > 0, found / size, 0.0), level) for level in levels
        ),
        below=tuple(ShareBelow(gamma=gamma, share=margin_loss(found, gamma)) for gamma in gammas),
        largest_output=float(size.max()),
        mean=float(found.mean()),
    )


def margin_values(scores: Float[Tensor, "n classes"], data: Data) -> Float[Tensor, "n"]:
    """The margin of each example.

    Raises:
        UsageError: The labels name classes that have no score, or there is but one class.
    """
    if scores.shape[1] < 2 or int(data.y.max()) >= scores.shape[1]:
        raise UsageError(
            f"margins need a score for each of two classes or more, but there are "
            f"{scores.shape[1]} scores and the largest label is {int(data.y.max())}"
        )
    return lead(scores, data.y)


def margin_loss(margin: Float[Tensor, "n"], gamma: float) -> float:
    """Share of the examples whose margin is at most gamma (Arora et al. 2018, section 2)."""
    return float((margin <= gamma).double().mean())


def loss_after_change(margin: Float[Tensor, "n"], closeness: float) -> float:
    """Share of the examples that another network may get wrong, if no score changes by more.

    A score that falls and one that rises by ``closeness`` each take 2 x ``closeness`` from a
    margin. Arora et al. (2018) print the step with the margin once: f = (1, 0.2) and
    g = (0.55, 0.65) differ by 0.45 in each score, f has margin 0.8, and g errs.

    Args:
        margin: Of the first network, by example.
        closeness: Largest difference of a score, over examples and classes.

    Raises:
        UsageError: It is negative.
    """
    if not closeness >= 0:
        raise UsageError(f"closeness is a distance and cannot be negative, but is {closeness}")
    return margin_loss(margin, 2 * closeness)


def quantile(values: Float[Tensor, "n"], level: float) -> float:
    """The smallest value that at most a share ``level`` of the values lies below.

    Raises:
        UsageError: The level is no share.
    """
    if not 0 <= level <= 1:
        raise UsageError(f"a quantile needs a level in [0, 1], but got {level}")
    at = min(len(values) - 1, math.floor(level * len(values) * (1 + 1e-12)))
    return float(values.sort().values[at])


@torch.no_grad()
def scores_of(model: nn.Module, data: Data) -> Float[Tensor, "n classes"]:
    """Class scores in float64.

    Raises:
        UsageError: There are no examples, the model cannot be run, or scores are not finite.
    """
    if len(data) == 0:
        raise UsageError("there are no examples to measure margins on")
    wide = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
    try:
        scores = torch.cat([wide(x) for x in blocks(data.x)])
    except Exception as error:  # a user's network can fail in any way
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"the network cannot be run on the data: {said}") from error
    if scores.ndim != 2 or len(scores) != len(data):
        raise UsageError("the network must return one row of class scores for each example")
    if not bool(torch.isfinite(scores).all()):
        raise UsageError("some class scores are NaN or infinite; there are no margins")
    return scores
