"""The tokenizer of llama2.c: byte pairs merged by score, with single bytes where none fits."""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BOS, SPACE, BYTES = 1, b" ", 3  # the tokens of single bytes begin at 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """Pieces of text and the order in which they are merged.

    Attributes:
        pieces: The bytes of each token.
        scores: The larger, the sooner two tokens are merged to this one.
    """

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a ``tok*.bin``: the longest length, then score, length and bytes of each token."""
        data, at = path.read_bytes(), 4
        pieces, scores = [], []
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            pieces.append(data[at + 8 : at + 8 + length])
            scores.append(score)
            at += 8 + length
        return cls(pieces=tuple(pieces), scores=tuple(scores))

    def encode(self, text: str) -> list[int]:
        """Numbers of the tokens, the first of which says that a text begins."""
        known = {piece: i for i, piece in enumerate(self.pieces) if i >= BYTES + 256}
        tokens: list[int] = [known[SPACE]] if text else []
        for character in text:
            raw = character.encode()
            tokens += [known[raw]] if raw in known else [byte + BYTES for byte in raw]
        return [BOS, *self._merged(tokens, known)]

    def _merged(self, tokens: list[int], known: dict[bytes, int]) -> list[int]:
        """Merge the pair of the best score, the first of them, until none is left."""
        while True:
            pairs = [
                (-self.scores[known[both]], i, known[both])
                for i, (a, b) in enumerate(pairwise(tokens))
                if (both := self.pieces[a] + self.pieces[b]) in known
            ]
            if not pairs:
                return tokens
            _, place, merged = min(pairs)
            tokens[place : place + 2] = [merged]

    def decode(self, tokens: list[int]) -> str:
        """The text; the space that ``encode`` puts in front is taken away."""
        found = b""
        for before, token in zip([BOS, *tokens], tokens, strict=False):
            piece = self.pieces[token]
            if BYTES <= token < BYTES + 256:
                piece = bytes([token - BYTES])
            found += (
                b"" if token <= 2 else piece[1:] if before == BOS and piece[:1] == SPACE else piece
            )
        return found.decode(errors="replace")
