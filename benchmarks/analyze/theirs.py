"""WeightWatcher and powerlaw, kept quiet; neither is imported before it is used."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas
from torch import nn

from benchmarks.analyze.case import Numbers

# Columns of WeightWatcher whose numbers tailor reports under the same names.
COLUMNS = ("alpha", "xmin", "D", "sigma", "num_pl_spikes", "alpha_weighted", "log_alpha_norm")
COLUMNS += ("log_norm", "log_spectral_norm", "stable_rank", "entropy", "matrix_rank")
BULK = ("sigma_mp", "num_spikes", "mp_softrank", "bulk_max", "bulk_min", "W_scale")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log, nothing on the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def analyze(model: nn.Module, **options: object) -> pandas.DataFrame:
    """WeightWatcher's table of a model."""
    with quiet():
        import weightwatcher

        return weightwatcher.WeightWatcher(model=model).analyze(**options)


def in_table(columns: Sequence[str], frame: pandas.DataFrame) -> Numbers:
    """Columns of a table, in the order of the layers' names, and how many layers it has."""
    frame = frame.set_index("longname" if "longname" in frame else "layer").sort_index()
    found = {name: frame[name].to_numpy(dtype=np.float64) for name in columns}
    return found | {"layers": np.array([len(frame)])}


def power_laws(samples: Sequence[np.ndarray]) -> list[Any]:
    """WeightWatcher's own fit of each sample."""
    with quiet():
        from weightwatcher.WW_powerlaw import WWFit

        return [WWFit(sample) for sample in samples]


def power_laws_of_powerlaw(samples: Sequence[np.ndarray]) -> list[Any]:
    """The fit of the powerlaw package."""
    with quiet():
        import powerlaw

        return [powerlaw.Fit(sample, verbose=False) for sample in samples]


def in_fits(fits: Sequence[Any]) -> Numbers:
    """Exponents, xmins and distances."""
    names = ("alpha", "xmin", "D")
    return {name: np.array([float(getattr(fit, name)) for fit in fits]) for name in names}


def bulk(eigenvalues: np.ndarray, rows: int, columns: int) -> float:
    """Sigma by WeightWatcher's Marchenko-Pastur fit, after eigenvalues are brought to mean 1."""
    with quiet():
        from weightwatcher import RMT_Util

        sigma, _ = RMT_Util.fit_density_with_range(
            eigenvalues / eigenvalues.mean(), rows / columns, bw=0.1
        )
    return float(sigma)


def low_rank(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Singular values of left @ right as WeightWatcher gets those of an adapter, rising."""
    with quiet():
        from weightwatcher import RMT_Util

        values = RMT_Util.svd_values((left @ right).astype(np.float64), k=left.shape[1])
    return np.sort(values)


def norms(matrix: np.ndarray) -> tuple[float, float]:
    """Frobenius and spectral norm from all singular values; WeightWatcher has no other way."""
    with quiet():
        from weightwatcher import RMT_Util

        values = RMT_Util.svd_vals(matrix.astype(np.float64))
    return float(np.sqrt((values**2).sum())), float(values.max())


def in_order(values: object) -> Numbers:
    """One or more numbers that have no names."""
    return {"value": np.atleast_1d(np.asarray(values, dtype=np.float64))}
