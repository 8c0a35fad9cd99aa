"""Quantise step by step: round the best fitting share, retrain the rest, repeat."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tailor.stages.compress.held import Train, matrices, retrain_held, write_back
from tailor.stages.compress.quantize import Fitted, Quantizer

SHARES = (0.5, 0.75, 0.9, 1.0)  # of the weights that are rounded, after each round


def round_held(
    model: nn.Module, quantizer: Quantizer, keys: set[str], retrain: Train | None
) -> dict[str, Fitted]:
    """Round the matrices of those keys in place; zeros stay zero.

    Incremental quantisation after Zhou et al. (2017), with shares of our own. The values are
    chosen once, before the first round.
    """
    every = matrices(model)
    fitted = {key: quantizer.fit(w) for key, w in every.items() if key in keys}
    held = {key: w == 0 for key, w in every.items()}
    for share in SHARES if retrain else (1.0,):
        weights = {key: w for key, w in matrices(model).items() if key in keys}
        for key, w in weights.items():
            target = fitted[key].round(w)
            held[key] = _closest(w, target, held[key], share)
            weights[key] = torch.where(held[key], target, w)
        write_back(model, weights)
        retrain_held(model, held, retrain if share < 1 else None)
    return fitted


def _closest(
    weights: Tensor, target: Tensor, held: Bool[Tensor, "..."], share: float
) -> Bool[Tensor, "..."]:
    """Entries already held (zeros among them), and the closest ones up to the share."""
    distance = (target - weights).abs().double()
    distance[held] = -1.0
    zeros = int((weights == 0).sum())
    count = zeros + round(share * (weights.numel() - zeros))
    chosen = torch.zeros_like(held).flatten()
    chosen[distance.flatten().argsort(stable=True)[: max(count, int(held.sum()))]] = True
    return chosen.reshape(held.shape)
