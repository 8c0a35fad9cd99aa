"""A bound on the true error of the decoded bytes, and everything needed to check it."""

from tailor.stages.certify.certificate import Certificate, HeldOutErrors, Prior, Proof, certify
from tailor.stages.certify.held_out import HeldOut, HeldOutEvidence
from tailor.stages.certify.method import Case, Evidence, Method
from tailor.stages.certify.occam import CodeBits, Occam, OccamEvidence
from tailor.stages.certify.registration import Network, Part, Registration, Split, register
from tailor.stages.certify.verify import verify

__all__ = [
    "Case",
    "Certificate",
    "CodeBits",
    "Evidence",
    "HeldOutErrors",
    "Method",
    "Network",
    "Occam",
    "OccamEvidence",
    "Part",
    "Prior",
    "Proof",
    "Registration",
    "Split",
    "HeldOut",
    "HeldOutEvidence",
    "certify",
    "register",
    "verify",
]
