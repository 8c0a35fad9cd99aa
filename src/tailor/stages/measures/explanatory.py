"""Records that explain, and can never be taken for a certificate."""

from dataclasses import dataclass
from typing import Literal

from tailor.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanatory:
    """What every record of this package begins with.

    Attributes:
        is_certificate: Always False.
        why_not: What is missing for a bound on the true error.
    """

    is_certificate: Literal[False] = False
    why_not: str = "It describes a sample; no theorem makes it a bound on the true error."

    def __post_init__(self) -> None:
        if self.is_certificate is not False:
            raise UsageError(
                f"{type(self).__name__} is an explanation and no certificate; is_certificate "
                "cannot be set; use certify for a bound"
            )
