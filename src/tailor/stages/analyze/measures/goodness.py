"""Measures of a fit: is the tail a power law, and is another law as good?"""

from dataclasses import dataclass

from tailor.numerics.alternatives import Alternatives, compare
from tailor.numerics.powerlaw import GoodnessOfFit, NoFit, PowerLawFit, TailFit, p_value
from tailor.stages.analyze.measures.measure import Matrix, Measure, columns_of
from tailor.stages.analyze.record import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class PValue(Measure):
    """Goodness of the power law by a bootstrap: a small ``p_value`` speaks against it.

    Attributes:
        replicates: Size of the bootstrap.
        seed: Its seed; each matrix gets a stream of its own.
    """

    replicates: int = 100
    seed: int = 0

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.powerlaw.p_value``; empty for an estimator that needs the matrices."""
        found: GoodnessOfFit | NoFit = NoFit(reason="", n=0)
        if isinstance(matrix.method, TailFit) and isinstance(matrix.fit, PowerLawFit):
            found = p_value(
                matrix.eigenvalues,
                matrix.method,
                replicates=self.replicates,
                seed=matrix.seed(self.seed),
            )
        return columns_of(found, p_value="p", p_error="error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals(Measure):
    """Other laws against the power law above the same xmin (Vuong 1989).

    For each of ``exponential``, ``lognormal``, ``stretched_exponential`` and
    ``truncated_power_law``: ``R_...``, the log likelihood of the power law less that of the rival
    (below 0 speaks for the rival), and ``p_...``, the probability of so large an R if neither is
    better. ``TPL_alpha`` and ``Lambda`` are exponent and cut-off rate of the truncated power law.
    """

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.alternatives.compare``; empty without a fit."""
        if not isinstance(matrix.fit, PowerLawFit):
            return {}
        found = compare(matrix.eigenvalues, matrix.fit.xmin)
        if not isinstance(found, Alternatives):
            return {}
        columns: dict[str, Value] = {}
        for rival in found.rivals:
            columns |= {f"R_{rival.name}": rival.R, f"p_{rival.name}": rival.p}
            if rival.name == "truncated_power_law":
                columns["TPL_alpha"] = rival.parameters.get("alpha", found.alpha)
                columns["Lambda"] = rival.parameters.get("rate", 0.0)
        return columns
