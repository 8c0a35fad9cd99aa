"""An analysis as a table: WeightWatcher's column names where they mean the same."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.stages.analyze.record import Failed, LayerAnalysis, Value

if TYPE_CHECKING:
    import pandas

WEAK = 1e-6  # eigenvalues below this count as weak_rank_loss; absolute, as in WeightWatcher
SUMMARIZED = (
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
    "mp_softrank",
)


def row(layer: LayerAnalysis) -> dict[str, Value]:
    """The columns of one matrix."""
    found: dict[str, Value] = {
        "layer": layer.name,
        "layer_type": layer.kind,
        "shape": "x".join(map(str, layer.shape)),
        "dtype": layer.dtype,
        "N": max(layer.rows, layer.columns),
        "M": min(layer.rows, layer.columns),
        "Q": max(layer.rows, layer.columns) / min(layer.rows, layer.columns),
        "rf": layer.matrices,
        "num_evals": len(layer.singular_values),
    }
    found |= _exponent(layer) | _norms(layer)
    if layer.entries is not None:
        found |= _entries(layer.entries)
    return found | layer.measures | {"seconds": layer.seconds}


def failed_row(one: Failed) -> dict[str, Value]:
    """The columns of a matrix that could not be analyzed."""
    return {
        "layer": one.name,
        "shape": "x".join(map(str, one.shape)),
        "dtype": one.dtype,
        "status": "failed",
        "reason": one.reason,
    }


def _exponent(layer: LayerAnalysis) -> dict[str, Value]:
    fit = layer.spectrum
    if isinstance(fit, NoFit):
        empty: tuple[str, ...] = ("alpha", "alpha_ci_low", "alpha_ci_high", "interval", "sigma")
        empty += ("D", "xmin", "xmax", "num_pl_spikes", "tail_fraction", "alpha_weighted")
        empty += ("log_alpha_norm",)
        found: dict[str, Value] = dict.fromkeys(empty)
        gap = None
    else:
        found = {
            "alpha": fit.alpha,
            "alpha_ci_low": fit.low,
            "alpha_ci_high": fit.high,
            "interval": fit.interval,
            "sigma": fit.sigma,
            "D": fit.D,
            "xmin": fit.xmin,
            "xmax": fit.xmax,
            "num_pl_spikes": fit.n_tail,
            "tail_fraction": fit.n_tail / fit.n,
            "alpha_weighted": fit.alpha * 2 * math.log10(layer.spectral_norm),
            "log_alpha_norm": layer.log_alpha_norm,
        }
        gap = None if layer.detX_num is None else layer.detX_num - fit.n_tail
    return found | {
        "verdict": layer.verdict,
        "status": "no fit" if isinstance(fit, NoFit) else "success",
        "reason": fit.reason if isinstance(fit, NoFit) else "",
        "detX_num": layer.detX_num,
        "ERG_gap": gap,
    }


def _norms(layer: LayerAnalysis) -> dict[str, Value]:
    """WeightWatcher's ``norm`` and ``spectral_norm`` are squares: of eigenvalues."""
    norm, top = layer.frobenius_norm**2, layer.spectral_norm**2
    count = len(layer.singular_values)
    known = layer.matrix_rank is not None and layer.sv_min is not None
    weak = int(np.count_nonzero(np.square(layer.singular_values) < WEAK)) if known else None
    return {
        "norm": norm,
        "log_norm": math.log10(norm) if norm > 0 else None,
        "spectral_norm": top,
        "log_spectral_norm": math.log10(top) if top > 0 else None,
        "lambda_max": top,
        "sv_max": layer.spectral_norm,
        "sv_min": layer.sv_min,
        "stable_rank": layer.stable_rank,
        "matrix_rank": layer.matrix_rank,
        "rank_loss": None if layer.matrix_rank is None else count - layer.matrix_rank,
        "weak_rank_loss": weak,
        "entropy": layer.entropy,
        "zeros": layer.zeros,
    }


def _entries(fit: PowerLawFit | NoFit) -> dict[str, Value]:
    if isinstance(fit, NoFit):
        return {"entries_reason": fit.reason}
    return {
        "entries_alpha": fit.alpha,
        "entries_ci_low": fit.low,
        "entries_ci_high": fit.high,
        "entries_sigma": fit.sigma,
        "entries_xmin": fit.xmin,
        "entries_D": fit.D,
        "entries_n_tail": fit.n_tail,
    }


def summarize(layers: Sequence[LayerAnalysis]) -> "pandas.DataFrame":
    """Mean, median and mean weighted by the size of the fitted tail, for each number.

    Matrices that lack a number are left out of it, and ``matrices`` says how many had it.
    """
    import pandas

    rows = []
    found = [(row(layer), layer.spectrum) for layer in layers]
    for name in SUMMARIZED:
        had = [(r[name], getattr(fit, "n_tail", 0)) for r, fit in found if r.get(name) is not None]
        if not had:
            continue
        values, weights = np.array(had, dtype=np.float64).T
        weighted = np.average(values, weights=weights) if weights.any() else np.nan
        rows.append(
            {
                "metric": name,
                "matrices": len(had),
                "mean": values.mean(),
                "median": np.median(values),
                "tail_weighted_mean": weighted,
                "least": values.min(),
                "largest": values.max(),
            }
        )
    return pandas.DataFrame(rows).set_index("metric") if rows else pandas.DataFrame()
