"""Documents for certificates of language models: speeches of a play, and stories from a model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.compress.stories import converted, loaded
from benchmarks.compress.tok512 import BOS, Tokenizer
from tailor.numerics.counter import stream
from tailor.stages.certify.text import Documents

# Fixed without the data: the characters of a keyboard, the end of a line first.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
END_OF_LINE = 0
LENGTH = 48  # tokens of a story behind the mark of its beginning
BATCH = 1000


def speeches(path: Path) -> Documents:
    """Each speech of tiny Shakespeare with the empty line that ends it."""
    parts = path.read_text(encoding="utf-8").strip().split("\n\n")
    return Documents.of_text((part.strip("\n") + "\n\n" for part in parts), ALPHABET, repeats=True)


def lines(path: Path) -> Documents:
    """Each line of tiny Shakespeare that is not empty, with its end."""
    parts = path.read_text(encoding="utf-8").split("\n")
    return Documents.of_text((part + "\n" for part in parts if part), ALPHABET, repeats=True)


def parted(documents: Documents, held_out: int) -> tuple[Documents, Documents]:
    """All but the documents with the smallest hashes, and those."""
    records = documents.records()
    order = sorted(range(len(records)), key=lambda i: (records[i], i))
    first, last = order[:held_out], order[held_out:]
    return documents.at(last), documents.at(first)


def language_model(folder: Path, work: Path) -> tuple[Any, Tokenizer]:
    """stories260K with its tokenizer."""
    tokenizer = Tokenizer.load(folder / "tok512.bin")
    return loaded(converted(folder / "sharded", work / "stories260K", tokenizer)), tokenizer


@torch.no_grad()
def stories(model: Any, count: int, seed: int) -> Tensor:
    """Beginnings of ``count`` independent stories, token by token from the model.

    The random number of a story's token depends on seed, story and place alone.
    """
    words = stream("stories", seed).words(0, count * LENGTH).reshape(count, LENGTH)
    uniform = (words >> 11 & (1 << 53) - 1).double() / 2**53
    return torch.cat([_batch(model, part) for part in uniform.split(BATCH)])


def _batch(model: Any, uniform: Tensor) -> Tensor:
    tokens, cache = torch.full((len(uniform), 1), BOS), None
    for column in uniform.T:
        out = model(tokens[:, -1:], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        below = out.logits[:, -1].double().softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(below, (column * below[:, -1])[:, None], right=True)
        tokens = torch.cat([tokens, drawn.clamp(max=below.shape[1] - 1)], dim=1)
    return tokens


def kept_stories(model: Any, count: int, seed: int, work: Path) -> np.ndarray:
    """The same, kept in the work folder."""
    path = work / f"stories-{count}-{seed}.npy"
    if not path.exists():
        np.save(path, stories(model, count, seed).numpy().astype(np.int16))
    return np.load(path).astype(np.int64)


def characters(tokens: np.ndarray, tokenizer: Tokenizer) -> Documents:
    """Stories as characters, up to the end of the first one; what is not on a keyboard is "?"."""
    texts = []
    for row in tokens.tolist():
        ends = [i for i, token in enumerate(row) if token in (1, 2) and i > 0]
        text = tokenizer.decode(row[1 : ends[0]] if ends else row[1:])
        texts.append("".join(c if c in ALPHABET else "?" for c in text) or "\n")
    return Documents.of_text(texts, ALPHABET, repeats=True)
