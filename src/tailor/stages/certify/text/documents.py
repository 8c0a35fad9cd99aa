"""Texts as token sequences: a document is one independent draw, however many tokens it has."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray

from tailor.errors import UsageError
from tailor.tasks import Data

PAD = -1  # fills a row of ``Data`` behind the end of its document


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Documents:
    """Token sequences. Each is one draw; its tokens are not independent and need not be.

    Attributes:
        tokens: Numbers of the tokens of each document, counted from 0.
        repeats: Declares that equal documents are independent draws, not copies.
    """

    tokens: tuple[Int64[ndarray, "_"], ...]
    repeats: bool = False

    def __post_init__(self) -> None:
        for i, document in enumerate(self.tokens):
            if len(document) == 0:
                raise UsageError(f"document {i} is empty; leave empty documents out")
            if int(document.min()) < 0:
                raise UsageError(f"document {i} holds the token {document.min()}; count from 0")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], *, repeats: bool = False) -> "Documents":
        """Documents from sequences of whole numbers."""
        tokens = tuple(np.asarray(one, dtype=np.int64) for one in sequences)
        return cls(tokens=tokens, repeats=repeats)

    @classmethod
    def of_text(cls, texts: Iterable[str], alphabet: str, *, repeats: bool = False) -> "Documents":
        """Documents of characters; token i is the i-th character of an alphabet fixed before.

        Raises:
            UsageError: A character is not in the alphabet, or stands there twice.
        """
        place = {one: i for i, one in enumerate(alphabet)}
        if len(place) < len(alphabet):
            raise UsageError("a character stands twice in the alphabet")
        texts = list(texts)
        strange = sorted(set("".join(texts)) - set(alphabet))
        if strange:
            raise UsageError(
                f"the texts hold {strange[0]!r}, which is not in the alphabet; fix an alphabet "
                "with all characters, or with one that stands for the others, before the data"
            )
        return cls.of(([place[one] for one in text] for text in texts), repeats=repeats)

    @classmethod
    def from_data(cls, data: Data) -> "Documents":
        """Invert ``data``.

        Raises:
            UsageError: The inputs are no padded token sequences with their lengths as labels.
        """
        x, lengths = data.x, data.y
        if x.ndim != 2 or x.is_floating_point() or (len(x) and int(lengths.max()) > x.shape[1]):
            raise UsageError(
                "needs documents: rows of whole numbers with their lengths as labels, as "
                "Documents.data() gives them"
            )
        inside = torch.arange(x.shape[1])[None, :] < lengths[:, None]
        if not bool((x[~inside] == PAD).all()):
            raise UsageError(f"a row must hold {PAD} behind the end of its document")
        rows = x.to(torch.int64).numpy()
        tokens = tuple(row[:n] for row, n in zip(rows, lengths.tolist(), strict=True))
        return cls(tokens=tokens, repeats=data.repeats)

    def data(self) -> Data:
        """The documents as rows, padded with -1, and their lengths as labels.

        In this form they can be hashed, cut and certified like any other data.
        """
        lengths = torch.tensor([len(one) for one in self.tokens], dtype=torch.int64)
        x = torch.full((len(self), int(lengths.max()) if len(self) else 0), PAD, dtype=torch.int32)
        for row, document in zip(x, self.tokens, strict=True):
            row[: len(document)] = torch.from_numpy(document)
        return Data(x=x, y=lengths, repeats=self.repeats)

    def at(self, places: Iterable[int]) -> "Documents":
        """Some of the documents."""
        return replace(self, tokens=tuple(self.tokens[i] for i in places))

    def predicted(
        self, start: int | None, sizes: "Sizes | None"
    ) -> tuple[list[Int64[ndarray, "_"]], Int64[ndarray, "documents"]]:
        """The tokens that are predicted, and each document's size in characters or tokens.

        Args:
            start: As for ``predict``: without it the first token of a document is given.
            sizes: What each token stands for; by default predicted tokens are counted.
        """
        given = [one if start is not None else one[1:] for one in self.tokens]
        if sizes is None:
            return given, np.array([len(one) for one in given], dtype=np.int64)
        table = np.array(sizes.counts, dtype=np.int64)
        return given, np.array([int(table[one].sum()) for one in self.tokens], dtype=np.int64)

    def records(self) -> list[str]:
        """SHA-256 of each document."""
        return [hashlib.sha256(one.astype("<i8").tobytes()).hexdigest() for one in self.tokens]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sizes:
    """How many characters or bytes each token of a vocabulary stands for, fixed before the data.

    Attributes:
        counts: By token; 0 for marks such as the beginning of a text.
        unit: What is counted: "character" or "byte".
    """

    counts: tuple[int, ...]
    unit: str

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 0:
            raise UsageError("each token needs a size of 0 or more")

    @property
    def sha256(self) -> str:
        """Hash of the sizes, as decimal numbers with commas."""
        return hashlib.sha256(",".join(map(str, self.counts)).encode()).hexdigest()

    def __repr__(self) -> str:  # a certificate names its method by this text
        return f"Sizes(unit={self.unit!r}, sha256={self.sha256!r})"
