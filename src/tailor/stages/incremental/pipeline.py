"""Prune, rescale, round in rounds, train through the rounding: one file at the end."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate import GlobalMagnitude
from tailor.stages.compress import Adaptive, Coder, CompressedModel, Quantizer, Train, Uniform, pack
from tailor.stages.compress.held import matrices, retrain_held, write_back
from tailor.stages.compress.quantize import Fitted
from tailor.stages.incremental.rounds import ROUNDS, check_shares, retrain_rounded, round_in_rounds
from tailor.stages.prune import prune
from tailor.stages.units import Chain, drop_dead, rescale, wide_chains

Score = Callable[[CompressedModel], float]


def incremental(
    model: nn.Module,
    *,
    retrain: Train,
    sparsities: Sequence[float] = (),
    quantizer: Quantizer | None = None,
    shares: Sequence[float] = ROUNDS,
    straight: int = 0,
    score: Score | None = None,
    coder: Coder | None = None,
    about: Mapping[str, str] | None = None,
) -> CompressedModel:
    """Bring every weight of a network onto a coarse grid with little loss.

    The network is pruned (if asked), retrained after each step; its units are rescaled where
    that changes nothing, so that one step fits a layer; a growing share of the weights is
    rounded and held while the rest is retrained (Zhou et al. 2017); then all are trained through
    the rounding (Bengio et al. 2013). Zeros stay zero, and rounding makes some more.

    Args:
        model: The trained network, pruned or not; it is not changed.
        retrain: Trains the module that it is given, in place, with whatever loop and data. It is
            called once for each sparsity, for each share but the last, and ``straight`` times.
        sparsities: Rising shares of zeros, compared in size over all layers.
        quantizer: The values of the grid; ``Uniform(top=3, unit_step=True)`` by default, which
            is for networks whose decisions do not change when a layer is scaled.
        shares: Of the weights that are rounded, after each round; they rise to 1.
        straight: How often the rounded network is trained through the rounding.
        score: What a file is worth, smaller is better (a certificate's bound, say); of the files
            after each of the ``straight`` trainings and before, the best is given back.
        coder: ``Adaptive()`` by default.
        about: Free text that is stored with the file.

    Raises:
        UsageError: Shares do not rise to 1, or ``straight`` comes without ``score``.
        NonFinite: Training made weights NaN or infinite.
    """
    check_shares(shares)
    if straight < 0 or (straight and score is None):
        raise UsageError(
            f"training through the rounding may make a file worse, so straight={straight} needs a "
            "number from 0 up and a score that tells which file is best"
        )
    work = copy.deepcopy(model)
    found = wide_chains(work)
    for sparsity in sparsities:
        prune(work, sparsity, allocation=GlobalMagnitude(relative=True), inplace=True)
        retrain_held(work, {k: w == 0 for k, w in matrices(work).items()}, retrain)
    write_back(work, rescale(drop_dead(matrices(work), found), found))
    quantizer = Uniform(top=3, unit_step=True) if quantizer is None else quantizer
    fitted = round_in_rounds(work, quantizer, retrain, shares)

    def file() -> CompressedModel:
        return _packed(work, found, fitted, Adaptive() if coder is None else coder, about)

    files = [file()]
    for _ in range(straight):
        zeros = {key: w == 0 for key, w in matrices(work).items()}
        retrain_rounded(work, fitted, zeros, retrain)
        files.append(file())
    return files[0] if score is None else min(files, key=score)


def _packed(
    work: nn.Module,
    found: list[Chain],
    fitted: Mapping[str, Fitted],
    coder: Coder,
    about: Mapping[str, str] | None,
) -> CompressedModel:
    """The network as it stands, without its idle units."""
    weights = drop_dead(matrices(work), found)
    coded = {name: fitted[name].code(w) for name, w in weights.items()}
    state = {name: tensor.detach().cpu() for name, tensor in work.state_dict().items()}
    with torch.no_grad():
        return pack(state | weights, coded, coder=coder, about=about)
