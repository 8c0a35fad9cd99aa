"""tailor: analyze, train, compress and certify heavy-tailed neural networks.

A model is an ordered list of named matrices; analyzing, training, compressing and certifying
it are functions over that list, each returns a frozen record, and the last record can be
checked by a stranger.
"""

from tailor.engine import Engine, Local, Ray
from tailor.errors import (
    EngineError,
    NoMatrices,
    NonFinite,
    OutputError,
    PayloadError,
    RecordError,
    SourceError,
    TailorError,
    TaskError,
    UsageError,
)
from tailor.numerics.bounds import OccamBound, occam
from tailor.numerics.nodes import GBFRY, GGP, Equal, Horseshoe, InverseGamma, NodeLaw
from tailor.numerics.powerlaw import (
    FARMS,
    Clauset,
    DekkersEinmahlDeHaan,
    DiscreteClauset,
    Hill,
    HillMid,
    MatrixFit,
    NoFit,
    Pickands,
    PowerLawFit,
    RobustClauset,
    TailFit,
    WeightWatcherCompat,
    XminPeak,
)
from tailor.numerics.stable import (
    Koutrouvelis,
    LogMoment,
    McCulloch,
    StableEstimator,
    StableFit,
    StableMLE,
    TwoPoint,
    sample_stable,
)
from tailor.records import Provenance, load, save
from tailor.stages import initialize as init
from tailor.stages.analyze import (
    Analyses,
    Analysis,
    Compressible,
    Exact,
    Failed,
    LayerAnalysis,
    MarchenkoPastur,
    Matrix,
    Measure,
    NormAnalysis,
    PValue,
    Rivals,
    RowsAndColumns,
    Shuffled,
    StableIndex,
    analyze,
    norms,
)
from tailor.stages.balance import TempBalance, layer_groups
from tailor.stages.certify import Certificate, Verification, certify, verify
from tailor.stages.compare import Comparison, compare
from tailor.stages.compress import (
    Candidate,
    CompressedModel,
    Quantizer,
    Uniform,
    compress,
    frontier,
)
from tailor.stages.gradient_noise import (
    GradientNoise,
    IterateTails,
    gradient_noise,
    iterate_tail_index,
)
from tailor.stages.nodes import (
    NodeScale,
    PrunedNodes,
    map_penalty,
    prune_nodes,
    shrink_nodes,
)
from tailor.stages.noise import Injector, StableNoise
from tailor.stages.polish import polish
from tailor.stages.scores import Magnitude
from tailor.stages.regularize import (
    L1,
    L2,
    FrechetPrior,
    GroupLasso,
    HorseshoeNodes,
    LayerPull,
    LiveMatrix,
    LogSpectralNorm,
    Penalty,
    PowerLawPrior,
    Pull,
    Regularizer,
    SpectralNorm,
    StableRank,
    StableRankProjection,
    StudentPrior,
    TailExponent,
    WeightedAlpha,
    project_stable_rank,
)
from tailor.stages.schedule import (
    Constant,
    CosineDecay,
    ExpDecay,
    LinearDecay,
    PowerDecay,
    Schedule,
    Window,
)
from tailor.stages.train import (
    Checkpoint,
    LayerTail,
    Monitor,
    Patience,
    SpectrumSettles,
    Step,
    StopRule,
    batches,
    train,
)
from tailor.tasks import DIGITS, Data, Task, zero_one
from tailor.version import __version__
from tailor.weights.layer import Layer, Other, Weights
from tailor.weights.source import difference, read, select
from tailor.weights.views import (
    ByName,
    Circulant,
    Experts,
    Flattened,
    Fused,
    Gates,
    Grouped,
    Part,
    Standard,
    Taps,
    View,
)

__all__ = [
    # the verbs, in the order of the loop
    "read",
    "select",
    "difference",
    "analyze",
    "norms",
    "compare",
    "gradient_noise",
    "iterate_tail_index",
    "train",
    "compress",
    "frontier",
    "polish",
    "certify",
    "verify",
    "render",
    # what they take
    "Task",
    "Data",
    "DIGITS",
    "batches",
    "zero_one",
    # where they run
    "Engine",
    "Local",
    "Ray",
    # how tensors become matrices
    "View",
    "Part",
    "Standard",
    "Flattened",
    "Taps",
    "Circulant",
    "Grouped",
    "Fused",
    "Gates",
    "Experts",
    "ByName",
    # how tails are fitted
    "TailFit",
    "MatrixFit",
    "Clauset",
    "RobustClauset",
    "DiscreteClauset",
    "Hill",
    "HillMid",
    "XminPeak",
    "FARMS",
    "DekkersEinmahlDeHaan",
    "Pickands",
    "WeightWatcherCompat",
    "StableEstimator",
    "Koutrouvelis",
    "McCulloch",
    "TwoPoint",
    "LogMoment",
    "StableMLE",
    # what is measured of a matrix
    "Exact",
    "Measure",
    "Matrix",
    "MarchenkoPastur",
    "Shuffled",
    "PValue",
    "Rivals",
    "RowsAndColumns",
    "Compressible",
    "StableIndex",
    # what training adds to the loss
    "Penalty",
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
    "Regularizer",
    "StableRankProjection",
    "project_stable_rank",
    "LiveMatrix",
    "Pull",
    "LayerPull",
    # how strongly, step by step
    "Schedule",
    "Constant",
    "PowerDecay",
    "ExpDecay",
    "LinearDecay",
    "CosineDecay",
    "Window",
    # heavy-tailed noise
    "StableNoise",
    "Injector",
    "sample_stable",
    # heavy-tailed nodes: how they begin, and a prior on them
    "init",
    "NodeLaw",
    "Equal",
    "Horseshoe",
    "InverseGamma",
    "GGP",
    "GBFRY",
    "NodeScale",
    "map_penalty",
    "prune_nodes",
    "shrink_nodes",
    # learning rates by layer
    "TempBalance",
    "layer_groups",
    # what a training run keeps, shows and stops at
    "Checkpoint",
    "Monitor",
    "StopRule",
    "Patience",
    "SpectrumSettles",
    # how compression is steered
    "Magnitude",
    "Quantizer",
    "Uniform",
    # what they return
    "Weights",
    "Layer",
    "Other",
    "Analysis",
    "Analyses",
    "LayerAnalysis",
    "NormAnalysis",
    "Failed",
    "PowerLawFit",
    "StableFit",
    "NoFit",
    "Comparison",
    "GradientNoise",
    "IterateTails",
    "Step",
    "LayerTail",
    "PrunedNodes",
    "Candidate",
    "CompressedModel",
    "Certificate",
    "Verification",
    "OccamBound",
    "occam",
    "Provenance",
    # records on disk
    "save",
    "load",
    # about
    "__version__",
    # what they refuse
    "TailorError",
    "UsageError",
    "SourceError",
    "NoMatrices",
    "NonFinite",
    "EngineError",
    "PayloadError",
    "RecordError",
    "TaskError",
    "OutputError",
]


def __getattr__(name: str) -> object:
    """``render`` needs the shell, which is imported only when it is used."""
    if name == "render":
        from tailor.shell.page import render

        return render
    raise AttributeError(f"module 'tailor' has no attribute {name!r}")
