"""The held-out bound: the reference that every other bound has to be read beside."""

from dataclasses import dataclass
from typing import ClassVar

from tailor.errors import UsageError
from tailor.numerics.bounds import held_out_upper
from tailor.stages.certify.method import Case, Method


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutEvidence:
    """What a held-out bound was computed from.

    Attributes:
        n: Number of held-out examples.
        errors: Errors among them.
        risk_bound: One-sided Clopper-Pearson bound at delta over the number of files compared.
        compared: Number of files that were compared on these examples.
    """

    n: int
    errors: int
    risk_bound: float
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Method):
    """The network was made without the examples: the one-sided Clopper-Pearson bound.

    If h does not depend on n independent examples and errs on k of them, then with probability
    at least 1 - delta its true error is at most the largest p with P(Bin(n, p) <= k) >= delta
    (Clopper & Pearson 1934; Langford 2005, JMLR 6, section 3). With m networks compared on the
    same examples each is bounded at delta / m.

    Attributes:
        compared: How many networks were evaluated on these examples, this one included, by
            anybody and for any reason. There is no default: if it is not known, no bound holds.
    """

    compared: int
    kind: ClassVar[str] = "held-out"

    def __post_init__(self) -> None:
        if self.compared < 1:
            raise UsageError(
                f"compared must be at least 1, the network itself, but is {self.compared}"
            )

    def prove(self, case: Case) -> HeldOutEvidence:
        """See ``Method.prove``."""
        errors, n = int(case.error(case.model, case.data).sum()), len(case.data)
        bound = held_out_upper(errors, n, case.delta / (self.compared * case.choices))
        return HeldOutEvidence(n=n, errors=errors, risk_bound=bound, compared=self.compared)
