"""What explains why a network generalises, and is no bound: margins, cushions, perturbations."""

from tailor.stages.measures.arora import (
    AroraMeasures,
    InterlayerCushion,
    LayerMeasures,
    arora,
)
from tailor.stages.measures.effective import EffectiveParameters
from tailor.stages.measures.explanatory import Explanatory
from tailor.stages.measures.margin import Margins, ShareBelow, loss_after_change, margins
from tailor.stages.measures.project import (
    GaussianNoise,
    MatrixProjectNoise,
    Noise,
    matrix_project,
)
from tailor.stages.measures.smoothness import Smoothness
from tailor.stages.measures.spectral import (
    LayerChange,
    SpectralPerturbation,
    Truncation,
    spectral_perturbation,
    truncated_rank,
)

__all__ = [
    "Explanatory",
    "Margins",
    "ShareBelow",
    "margins",
    "loss_after_change",
    "AroraMeasures",
    "LayerMeasures",
    "InterlayerCushion",
    "EffectiveParameters",
    "Smoothness",
    "arora",
    "Noise",
    "GaussianNoise",
    "MatrixProjectNoise",
    "matrix_project",
    "SpectralPerturbation",
    "LayerChange",
    "spectral_perturbation",
    "Truncation",
    "truncated_rank",
]
