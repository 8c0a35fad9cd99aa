"""What `import tailor` offers, and that the import itself changes nothing."""

import inspect
import json
import subprocess
import sys
import types
from dataclasses import fields, is_dataclass

import pytest

import tailor

NAMES = [
    *("read", "select", "difference", "analyze", "norms", "compare"),
    *("gradient_noise", "iterate_tail_index", "train", "compress", "frontier", "polish"),
    *("certify", "verify", "register", "search", "incremental", "screened", "fit_head"),
    *("disagreement", "margins", "arora", "matrix_project", "spectral_perturbation"),
    *("truncated_rank", "Frozen", "OrientedEdges", "RandomFeatures", "Quadratic", "Documents"),
    *("Sizes", "read_idx", "read_table", "Contextual", "Occam", "PACBayes", "Centred"),
    *("SparsePrior", "FromPart", "GaussianHead", "GaussianWeights", "DiscreteWeights"),
    *("PickToLearn", "Rounds", "Learner", "NetworkLearner", "Warp", "BitsPerCharacter"),
    *("HeldOut", "Split", "HeadJob", "NetworkJob", "Rounding", "Smooth", "Climb", "Renewal"),
    *("GaussianNoise", "MatrixProjectNoise", "Registration", "Progress", "Disagreement"),
    *("Margins", "AroraMeasures", "SpectralPerturbation"),
    *("render", "Task", "Data", "DIGITS", "batches", "zero_one", "Engine", "Local", "Ray", "View"),
    *("Part", "Standard", "Flattened", "Taps", "Circulant", "Grouped", "Fused", "Gates"),
    *("Experts", "ByName", "TailFit", "MatrixFit", "Clauset", "RobustClauset", "Hill", "HillMid"),
    *(
        "DiscreteClauset",
        "XminPeak",
        "FARMS",
        "DekkersEinmahlDeHaan",
        "Pickands",
        "WeightWatcherCompat",
    ),
    *("StableEstimator", "Koutrouvelis", "McCulloch", "TwoPoint", "LogMoment", "StableMLE"),
    *("Exact", "Measure", "Matrix", "MarchenkoPastur", "Shuffled", "PValue", "Rivals"),
    "RowsAndColumns",
    *("Compressible", "StableIndex", "Penalty", "StudentPrior", "Magnitude"),
    *("L1", "L2", "GroupLasso", "HorseshoeNodes", "SpectralNorm", "LogSpectralNorm"),
    *("StableRank", "FrechetPrior", "TailExponent", "WeightedAlpha", "PowerLawPrior"),
    *("Regularizer", "StableRankProjection", "project_stable_rank", "LiveMatrix", "Pull"),
    *("LayerPull", "Schedule", "Constant", "PowerDecay", "ExpDecay", "LinearDecay"),
    *("CosineDecay", "Window", "TempBalance", "layer_groups"),
    *("StableNoise", "Injector", "sample_stable", "Checkpoint", "Monitor", "StopRule"),
    *("Patience", "SpectrumSettles", "LayerTail", "init", "NodeLaw", "Equal", "Horseshoe"),
    *("InverseGamma", "GGP", "GBFRY", "NodeScale", "map_penalty", "prune_nodes"),
    *("shrink_nodes", "PrunedNodes"),
    *("Quantizer", "Uniform", "Weights", "Layer", "Other", "Analysis", "Analyses"),
    *("LayerAnalysis", "NormAnalysis", "Failed", "PowerLawFit", "StableFit", "NoFit", "Comparison"),
    *("GradientNoise", "IterateTails", "Step", "Candidate", "CompressedModel", "Certificate"),
    *("Verification", "OccamBound", "occam", "Provenance", "save", "load", "__version__"),
    *("prune", "shrink", "factorize", "quantize", "pack", "compress_checkpoint", "export"),
    *("to_sparse_cpu", "Recipe", "Prune", "Shrink", "Factorize", "Retrain", "Rescale", "Quantize"),
    *("Score", "Wanda", "SparseGPT", "Scored", "NofM", "Allocation", "UniformAllocation"),
    *("FixedAllocation", "GlobalMagnitude", "LAMP", "ERK", "Ramp", "OWL", "AlphaPruning"),
    *("Sensitivity", "ByError", "ByDeviation", "ByTailIndex", "LqPerNeuron", "PQIndex"),
    *("collect", "Inputs", "prune_layers", "hold", "Masks", "cubic", "geometric", "iterate"),
    *("rewind", "Importance", "PathScore", "ActivationScore", "ColumnNorm", "RowNorm"),
    *("Shortest", "UniformStep", "KMeans", "Coder", "RANS", "Adaptive", "Allocated", "Pruned"),
    *("Shrunk", "Factorized", "Quantized", "Sparse", "SparseLinear", "Compressed"),
    *("CompressionReport", "TensorReport", "save_shrunk", "load_shrunk"),
    *("TailorError", "UsageError", "SourceError", "NoMatrices", "NonFinite", "PayloadError"),
    *("RecordError", "TaskError", "OutputError", "EngineError"),
]
OBJECTS = {name: getattr(tailor, name) for name in NAMES}
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}
RECORDS = {name: value for name, value in CLASSES.items() if is_dataclass(value)}
STEPS = (tailor.Prune, tailor.Shrink, tailor.Quantize)
# Kinds whose first field may go without its name, as in StableRank(1e-3) or Prune(0.9).
PLAIN = (tailor.Penalty, tailor.Patience, tailor.Recipe, tailor.Scored, *STEPS)
HEAVY = ["plotly", "rich", "sklearn", "pandas", "scipy", "powerlaw", "matplotlib", "ray"]


def test_the_names_are_these():
    assert sorted(tailor.__all__) == sorted(NAMES)
    assert len(set(tailor.__all__)) == len(tailor.__all__)


def test_there_is_nothing_else():
    found = vars(tailor) | {"render": tailor.render}  # imported when it is asked for
    public = {
        name
        for name, value in found.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__", "init"} == set(NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tailor' has no attribute 'rendr'"):
        _ = tailor.rendr


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("DIGITS", "__version__")])
def test_everything_explains_itself(name):
    own = vars(OBJECTS[name]).get("__doc__") if name in CLASSES else OBJECTS[name].__doc__
    assert own
    # A dataclass without a docstring gets its signature for one.
    assert not own.startswith(f"{name}(")


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_is_explained_and_named_when_given(name):
    kind = RECORDS[name]  # what all penalties share is explained in their base
    explained = "".join(base.__doc__ for base in kind.__mro__ if is_dataclass(base))
    for field in fields(RECORDS[name]):
        if field.init:
            plain = issubclass(kind, PLAIN)
            assert field.kw_only or (plain and field is fields(kind)[0])
            assert f"{field.name}:" in explained


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_frozen_and_slotted(name):
    assert RECORDS[name].__dataclass_params__.frozen
    assert "__slots__" in vars(RECORDS[name])


@pytest.mark.parametrize("name", [n for n, c in CLASSES.items() if issubclass(c, Exception)])
def test_every_refusal_is_a_tailor_error(name):
    assert issubclass(CLASSES[name], tailor.TailorError)


def test_a_refusal_has_its_place_in_the_tree():
    assert issubclass(tailor.UsageError, ValueError)
    assert issubclass(tailor.NoMatrices, tailor.SourceError)
    assert issubclass(tailor.NonFinite, tailor.SourceError)
    branches = [
        "EngineError",
        "SourceError",
        "PayloadError",
        "RecordError",
        "TaskError",
        "OutputError",
    ]
    for one in branches:
        for other in branches:
            assert issubclass(CLASSES[one], CLASSES[other]) == (one == other)


SNAPSHOT = """
import json, locale, logging, os, random, signal, sys, warnings
import numpy, torch, safetensors, jaxtyping  # what tailor stands on may do as it likes

def state():
    return {
        "dtype": str(torch.get_default_dtype()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": str(numpy.random.get_state()),
        "numpy errors": numpy.geterr(),
        "random": str(random.getstate()),
        "warnings": str(warnings.filters),
        "logging": [str(logging.root.handlers), logging.root.level],
        "hook": str(sys.excepthook),
        "path": sys.path,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": [os.umask(0o22), os.umask(0o22)],
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
    }

before = state()
import tailor
after = state()
print(json.dumps({"before": before, "after": after, "modules": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def snapshot():
    """The state of a fresh process before and after `import tailor`."""
    command = [sys.executable, "-W", "error", "-c", SNAPSHOT]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_the_import_leaves_the_process_as_it_was(snapshot):
    assert snapshot["after"] == snapshot["before"]


@pytest.mark.parametrize("package", [*HEAVY, "tailor.shell"])
def test_the_import_does_not_bring(snapshot, package):
    assert "tailor" in snapshot["modules"]
    assert package not in snapshot["modules"]
