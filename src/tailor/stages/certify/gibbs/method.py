"""PAC-Bayes: a bound on the error of a predictor that draws a fresh network each time."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import ClassVar

from tailor.errors import UsageError
from tailor.numerics.bounds import catoni, gibbs_risk_upper, majority_vote_upper, pac_bayes_kl
from tailor.numerics.counter import stream
from tailor.stages.certify.gibbs.posterior import Draws, Posterior, count_draws
from tailor.stages.certify.gibbs.prior import Centred, Prior, PriorTerms
from tailor.stages.certify.method import Case, Method
from tailor.tasks.data import wrong_scores

SIDES = 0.25  # below this, the binomial interval holds for draws with different probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class PACBayesEvidence:
    """What a PAC-Bayes bound was computed from.

    Attributes:
        n: Number of examples that the bound counts.
        errors: Errors of the posterior on them, on average over the draws, rounded up.
        risk_bound: The bound on the risk of the stochastic predictor.
        prior: The prior, and how many examples it was learned from.
        repeats: Fresh networks for each example.
        draws: Number of draws: n times the repeats.
        draw_errors: How many of them erred.
        empirical_upper: Upper bound on the posterior's empirical risk, from the draws.
        divergence: KL(posterior || prior) in nats, with the price of the prior's grid.
        choices: ln of the number of alternatives, in nats.
        delta_draws: The part of delta for the draws.
        delta_bound: The other part.
        beta: Inverse temperature of Catoni's form.
        catoni: That form at the same delta. For comparison: claiming the smaller of the two
            would cost.
        derandomised: Twice the bound: holds for the majority vote of the same posterior.
        mean_errors: Errors of the module itself (the mean or the likeliest network). No bound
            here is about it.
        seed: Of the draws, with the file's hash.
    """

    n: int
    errors: int
    risk_bound: float
    prior: PriorTerms
    repeats: int
    draws: int
    draw_errors: int
    empirical_upper: float
    divergence: float
    choices: float
    delta_draws: float
    delta_bound: float
    beta: float
    catoni: float
    derandomised: float
    mean_errors: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PACBayes(Method):
    """The file holds a law of networks, and the bound is about a network drawn afresh each time.

    Let P be a law of networks that does not depend on the n examples. With probability at least
    1 - delta over them, for all laws Q at once,

        kl(empirical risk of Q, risk of Q) <= (KL(Q || P) + ln(2 sqrt(n) / delta)) / n,

    where kl is the relative entropy of two coins and the risk of Q is the probability that a
    network drawn from Q errs on a new example (Langford & Seeger 2001; Seeger 2002, theorem 1;
    the constant is Maurer's, 2004, theorem 5). Choosing P among m alternatives adds ln m.

    The empirical risk of Q is bounded from draws: an independent network for every example, and
    all that again for every repeat. Errors are independent with a probability for each example,
    and for the sum of such the one-sided Clopper-Pearson bound on their mean still holds at
    levels up to 1/4: by Hoeffding (1956) for counts of at least one below their mean, and nearer
    to it because the binomial tail is above 1/4 there (Greenberg & Mohri 2014). All errors but
    one are taken for all. The bits are a function of the seed and of the file's hash, so that
    anyone can draw them again and no seed can be picked for a given file.

    Attributes:
        prior: P.
        repeats: Fresh networks for each example.
        draws_share: Share of delta for the draws; 1/5 by default (0.01 of 0.05).
        beta: Inverse temperature of Catoni's form, which is shown beside.
        seed: Of the draws.
    """

    prior: Prior = field(default_factory=Centred)
    repeats: int = 20
    draws_share: float = 0.2
    beta: float = 2.0
    seed: int = 0
    kind: ClassVar[str] = "pac-bayes"

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(
                f"a stochastic predictor needs at least one draw for each example, but repeats is "
                f"{self.repeats}"
            )
        if not 0 < self.draws_share < 1 or not 0 < self.beta < math.inf:
            raise UsageError(
                "the draws need a share of delta strictly between 0 and 1 and Catoni's form a "
                f"finite beta above 0, but got {self.draws_share} and {self.beta}"
            )

    def prove(self, case: Case) -> PACBayesEvidence:
        """See ``Method.prove``.

        Raises:
            UsageError: The file holds no `Posterior` or one that the prior is not for, errors are
                not those of classification, there are fewer than 2 examples, or the share of
                delta for the draws is above 1/4.
        """
        posterior, delta_draws = self._check(case)
        first, data = self.prior.cut(case.data)
        mean_errors = case.error(posterior, data)
        if not bool((mean_errors == wrong_scores(posterior(data.x.double()), data.y)).all()):
            raise UsageError("PACBayes counts errors of classification only; leave error as it is")
        divergence = self.prior.divergence(posterior, first)
        bits = stream(self.seed, hashlib.sha256(case.small.payload).hexdigest(), "gibbs")
        drawn = count_draws(posterior, data, self.repeats, bits)
        risk = self._risk(drawn, delta_draws)
        choices = math.nextafter(math.log(case.choices), math.inf) if case.choices > 1 else 0.0
        nats = math.nextafter(divergence + choices, math.inf)
        left = math.nextafter(case.delta - delta_draws, 0.0)
        bound = pac_bayes_kl(risk, len(data), nats, left)
        return PACBayesEvidence(
            n=len(data),
            errors=-(-drawn.errors // self.repeats),
            risk_bound=bound,
            prior=self.prior.terms(first),
            repeats=self.repeats,
            draws=drawn.draws,
            draw_errors=drawn.errors,
            empirical_upper=risk,
            divergence=divergence,
            choices=choices,
            delta_draws=delta_draws,
            delta_bound=left,
            beta=self.beta,
            catoni=catoni(risk, len(data), nats, left, self.beta),
            derandomised=majority_vote_upper(bound),
            mean_errors=int(mean_errors.sum()),
            seed=self.seed,
        )

    def _risk(self, drawn: Draws, delta_draws: float) -> float:
        """Upper bound on the mean chance of an error."""
        if drawn.errors >= drawn.draws - 1:
            return 1.0
        return gibbs_risk_upper(drawn.errors, drawn.draws, delta_draws)

    def _check(self, case: Case) -> tuple[Posterior, float]:
        if not isinstance(case.model, Posterior):
            raise UsageError(
                "PACBayes needs a file that holds a law of networks, such as GaussianHead, but "
                f"build makes a {type(case.model).__name__}"
            )
        if len(case.data) < 2:
            raise UsageError(
                f"a PAC-Bayes bound needs 2 examples or more, but got {len(case.data)}"
            )
        delta_draws = self.draws_share * case.delta
        if delta_draws > SIDES:
            raise UsageError(
                f"the draws' part of delta may be at most {SIDES}, but is {delta_draws:g}"
            )
        return case.model, delta_draws
