"""Certificates for language models: bits per token, character or byte, and wrong next tokens.

::

    documents    token sequences, the independent units
    predictions  what a network says of every token, and the loss of a document
    betting      a bound on a mean that uses how little the losses vary
    method       the certificate
"""

from tailor.stages.certify.text.betting import (
    STAKES,
    MeanBound,
    betting_upper,
    betting_upper_subsampled,
    mean_upper,
)
from tailor.stages.certify.text.documents import Documents, Sizes
from tailor.stages.certify.text.method import ALPHAS, BitsPerCharacter, TextEvidence
from tailor.stages.certify.text.predictions import Predictions, loss_range, predict

__all__ = [
    "ALPHAS",
    "BitsPerCharacter",
    "Documents",
    "MeanBound",
    "Predictions",
    "STAKES",
    "Sizes",
    "TextEvidence",
    "betting_upper",
    "betting_upper_subsampled",
    "loss_range",
    "mean_upper",
    "predict",
]
