"""Is the tail a power law, or is another law as good? Rivals fitted and tested against it."""

from tailor.numerics.alternatives.compare import Alternatives, Rival, compare
from tailor.numerics.alternatives.truncated import TruncatedPowerLaw, truncated_power_law

__all__ = ["Alternatives", "Rival", "TruncatedPowerLaw", "compare", "truncated_power_law"]
