"""Certificates of stochastic (Gibbs) predictors, which draw a fresh network every time."""

from tailor.stages.certify.gibbs.fit import Fit, fit_head
from tailor.stages.certify.gibbs.head import GaussianHead
from tailor.stages.certify.gibbs.method import PACBayes, PACBayesEvidence
from tailor.stages.certify.gibbs.network import DiscreteWeights, GaussianWeights
from tailor.stages.certify.gibbs.posterior import Draws, Posterior, count_draws
from tailor.stages.certify.gibbs.prior import Centred, FromPart, Prior, PriorTerms, SparsePrior

__all__ = [
    "Centred",
    "DiscreteWeights",
    "Draws",
    "Fit",
    "FromPart",
    "GaussianHead",
    "GaussianWeights",
    "PACBayes",
    "PACBayesEvidence",
    "Posterior",
    "Prior",
    "PriorTerms",
    "SparsePrior",
    "count_draws",
    "fit_head",
]
