"""What a network says of every token of a document, and the loss of the document."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from torch import Tensor, nn

from tailor.errors import TaskError, UsageError
from tailor.stages.certify.text.documents import Documents, Sizes
from tailor.tasks.data import TIE

CELLS = 1 << 22  # scores that are computed at a time
LOOKED_AT = 4  # documents that are evaluated once more, alone and cut short
SAME = 1e-9  # relative difference of a probability that rounding may make
ROUNDING = 2.0**-20  # bits added to each loss: far more than machines differ by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Probabilities of the tokens that came, document after document.

    Attributes:
        probability: Of each predicted token, before smoothing.
        wrong: Whether another token was at least as probable.
        counts: Predicted tokens of each document.
        sizes: Characters or bytes of each document, or its predicted tokens.
        vocabulary: Number of tokens to choose from.
    """

    probability: Float64[ndarray, "tokens"]
    wrong: Bool[ndarray, "tokens"]
    counts: Int64[ndarray, "documents"]
    sizes: Int64[ndarray, "documents"]
    vocabulary: int

    def losses(self, alpha: float, least: float = 1.0) -> Float64[ndarray, "documents"]:
        """Bits of each document under the smoothed prediction, by its size.

        The prediction p is mixed with the uniform one, (1 - alpha) p + alpha / V. A document's
        loss is the sum of -log2 over its tokens, divided by its size, or by ``least`` times its
        number of tokens where its size is smaller.
        """
        mixed = (1 - alpha) * self.probability + alpha / self.vocabulary
        return np.asarray(self._sums(-np.log2(mixed)) / self.denominators(least))

    def denominators(self, least: float) -> Float64[ndarray, "documents"]:
        """What the bits of each document are divided by."""
        return np.asarray(np.maximum(self.sizes, least * self.counts), dtype=np.float64)

    def errors(self) -> Float64[ndarray, "documents"]:
        """Share of each document's tokens that were not the most probable ones."""
        return np.asarray(self._sums(self.wrong.astype(np.float64)) / self.counts)

    def _sums(self, values: Float64[ndarray, "tokens"]) -> Float64[ndarray, "documents"]:
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.asarray(np.add.reduceat(values, starts))


def loss_range(alpha: float, vocabulary: int) -> tuple[float, float]:
    """Smallest and largest loss of a token in bits, rounded outward.

    They differ by log2(1 + (1 - alpha) V / alpha) (Lotfi et al. 2024, Non-vacuous generalization
    bounds for large language models, section 4).

    Raises:
        UsageError: alpha is not in (0, 1], or there are fewer than two tokens.
    """
    if not 0 < alpha <= 1:
        raise UsageError(
            f"alpha must lie in (0, 1], but is {alpha}; without smoothing a loss has no bound"
        )
    if vocabulary < 2:
        raise UsageError(f"needs a vocabulary of 2 or more tokens, but got {vocabulary}")
    low = -math.log2(1 - alpha + alpha / vocabulary)
    high = math.log2(vocabulary / alpha)
    return max(0.0, low - 1e-12), high + 1e-12


def predict(
    model: nn.Module,
    documents: Documents,
    *,
    vocabulary: int,
    start: int | None = None,
    sizes: Sizes | None = None,
) -> Predictions:
    """Evaluate a causal network on documents, those of one length together and none padded.

    Args:
        model: Token numbers of shape (documents, length) to scores of the next token, of shape
            (documents, length, vocabulary), or an object that has them as ``logits``. It is used
            as it is; certificates give it in float64, on the CPU, in evaluation mode.
        documents: What is predicted.
        vocabulary: Number of tokens.
        start: A token that is put in front of each document. Without it a document's first
            token is given and not predicted.
        sizes: What each token stands for; by default a document's size is the number of its
            predicted tokens.

    Raises:
        UsageError: No documents, one too short, or a token that is not in the vocabulary.
        TaskError: The network fails, or its scores depend on later tokens or other documents.
    """
    _check(documents, vocabulary, start, sizes)
    given = [_with(start, one) for one in documents.tokens]
    counts = np.array([len(one) - 1 for one in given], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(counts)])
    probability, wrong = np.empty(int(first[-1])), np.empty(int(first[-1]), dtype=bool)
    for batch in _batches(given, vocabulary):
        tokens = torch.from_numpy(np.stack([given[i] for i in batch]))
        found, missed = _evaluate(model, tokens, vocabulary)
        for row, i in enumerate(batch):
            probability[first[i] : first[i + 1]] = found[row]
            wrong[first[i] : first[i + 1]] = missed[row]
    _must_be_causal(model, given, np.split(probability, first[1:-1]), vocabulary)
    return Predictions(
        probability=probability,
        wrong=wrong,
        counts=counts,
        sizes=documents.predicted(start, sizes)[1],
        vocabulary=vocabulary,
    )


def _check(documents: Documents, vocabulary: int, start: int | None, sizes: Sizes | None) -> None:
    if len(documents) == 0:
        raise UsageError("there are no documents")
    top = max(int(one.max()) for one in documents.tokens)
    if max(top, -1 if start is None else start) >= vocabulary or (start is not None and start < 0):
        raise UsageError(
            f"the documents hold token {top} and start with {start}, but the vocabulary has "
            f"tokens 0 to {vocabulary - 1}"
        )
    if start is None and min(len(one) for one in documents.tokens) < 2:
        raise UsageError(
            "a document of one token has nothing to predict; give a start token, or leave it out"
        )
    if sizes is not None and len(sizes.counts) != vocabulary:
        raise UsageError(
            f"needs the size of each of the {vocabulary} tokens, but got {len(sizes.counts)}"
        )


def _with(start: int | None, document: Int64[ndarray, "_"]) -> Int64[ndarray, "_"]:
    return document if start is None else np.concatenate([[start], document]).astype(np.int64)


def _batches(given: list[Int64[ndarray, "_"]], vocabulary: int) -> Iterator[list[int]]:
    """Documents of one length, as many as fit."""
    order = sorted(range(len(given)), key=lambda i: len(given[i]))
    batch: list[int] = []
    for i in order:
        length = len(given[i])
        full = batch and (len(batch) + 1) * length * vocabulary > CELLS
        if batch and (full or len(given[batch[0]]) != length):
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _evaluate(
    model: nn.Module, tokens: Int64[Tensor, "b t"], vocabulary: int
) -> tuple[Float64[ndarray, "b t-1"], Bool[ndarray, "b t-1"]]:
    """Probability of each token but the first, and whether it is not the most probable one."""
    logits = _logits(model, tokens[:, :-1], vocabulary)
    following = tokens[:, 1:, None]
    probability = logits.log_softmax(dim=-1).gather(-1, following).squeeze(-1).exp()
    own = logits.gather(-1, following)
    rivals = logits.scatter(-1, following, -torch.inf).amax(dim=-1, keepdim=True)
    size = logits.abs().amax(dim=-1, keepdim=True)
    wrong = ~(own - rivals > TIE * size).squeeze(-1)
    return probability.numpy(), wrong.numpy()


def _logits(model: nn.Module, tokens: Int64[Tensor, "b t"], vocabulary: int) -> Tensor:
    try:
        with torch.no_grad():
            out: Any = model(tokens)
    except Exception as error:  # a user's network can fail in any way
        said = f"{type(error).__name__}: {error}"
        raise TaskError(f"the network cannot be run on the documents: {said}") from error
    logits = out if isinstance(out, Tensor) else getattr(out, "logits", None)
    expected = (*tokens.shape, vocabulary)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(out).__name__
        raise TaskError(f"needs scores of shape {expected}, but the network returned {shape}")
    logits = logits.to(torch.float64)
    if not bool(torch.isfinite(logits).all()):
        raise TaskError("the network gives scores that are not finite")
    return logits


def _must_be_causal(
    model: nn.Module,
    given: list[Int64[ndarray, "_"]],
    found: list[Float64[ndarray, "_"]],
    vocabulary: int,
) -> None:
    """Evaluate some documents again, alone, and cut in the middle: nothing may change."""
    order = sorted(range(len(given)), key=lambda i: (len(given[i]), given[i].tobytes()))
    for i in {order[round(k * (len(order) - 1) / LOOKED_AT)] for k in range(LOOKED_AT + 1)}:
        length = max(2, len(given[i]) // 2 + 1)
        alone, _ = _evaluate(model, torch.from_numpy(given[i][None, :length]), vocabulary)
        if not np.allclose(alone[0], found[i][: length - 1], rtol=SAME, atol=1e-300):
            raise TaskError(
                "the network's scores of a token depend on later tokens, on other documents or "
                "on chance; bits per token need a causal network in evaluation mode"
            )
