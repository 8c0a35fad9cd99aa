"""Upper bounds on a true error rate, computed in the log domain and rounded outward.

Every function returns a number that is **at least** the exact bound: roots are found from the
safe side, and a bound on the rounding error of the log-domain sums is added on that side too.
"""

from tailor.numerics.bounds.binomial import (
    binomial_upper,
    bits_allowed,
    clopper_pearson,
    held_out_upper,
)
from tailor.numerics.bounds.bounded import (
    BoundedBound,
    occam_bounded,
    smoothing_range,
    subsampled_upper,
)
from tailor.numerics.bounds.budget import DeltaSplit, split_delta
from tailor.numerics.bounds.kl import kl_upper
from tailor.numerics.bounds.lengths import elias_delta_bits, universal_bits
from tailor.numerics.bounds.occam import OccamBound, occam
from tailor.numerics.bounds.pac_bayes import (
    catoni,
    catoni_grid,
    gibbs_risk_upper,
    majority_vote_upper,
    pac_bayes_kl,
)
from tailor.numerics.bounds.sample_compression import (
    likely_window,
    pick_to_learn,
    sample_compression,
)
from tailor.numerics.bounds.transfer import disagreement_upper

__all__ = [
    "BoundedBound",
    "DeltaSplit",
    "OccamBound",
    "binomial_upper",
    "bits_allowed",
    "catoni",
    "catoni_grid",
    "clopper_pearson",
    "disagreement_upper",
    "elias_delta_bits",
    "gibbs_risk_upper",
    "held_out_upper",
    "kl_upper",
    "likely_window",
    "majority_vote_upper",
    "occam",
    "occam_bounded",
    "pac_bayes_kl",
    "pick_to_learn",
    "sample_compression",
    "smoothing_range",
    "split_delta",
    "subsampled_upper",
    "universal_bits",
]
