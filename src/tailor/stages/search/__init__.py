"""The search for the file with the smallest Occam bound.

::

    engine     jobs, then rounds from the best file; stops at any time and goes on
    jobs       what is tried for a network
    climb      local search on the certificate itself, and a way out of its dead ends
    moves      errors after every change of one weight, without evaluating the network
    rounding   whole numbers for a head, each making up for the error of the others
    curvature  the smooth loss behind it
    head       the problem: fixed features, whole numbers, a code, a bound
"""

from tailor.stages.search.climb import Climb, Renewal
from tailor.stages.search.curvature import Smooth
from tailor.stages.search.engine import Journal, Progress, search
from tailor.stages.search.head import HeadProblem
from tailor.stages.search.jobs import HeadJob, Job, NetworkJob, Target, head_problem
from tailor.stages.search.moves import Board, Move
from tailor.stages.search.rounding import Rounding

__all__ = [
    "Board",
    "Climb",
    "HeadJob",
    "HeadProblem",
    "Job",
    "Journal",
    "Move",
    "NetworkJob",
    "Progress",
    "Renewal",
    "Rounding",
    "Smooth",
    "Target",
    "head_problem",
    "search",
]
