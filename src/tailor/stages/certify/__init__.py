"""A bound on the true error of the decoded bytes, and everything needed to check it."""

from tailor.stages.certify.certificate import (
    Certificate,
    HeldOutErrors,
    Prior,
    Proof,
    certify,
    must_agree,
)
from tailor.stages.certify.disagreement import Disagreement, disagreement
from tailor.stages.certify.gibbs import (
    Centred,
    DiscreteWeights,
    FromPart,
    GaussianHead,
    GaussianWeights,
    PACBayes,
    PACBayesEvidence,
    SparsePrior,
    fit_head,
)
from tailor.stages.certify.held_out import HeldOut, HeldOutEvidence
from tailor.stages.certify.method import Case, Evidence, Method
from tailor.stages.certify.occam import CodeBits, Occam, OccamEvidence
from tailor.stages.certify.picks import (
    Learner,
    NetworkLearner,
    PickedEvidence,
    PickToLearn,
    Rounds,
    Warp,
)
from tailor.stages.certify.registration import Network, Part, Registration, Split, register
from tailor.stages.certify.text import BitsPerCharacter, Documents, Sizes, TextEvidence
from tailor.stages.certify.verify import verify

__all__ = [
    "BitsPerCharacter",
    "Case",
    "Centred",
    "Certificate",
    "CodeBits",
    "Disagreement",
    "DiscreteWeights",
    "Documents",
    "Evidence",
    "FromPart",
    "GaussianHead",
    "GaussianWeights",
    "HeldOut",
    "HeldOutErrors",
    "HeldOutEvidence",
    "Learner",
    "Method",
    "Network",
    "NetworkLearner",
    "Occam",
    "OccamEvidence",
    "PACBayes",
    "PACBayesEvidence",
    "Part",
    "PickToLearn",
    "PickedEvidence",
    "Prior",
    "Proof",
    "Registration",
    "Rounds",
    "Sizes",
    "SparsePrior",
    "Split",
    "TextEvidence",
    "Warp",
    "certify",
    "disagreement",
    "fit_head",
    "must_agree",
    "register",
    "verify",
]
