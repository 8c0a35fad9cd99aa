"""The certificate of a language model: bits per token, character or byte of a new document."""

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds.rounding import LN2, up
from tailor.stages.certify.method import Case, Method
from tailor.stages.certify.occam import code_bits
from tailor.stages.certify.text.betting import MeanBound, betting_upper, mean_upper
from tailor.stages.certify.text.documents import Documents, Sizes
from tailor.stages.certify.text.predictions import ROUNDING, Predictions, loss_range, predict

ALPHAS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5)  # eight, as in Lotfi et al. 2024
STATEMENTS = 2  # bits and wrong tokens are claimed together, so each is paid for


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEvidence:
    """What the bounds of a language model were computed from.

    Attributes:
        n: Number of documents in the sample.
        errors: Tokens that were not the most probable ones, among those evaluated.
        tokens: Tokens that were evaluated.
        risk_bound: Bits per unit of a new document: the betting form.
        independent: Whether the network was made without these documents.
        unit: "token", "character" or "byte".
        sizes_sha256: Hash of the sizes of the tokens; empty if tokens are counted.
        least: Units for each token that a document is taken to have at least.
        start: The token in front of each document, or None.
        vocabulary: Number of tokens to choose from.
        alphas: Weights of the uniform prediction to choose from.
        alpha: The one that was chosen.
        low: Smallest possible loss of a document, in bits per unit.
        high: Largest possible loss.
        short: Documents whose size was raised to the least one.
        bits: All forms for the bits per unit.
        wrong: All forms for the share of wrong next tokens.
        code: Bits that are paid for the network; 0 if it is independent of the sample.
        nats: ln(1 / probability of failure) of the bits, everything paid.
        nats_wrong: The same of the wrong tokens, which need no alpha.
        evaluated: Documents that were evaluated: all, or those drawn after the file was made.
        share: With a drawn part, what the sample gets of delta.
        sample_nats: ln(1 / probability that the drawn part misleads), of each statement.
        drawn_by: Hash of the stream that the part was drawn by; empty if all were evaluated.
        uniform: Bits per unit of the uniform prediction: what a bound has to beat.
        unigram: Bits per unit of the best prediction that knows no context, fitted to these very
            documents and paid for by nobody.
    """

    n: int
    errors: int
    tokens: int
    risk_bound: float
    independent: bool
    unit: str
    sizes_sha256: str
    least: float
    start: int | None
    vocabulary: int
    alphas: tuple[float, ...]
    alpha: float
    low: float
    high: float
    short: int
    bits: MeanBound
    wrong: MeanBound
    code: float
    nats: float
    nats_wrong: float
    evaluated: int
    share: float
    sample_nats: float
    drawn_by: str
    uniform: float
    unigram: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BitsPerCharacter(Method):
    """A short file predicts new documents nearly as well as those it was fitted to.

    The loss of a document is the mean of -log2 ((1 - alpha) p + alpha / V) over its tokens; it
    lies between known limits, and documents are independent, so that the bounds for means hold
    with ln(1 / delta) + L ln 2 nats for a file of L bits (Lotfi et al. 2024, Non-vacuous
    generalization bounds for large language models, with the relative entropy's and the betting
    form in place of Hoeffding's). So every document counts alike, whatever its length. With
    ``sizes`` the sum of the bits is divided by the document's characters or bytes, but at least
    by ``least`` for each token, without which the loss would have no limit.

    Paid are the file, log2 of the number of alphas, and one bit for two statements: bits, and
    the share of next tokens that are not the most probable ones.

    The data are ``Documents.data()``. Documents must be independent draws, which consecutive
    pieces of one text are not; tokens within one need not be. The vocabulary, the way of cutting
    into documents and tokens, and all fields must be fixed before the data are seen.

    Attributes:
        vocabulary: Number of tokens, V.
        alphas: Weights of the uniform prediction among which the best is chosen.
        start: A token that is put in front of each document. Without it a document's first
            token is given and not predicted.
        sizes: What each token stands for; by default the unit is the token.
        least: Characters or bytes for each token that a document is taken to have at least.
        subsample: Evaluate only so many documents. They are those with the smallest hashes of
            stream and document together, so nobody can choose them once the file is fixed; a file
            must not be made again because of what it drew.
        share: With a subsample, the part of delta that the sample gets; the part gets the rest.
        independent: The network was made without these documents and without copies of them:
            no bit of it is paid for.
    """

    vocabulary: int
    alphas: tuple[float, ...] = ALPHAS
    start: int | None = None
    sizes: Sizes | None = None
    least: float = 1.0
    subsample: int | None = None
    share: float = 0.8
    independent: bool = False
    kind: ClassVar[str] = "bits-per-character"

    def __post_init__(self) -> None:
        if not self.alphas or len(set(self.alphas)) < len(self.alphas):
            raise UsageError(f"alphas must be different numbers, but are {self.alphas}")
        for alpha in self.alphas:
            loss_range(alpha, self.vocabulary)
        if not 0 < self.least < math.inf or (self.sizes is None and self.least != 1):
            raise UsageError(
                f"least must be a number above 0, and 1 for bits per token, but is {self.least}"
            )
        if self.subsample is not None and self.subsample < 2:
            raise UsageError(f"a subsample needs 2 or more documents, but is {self.subsample}")
        if not 0 < self.share < 1:
            raise UsageError(f"share must lie strictly between 0 and 1, but is {self.share}")

    @property
    def unit(self) -> str:
        """What the bits are counted by."""
        return "token" if self.sizes is None else self.sizes.unit

    def prove(self, case: Case) -> TextEvidence:
        """See ``Method.prove``.

        Raises:
            UsageError: The data are no documents of this vocabulary, or there is only one.
            PayloadError: The file was written by a coder for speed, or states sizes of layers.
            TaskError: The network cannot be run on the documents, or is not causal.
        """
        bits = math.log2(case.choices)
        if not self.independent:
            bits = code_bits(case.small, case.choices).total
        return self.bound(
            case.model,
            Documents.from_data(case.data),
            bits=bits,
            delta=case.delta,
            stream=case.small.stream,
        )

    def bound(
        self, model: nn.Module, documents: Documents, *, bits: float, delta: float, stream: bytes
    ) -> TextEvidence:
        """The same without a file.

        Args:
            model: In evaluation mode, on the CPU, in float64.
            documents: The sample, in any order.
            bits: What the network costs.
            delta: Probability of failure.
            stream: What the subsample is drawn by.

        Raises:
            UsageError: Fewer than two documents, or repeated ones that are not declared.
            TaskError: The network cannot be run on the documents, or is not causal.
        """
        if len(documents) < 2:
            raise UsageError(f"a bound needs 2 or more documents, but got {len(documents)}")
        repeated = len(documents) - len(set(documents.records()))
        if repeated and not documents.repeats:
            raise UsageError(
                f"{repeated} of the {len(documents)} documents are repetitions of others; remove "
                "them, or declare with repeats=True that equal documents were really drawn "
                "independently"
            )
        drawn = self.draw(documents, stream)
        found = predict(
            model, drawn, vocabulary=self.vocabulary, start=self.start, sizes=self.sizes
        )
        return self.weigh(found, drawn, n=len(documents), bits=bits, delta=delta, stream=stream)

    def weigh(
        self,
        found: Predictions,
        drawn: Documents,
        *,
        n: int,
        bits: float,
        delta: float,
        stream: bytes = b"",
    ) -> TextEvidence:
        """The same from predictions that were made before.

        Args:
            found: Of the documents that ``draw`` gives, in its order.
            drawn: These documents.
            n: How many there are in the sample.
            bits: What the network costs.
            delta: Probability of failure.
            stream: What the part was drawn by, if it is one.
        """
        part = len(drawn) < n
        share = self.share if part else 1.0
        nats_wrong = up(bits * LN2 + math.log(STATEMENTS / (delta * share)))
        nats = up(nats_wrong + math.log(len(self.alphas)))
        spent = {"n": n if part else None}
        sample_nats = up(math.log(STATEMENTS / (delta * (1 - share)))) if part else 0.0
        alpha = min(self.alphas, key=lambda one: self._coarse(found, one, nats))
        low, high = self.limits(alpha)
        bounds = mean_upper(self._rescaled(found, alpha), nats, sample_nats=sample_nats, **spent)
        bounds = bounds.scaled(low, high)
        uniform, unigram = self._guesses(drawn)
        return TextEvidence(
            n=n,
            errors=int(found.wrong.sum()),
            tokens=len(found.wrong),
            risk_bound=bounds.betting,
            independent=self.independent,
            unit=self.unit,
            sizes_sha256="" if self.sizes is None else self.sizes.sha256,
            least=self.least,
            start=self.start,
            vocabulary=self.vocabulary,
            alphas=self.alphas,
            alpha=alpha,
            low=low,
            high=high,
            short=int((found.sizes < self.least * found.counts).sum()),
            bits=bounds,
            wrong=mean_upper(found.errors(), nats_wrong, sample_nats=sample_nats, **spent),
            code=bits,
            nats=nats,
            nats_wrong=nats_wrong,
            evaluated=len(drawn),
            share=share,
            sample_nats=sample_nats,
            drawn_by=hashlib.sha256(stream).hexdigest() if part else "",
            uniform=uniform,
            unigram=unigram,
        )

    def draw(self, documents: Documents, stream: bytes) -> Documents:
        """The documents that are evaluated, in the order of their hashes.

        Equal documents are told apart by how often they came before.
        """
        seed, seen = hashlib.sha256(stream).digest(), dict[str, int]()
        keys = []
        for record in documents.records():
            seen[record] = seen.get(record, 0) + 1
            text = seed + f"{record} {seen[record]}".encode()
            keys.append(hashlib.sha256(text).digest())
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return documents.at(order[: self.subsample])

    def limits(self, alpha: float) -> tuple[float, float]:
        """Smallest and largest loss of a document, in bits per unit."""
        low, high = loss_range(alpha, self.vocabulary)
        return (low, high) if self.sizes is None else (0.0, up(high / self.least))

    def guess(self, case: Case) -> float:
        """Bits per unit of the best prediction without context, or of the uniform one if fewer.

        The first is fitted to the documents and paid for by nobody: a mark that is hard to beat.
        """
        drawn = self.draw(Documents.from_data(case.data), case.small.stream)
        return min(self._guesses(drawn))

    def _coarse(self, found: Predictions, alpha: float, nats: float) -> float:
        low, high = self.limits(alpha)
        return low + (high - low) * betting_upper(self._rescaled(found, alpha), nats, coarse=True)

    def _rescaled(self, found: Predictions, alpha: float) -> Float64[ndarray, "documents"]:
        """Losses as shares of their range, rounded up."""
        low, high = self.limits(alpha)
        shares = (found.losses(alpha, self.least) + ROUNDING - low) / (high - low)
        return np.clip(shares, 0.0, 1.0)

    def _guesses(self, documents: Documents) -> tuple[float, float]:
        """Bits per unit of the uniform prediction, and of the best one without context."""
        given, sizes = documents.predicted(self.start, self.sizes)
        counts = np.array([len(one) for one in given])
        weights = 1 / np.maximum(sizes, self.least * counts)
        total = np.bincount(
            np.concatenate(given), weights=np.repeat(weights, counts), minlength=self.vocabulary
        )
        used = total[total > 0] / total.sum()
        each = float(total.sum()) / len(documents)
        return each * math.log2(self.vocabulary), each * float(-(used * np.log2(used)).sum())
