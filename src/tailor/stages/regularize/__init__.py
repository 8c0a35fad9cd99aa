"""Penalties that pull the weights of a network somewhere: as a term, or apart from the loss.

::

    penalty                      what a penalty is, and its pull on one matrix
    matrix                       what a penalty can ask of a matrix: norm, top vectors, spectrum
    entries, groups,             the penalties, by what they act on: weights, nodes,
    largest, tails               the largest singular value, the whole spectrum
    regularizer                  penalties on a model, with their memory
    projection                   a hard limit on the stable rank
"""

from tailor.stages.regularize.entries import L1, L2, StudentPrior
from tailor.stages.regularize.groups import GroupLasso, HorseshoeNodes
from tailor.stages.regularize.largest import (
    FrechetPrior,
    LogSpectralNorm,
    SpectralNorm,
    StableRank,
)
from tailor.stages.regularize.matrix import LiveMatrix
from tailor.stages.regularize.penalty import Penalty, Pull
from tailor.stages.regularize.projection import StableRankProjection, project_stable_rank
from tailor.stages.regularize.regularizer import LayerPull, Regularizer
from tailor.stages.regularize.tails import PowerLawPrior, TailExponent, WeightedAlpha

__all__ = [
    "Penalty",
    "Pull",
    "LiveMatrix",
    "Regularizer",
    "LayerPull",
    "L1",
    "L2",
    "StudentPrior",
    "GroupLasso",
    "HorseshoeNodes",
    "SpectralNorm",
    "LogSpectralNorm",
    "StableRank",
    "FrechetPrior",
    "TailExponent",
    "WeightedAlpha",
    "PowerLawPrior",
    "StableRankProjection",
    "project_stable_rank",
]
