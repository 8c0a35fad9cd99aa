"""Tail indices of minibatch gradient noise, and of averaged iterates of training.

Three questions that are easily taken for one stand side by side in every record:

- which alpha-stable law comes closest (``stable``), as Simsekli, Sagun & Gurbuzbalaban (2019)
  measured for gradients and Gurbuzbalaban, Simsekli & Zhu (2021) for iterates;
- which power law the largest values follow, if any (``tail``), which assumes no stable law;
- for gradients, which stable law comes closest once every coordinate has the same spread
  (``scaled``). Coordinates of different spread, each perfectly Gaussian, look heavy-tailed in one
  pool; an index that is below 2 pooled and 2 scaled is such a mixture.

An index below 2 alone is no evidence of infinite variance; see ``tailor.numerics.stable.fit``.
"""

from tailor.stages.gradient_noise.gradients import GradientNoise, NoiseFit, gradient_noise
from tailor.stages.gradient_noise.iterates import IterateFit, IterateTails, iterate_tail_index

__all__ = [
    "GradientNoise",
    "IterateFit",
    "IterateTails",
    "NoiseFit",
    "gradient_noise",
    "iterate_tail_index",
]
