"""A bound on the true error of the decoded bytes, and its check by a stranger."""

from tailor.stages.certify.method import Case, Evidence, Method
from tailor.stages.certify.occam import (
    Certificate,
    Check,
    CodeBits,
    HeldOut,
    Verification,
    certify,
    verify,
)

__all__ = [
    "Case",
    "Certificate",
    "Check",
    "CodeBits",
    "Evidence",
    "HeldOut",
    "Method",
    "Verification",
    "certify",
    "verify",
]
