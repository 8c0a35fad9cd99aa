"""Pick-to-Learn: a network that is learnt from few of the examples, chosen one by one.

::

    learner    what learns from the picks alone
    order      which examples come next
    loop       the rounds, and the files at the declared stops
    proof      the certificate
    warp       copies of images that differ a little
    network    a learner: gradient steps, pruning on the way
"""

from tailor.stages.certify.picks.learner import Learner
from tailor.stages.certify.picks.loop import Round, Rounds, Stop, picking
from tailor.stages.certify.picks.network import NetworkLearner
from tailor.stages.certify.picks.proof import PickedEvidence, PickToLearn, Trace, traced
from tailor.stages.certify.picks.warp import Warp

__all__ = [
    "Learner",
    "NetworkLearner",
    "PickToLearn",
    "PickedEvidence",
    "Round",
    "Rounds",
    "Stop",
    "Trace",
    "Warp",
    "picking",
    "traced",
]
