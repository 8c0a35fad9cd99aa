"""From the compressed network's error to the dense one's: where the two disagree."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from tailor.errors import TaskError, UsageError
from tailor.numerics.bounds import disagreement_upper, held_out_upper
from tailor.tasks.data import TIE, blocks, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """How often two classifiers give different classes, bounded from above.

    With probability at least 1 - delta over the inputs, which are fresh: drawn independently from
    the distribution that the claim is about, and used for neither network. Labels play no part.

    Attributes:
        n: Number of inputs.
        disagreements: On how many the classes differ, or one of the two scores ties.
        delta: Probability with which the bound may fail.
        upper: One-sided Clopper-Pearson bound on P(f != g), rounded up.
        inputs_sha256: Hash of the inputs.
    """

    n: int
    disagreements: int
    delta: float
    upper: float
    inputs_sha256: str

    def carried(self, risk: float) -> float:
        """A bound on the error of the one network from a bound on that of the other.

        R(f) <= R(g) + P(f != g). If ``risk`` bounds R(g) with probability 1 - delta_g, the
        result bounds R(f) with probability 1 - delta_g - delta.

        Args:
            risk: A bound on the true 0-1 error of the other network; ties count as errors.

        Raises:
            UsageError: It is no share.
        """
        return disagreement_upper(risk, self.disagreements, self.n, self.delta)


def disagreement(
    f: nn.Module, g: nn.Module, unlabelled: Shaped[Tensor, "n *features"], delta: float
) -> Disagreement:
    """Count where two classifiers disagree, and bound how often they do.

    It carries a certificate of a compressed network g to the dense network f that it was made
    from. Both run in float64 on the CPU, in evaluation mode, and are left as they were. A NaN
    among the scores counts as a disagreement, and so does a tie, since ties are errors.

    Args:
        f: Gives a row of class scores for each input.
        g: The other one, with the same classes.
        unlabelled: Fresh inputs: neither network, nor the choice of one, has used them.
        delta: Probability with which the bound may fail; add it to that of the certificate.

    Raises:
        UsageError: There are no inputs, or delta is not in (0, 1).
        TaskError: A network cannot be run on the inputs, or the classes differ in number.
    """
    if len(unlabelled) == 0:
        raise UsageError("there are no unlabelled inputs on which two networks could disagree")
    (first, clear_f, of_f), (second, clear_g, of_g) = (_classes(one, unlabelled) for one in (f, g))
    if of_f != of_g:
        raise TaskError(f"the two networks score {of_f} and {of_g} classes; they must be the same")
    apart = int((~((first == second) & clear_f & clear_g)).sum())
    return Disagreement(
        n=len(unlabelled),
        disagreements=apart,
        delta=delta,
        upper=held_out_upper(apart, len(unlabelled), delta),
        inputs_sha256=digest_of(unlabelled),
    )


@torch.no_grad()
def _classes(model: nn.Module, x: Tensor) -> tuple[Int[Tensor, "n"], Bool[Tensor, "n"], int]:
    """The class with the largest score, whether it clearly is that, and the number of classes."""
    wide = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
    try:
        scores = torch.cat([wide(one) for one in blocks(x)])
    except Exception as error:  # a user's network can fail in any way
        said = f"{type(error).__name__}: {error}"
        raise TaskError(f"a network cannot be run on the unlabelled inputs: {said}") from error
    if scores.ndim != 2 or len(scores) != len(x) or scores.shape[1] < 2:
        raise TaskError(
            "a network must return one row of two class scores or more for each input, but gave "
            f"shape {tuple(scores.shape)}"
        )
    top = scores.topk(2, dim=1)
    size = scores.abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    clear = (top.values[:, 0] - top.values[:, 1] > TIE * size) & ~scores.isnan().any(dim=1)
    return top.indices[:, 0], clear, scores.shape[1]
