"""The same numbers from tailor, with the settings under which they mean the same."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas
from torch import Tensor

import tailor
from benchmarks.analyze.theirs import COLUMNS
from tailor.numerics.bulk import marchenko_pastur
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit, TailFit
from tailor.numerics.powerlaw.goodness import p_value
from tailor.numerics.powerlaw.weightwatcher import WeightWatcherCompat
from tailor.numerics.spectrum import frobenius_norm, product_core, spectral_norm, spectrum
from tailor.stages.analyze import Exact, MarchenkoPastur, Measure, Shuffled
from tailor.weights.source import Source
from tailor.weights.views import Taps

EVERY_TAIL = Clauset(min_tail=2, min_fraction=0)  # what powerlaw searches
WEIGHTWATCHER = WeightWatcherCompat()
VIEW = Taps(scale=math.sqrt(0.5))  # of convolutions, as WeightWatcher sees them
TOLD = tuple(name for name in COLUMNS if name not in ("entropy", "matrix_rank"))  # in float32


def analyze(
    source: Source,
    *,
    precision: str = "float64",
    measures: Sequence[Measure] = (),
    engine: tailor.Engine | None = None,
) -> pandas.DataFrame:
    """The table of a model, in the numbers that WeightWatcher reports."""
    found = tailor.analyze(
        source,
        spectrum=WEIGHTWATCHER,
        view=VIEW,
        solver=Exact(precision=precision),
        measures=measures,
        engine=engine,
    )
    return found.to_frame()


def own_analysis(source: Source) -> pandas.DataFrame:
    """The table of a model, by tailor's defaults: another estimator, another view of kernels."""
    return tailor.analyze(source).to_frame()


def with_report(state: Mapping[str, Tensor], folder: Path) -> pandas.DataFrame:
    """Everything that WeightWatcher's options measure and draw, in records and a page."""
    found = tailor.analyze(
        state,
        spectrum=WEIGHTWATCHER,
        view=VIEW,
        measures=(MarchenkoPastur(), Shuffled()),
        drawings=True,
    )
    tailor.save(tailor.Analyses(analyses=(found,)), folder / "analysis.json")
    tailor.render(folder)
    return found.to_frame()


def power_laws(samples: Sequence[np.ndarray], method: TailFit) -> list[PowerLawFit | NoFit]:
    """One fit for each sample."""
    return [method.fit(sample) for sample in samples]


def p_value_of(sample: np.ndarray, replicates: int) -> float:
    """Whether a power law could have produced the sample."""
    found = p_value(sample, Clauset(), replicates=replicates)
    return math.nan if isinstance(found, NoFit) else found.p


def bulk(eigenvalues: np.ndarray, rows: int, columns: int) -> float:
    """Sigma of Marchenko-Pastur's law fitted to eigenvalues."""
    found = marchenko_pastur(eigenvalues, rows=rows, columns=columns)
    return math.nan if isinstance(found, NoFit) else found.sigma


def low_rank(left: Tensor, right: Tensor) -> np.ndarray:
    """Singular values of left @ right, which is not formed; rising."""
    found = spectrum(product_core(left, right)[None])
    return np.sqrt(found.eigenvalues)


def norms(matrix: Tensor) -> tuple[float, float]:
    """Frobenius and spectral norm, without the spectrum."""
    return frobenius_norm(matrix), spectral_norm(matrix).value
