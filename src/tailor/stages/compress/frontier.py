"""Files of one network at rising sparsity, as short as a certificate needs them."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tailor.stages.allocate import Allocation, GlobalMagnitude
from tailor.stages.compress.held import Train, matrices, retrain_held, write_back
from tailor.stages.compress.payload import Adaptive, CompressedModel, pack
from tailor.stages.compress.quantize import Quantizer, Uniform
from tailor.stages.compress.rounding import round_held
from tailor.stages.prune import prune
from tailor.stages.scores import Score
from tailor.stages.units import Chain, chains, drop_dead, live_first, rescale


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point on the way from dense to small.

    Attributes:
        sparsity: Share of zeros among the matrices' weights.
        nonzeros: Number of weights that are not zero.
        pruned: State dict after pruning and retraining, before quantisation.
        compressed: The file.
    """

    sparsity: float
    nonzeros: int
    pruned: dict[str, Tensor]
    compressed: CompressedModel


def gradual(sparsity: float, first: float = 0.5, keep: float = 0.85) -> list[float]:
    """Rising sparsities from ``first`` to ``sparsity``; each keeps that share of the last."""
    path = [first]
    while 1 - (1 - path[-1]) * keep < sparsity:
        path.append(1 - (1 - path[-1]) * keep)
    return [s for s in path if s < sparsity] + [sparsity]


def frontier(
    model: nn.Module,
    sparsities: Iterable[float],
    *,
    score: Score | None = None,
    allocation: Allocation | None = None,
    quantizer: Quantizer | None = None,
    retrain: Train | None = None,
    quantize_from: float = 0.0,
    about: Mapping[str, str] | None = None,
) -> Iterator[Candidate]:
    """Prune further and further, and yield a finished file at each sparsity.

    Args:
        model: The trained network; it is not changed.
        sparsities: Rising shares of zeros.
        score: Which entries of a matrix go; ``Magnitude()`` by default.
        allocation: How many entries each matrix loses; ``GlobalMagnitude(relative=True)`` by
            default, which compares the sizes of all of them.
        quantizer: The values of the grid; ``Uniform(top=3)`` by default.
        retrain: Trains the module that it is given, in place, with whatever loop and data;
            pruned and quantised weights stay what they are. Without it, pruning is one shot.
        quantize_from: Sparsity from which on files are made; below it nothing is yielded.
        about: Free text that is stored with the file.
    """
    allocation = GlobalMagnitude(relative=True) if allocation is None else allocation
    quantizer = Uniform() if quantizer is None else quantizer
    work = copy.deepcopy(model)
    found = chains(work)
    for sparsity in sparsities:
        prune(work, sparsity, score=score, allocation=allocation, inplace=True)
        weights = drop_dead(matrices(work), found)
        write_back(work, weights)
        retrain_held(work, {n: (w == 0) for n, w in weights.items()}, retrain)
        weights = matrices(work)
        if sparsity < quantize_from:
            continue
        nonzeros = sum(int((w != 0).sum()) for w in weights.values())
        yield Candidate(
            sparsity=1 - nonzeros / sum(w.numel() for w in weights.values()),
            nonzeros=nonzeros,
            pruned={name: tensor.clone() for name, tensor in work.state_dict().items()},
            compressed=_finished(work, quantizer, retrain, about),
        )


def _finished(
    pruned: nn.Module,
    quantizer: Quantizer,
    retrain: Train | None,
    about: Mapping[str, str] | None,
) -> CompressedModel:
    """Rescale, round, put live units first and code."""
    work = copy.deepcopy(pruned)
    found = chains(work)
    tidy_scales(work, found)
    fitted = round_held(work, quantizer, set(matrices(work)), retrain)
    tidy_order(work, found)
    coded = {name: fitted[name].code(w) for name, w in matrices(work).items()}
    return pack(work, coded, coder=Adaptive(), about=about)


def tidy_scales(model: nn.Module, found: list[Chain]) -> None:
    """Give live units incoming weights of size 1, in place."""
    write_back(model, rescale(matrices(model), found))


def tidy_order(model: nn.Module, found: list[Chain]) -> None:
    """Empty dead units and put live ones first, in place."""
    write_back(model, live_first(drop_dead(matrices(model), found), found))
