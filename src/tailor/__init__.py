"""tailor: analyze, train, compress and certify heavy-tailed neural networks.

A model is an ordered list of named matrices; analyzing, training, compressing and certifying
it are functions over that list, each returns a frozen record, and the last record can be
checked by a stranger.
"""

from tailor.engine import Engine, Local
from tailor.errors import (
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
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit, TailFit
from tailor.records import Provenance, load, save
from tailor.stages.analyze import Analyses, Analysis, LayerAnalysis, analyze
from tailor.stages.certify import Certificate, Verification, certify, verify
from tailor.stages.compress import (
    Candidate,
    CompressedModel,
    Quantizer,
    Uniform,
    compress,
    frontier,
)
from tailor.stages.polish import polish
from tailor.stages.prune import Magnitude, Pruner
from tailor.stages.regularize import Penalty, StudentPrior
from tailor.stages.train import Step, batches, train
from tailor.tasks import DIGITS, Data, Task, zero_one
from tailor.version import __version__
from tailor.weights.layer import Layer, Other, Weights
from tailor.weights.source import read
from tailor.weights.views import Flattened, Part, View

__all__ = [
    # the verbs, in the order of the loop
    "read",
    "analyze",
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
    "Engine",
    "Local",
    "View",
    "Flattened",
    "TailFit",
    "Clauset",
    "Penalty",
    "StudentPrior",
    "Pruner",
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
    "PowerLawFit",
    "NoFit",
    "Step",
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
