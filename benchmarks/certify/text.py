"""How small a bound for a language model can be: characters of plays and of stories.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.text --data FOLDER --work FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.text --data FOLDER --work FOLDER --quick
    python -m benchmarks.certify.text --show

FOLDER holds tinyshakespeare/input.txt (github.com/karpathy/char-rnn) and stories260k/ (a model of
huggingface.co/karpathy/tinyllamas with its tokenizer). Three kinds of documents: speeches and
lines of the plays, of which the neighbours are no independent draws, so that their figures rest
on an assumption that fails; and beginnings of stories drawn from stories260K with a seed, which
are independent draws indeed, and for which the truth can be estimated as closely as one likes.

Characters are predicted by tables of small whole numbers on top of what is known about English
before the data; each file of FITS is made, and the one with the smallest bound counts. PAID bits
are paid for that choice and for what was looked at before. stories260K itself, which has not seen
these stories, is bounded as a network from elsewhere; its files of 2 and 3 bits a weight show what
would be certified if it had been fitted to them. What is measured so far is kept in the work
folder. Writes benchmarks/results/certify_text.json.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tailor as tl
from benchmarks.certify import text_sources as sources
from benchmarks.certify.text_models import Counts, Fit
from benchmarks.compress.stories import loaded
from benchmarks.compress.tok512 import BYTES
from tailor.records import to_json
from tailor.stages.certify.text import (
    STAKES,
    BitsPerCharacter,
    Documents,
    Predictions,
    Sizes,
    predict,
)
from tailor.stages.compress import Adaptive, UniformStep, pack, quantize

RESULT = Path(__file__).parents[1] / "results" / "certify_text.json"
DELTA, PAID = 0.05, 12.0
CHARACTERS = BitsPerCharacter(vocabulary=len(sources.ALPHABET), start=sources.END_OF_LINE)
STORIES, FRESH, OTHERS = 20_000, 10_000, 3_000
FITS = {
    "speeches": [
        Fit(context=context, rank=rank, gain=0.5, price=5e-4, seed=seed)
        for context, rank in ((1, 3), (2, 4), (2, 6))
        for seed in (0, 1, 2)
    ],
    "lines": [
        Fit(context=2, rank=8, gain=0.5, price=1.3e-4, pressure=2.0),
        Fit(context=3, rank=8, gain=0.5, price=1.3e-4, pressure=2.0, steps=300, sweeps=4),
    ],
    "stories": [
        Fit(context=2, rank=8, gain=0.5, price=2e-4, pressure=2.0),
        Fit(context=3, rank=8, gain=0.5, price=2e-4, pressure=2.0, steps=300, sweeps=4),
        Fit(context=3, rank=6, gain=0.5, price=2.7e-4, steps=300, sweeps=4),
    ],
}


def made(
    fit: Fit, main: Documents, held_out: Documents, counts: Counts, done: dict[str, Any]
) -> None:
    """One file: its bound, and what documents say that it was not fitted to."""
    small = fit.run(counts)
    model = small.into(fit.build).double().eval()
    bits = 8 * len(small.stream) + PAID
    evidence = CHARACTERS.bound(model, main, bits=bits, delta=DELTA, stream=small.stream)
    alone = replace(CHARACTERS, alphas=(evidence.alpha,), independent=True)
    other = alone.bound(model, held_out, bits=0.0, delta=DELTA, stream=small.stream)
    raw = predict(model, held_out, vocabulary=CHARACTERS.vocabulary, start=CHARACTERS.start).losses(
        1e-12
    )
    print(fit, f"{evidence.risk_bound:.3f} {evidence.bits.empirical:.3f}", flush=True)
    done[str(fit)] = {
        "fit": asdict(fit),
        "evidence": to_json(evidence),
        "parts": {name: sum(told.values()) for name, told in small.code_length().items()},
        "held_out": to_json(other),
        "held_out_without_smoothing": float(raw.mean()),
    }


def characters(asked: argparse.Namespace, done: dict[str, Any], keep: Callable[[], None]) -> None:
    """Every file of every kind of document that is not there yet."""
    text = asked.data / "tinyshakespeare" / "input.txt"
    model, tokenizer = sources.language_model(asked.data / "stories260k", asked.work)
    drawn = [
        sources.characters(sources.kept_stories(model, count, seed, asked.work), tokenizer)
        for count, seed in ((STORIES, 1), (FRESH, 2))
    ]
    kinds = {
        "speeches": sources.parted(sources.speeches(text), 722),
        "lines": sources.parted(sources.lines(text), 3000),
        "stories": (drawn[0], drawn[1]),
    }
    for kind, (main, held_out) in kinds.items():
        found = done.setdefault(kind, {})
        known: dict[int, Counts] = {}
        for fit in FITS[kind][: 1 if asked.quick else None]:
            if str(fit) in found:
                continue
            if fit.context not in known:
                known[fit.context] = Counts.of(main, fit.context, CHARACTERS.vocabulary)
            made(fit, main, held_out, known[fit.context], found)
            keep()


def whole(asked: argparse.Namespace, done: dict[str, Any], keep: Callable[[], None]) -> None:
    """stories260K: as a network from elsewhere, and what its files would cost."""
    folder = asked.work / "stories260K"
    model, tokenizer = sources.language_model(asked.data / "stories260k", asked.work)
    tokens = sources.kept_stories(model, FRESH, 2, asked.work)[: 500 if asked.quick else OTHERS]
    documents = Documents(tokens=tuple(tokens))
    by_token = BitsPerCharacter(vocabulary=len(tokenizer.pieces), independent=True)
    counts = tuple(
        0 if i < BYTES else 1 if i < BYTES + 256 else len(piece)
        for i, piece in enumerate(tokenizer.pieces)
    )
    by_byte = replace(by_token, sizes=Sizes(counts=counts, unit="byte"))
    for name, quantizer in (
        ("float32", None),
        ("3 bits", UniformStep(bits=3)),
        ("2 bits", UniformStep(bits=2)),
    ):
        if name in done:
            continue
        network, bits = model, 32.0 * sum(one.numel() for one in model.parameters())
        if quantizer is not None:
            quantized = quantize(loaded(folder), quantizer)
            tied = {"lm_head.weight": "model.embed_tokens.weight"}  # which stands first
            coded = {tied.get(key, key): one for key, one in quantized.coded.items()}
            small = pack(quantized.model, coded, coder=Adaptive())
            network, bits = small.into(lambda: loaded(folder)), 8.0 * len(small.stream)
        done[name] = _elsewhere(network.double().eval(), documents, by_token, by_byte, bits)
        print(name, bits, done[name]["token"]["risk_bound"], flush=True)
        keep()


def _elsewhere(
    network: Any,
    documents: Documents,
    by_token: BitsPerCharacter,
    by_byte: BitsPerCharacter,
    bits: float,
) -> dict[str, Any]:
    drawn = by_byte.draw(documents, b"")
    bytes_ = predict(network, drawn, vocabulary=by_byte.vocabulary, sizes=by_byte.sizes)
    tokens = replace(bytes_, sizes=bytes_.counts)
    asked = {"n": len(documents), "delta": DELTA}
    paid = replace(by_token, independent=False).weigh(tokens, drawn, bits=bits, **asked)
    return {
        "token": to_json(by_token.weigh(tokens, drawn, bits=0.0, **asked)),
        "byte": to_json(by_byte.weigh(bytes_, drawn, bits=0.0, **asked)),
        "if fitted": to_json(paid),
        "documents for the uniform prediction": _needed(tokens, by_token, bits, paid.uniform),
        "documents for the unigram prediction": _needed(tokens, by_token, bits, paid.unigram),
    }


def _needed(found: Predictions, method: BitsPerCharacter, bits: float, mark: float) -> int | None:
    """How many documents with these losses a bound below the mark would need, to a hundredth."""
    best: float | None = None
    for alpha in method.alphas:
        low, high = method.limits(alpha)
        shares = np.clip((found.losses(alpha) - low) / (high - low), 0, 1)
        aim = (mark - low) / (high - low)
        if aim <= shares.mean():
            continue
        growth = max(np.log(1 + s * (aim - shares) / (1 - aim)).mean() for s in STAKES[:-1])
        needed = (bits + 20) * math.log(2) / growth
        best = needed if best is None else min(best, needed)
    return None if best is None else round(best)


# ---- what is shown ------------------------------------------------------------------------


def show() -> None:
    """The recorded tables."""
    told = json.loads(RESULT.read_text())
    print(
        "| documents | n | file, bits | weight of uniform | mean loss | **betting** | kl "
        "| Hoeffding | held out | best without context | uniform | wrong next character |\n"
        + "| --- " * 12
        + "|"
    )
    for kind, found in told["characters"].items():
        rows = sorted(found.values(), key=lambda row: row["evidence"]["risk_bound"])
        for row in rows[:1]:
            _row(kind, row)
    print("\n| stories260K | bits of the file | tokens, bound | bytes, bound | if fitted | n |")
    print("| --- " * 6 + "|")
    for name, row in told["stories260K"].items():
        bits, fitted = row["if fitted"]["code"], row["if fitted"]["risk_bound"]
        token, byte = row["token"], row["byte"]
        print(
            f"| {name} | {bits:,.0f} | {token['bits']['empirical']:.3f}, "
            f"{token['risk_bound']:.3f} | {byte['bits']['empirical']:.3f}, "
            f"{byte['risk_bound']:.3f} | {fitted:.2f} of {row['if fitted']['high']:.2f} "
            f"| {row['documents for the uniform prediction']} "
            f"({row['documents for the unigram prediction']}) |"
        )


def _row(kind: str, row: dict[str, Any]) -> None:
    it, other = row["evidence"], row["held_out"]
    bits = it["bits"]
    print(
        f"| {kind} | {it['n']:,} | {it['code']:,.0f} | {it['alpha']:g} | {bits['empirical']:.3f} "
        f"| **{bits['betting']:.3f}** | {bits['kl']:.3f} | {bits['hoeffding']:.3f} "
        f"| {other['bits']['empirical']:.3f}, at most {other['bits']['betting']:.3f} "
        f"| {it['unigram']:.3f} | {it['uniform']:.3f} "
        f"| {it['wrong']['empirical']:.3f}, at most {it['wrong']['betting']:.3f} "
        f"(held out {other['wrong']['empirical']:.3f}) |"
    )


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="for stories, and what is measured so far")
    parser.add_argument("--quick", action="store_true", help="one file each, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show and not (asked.data and asked.work):
        parser.error("--data and --work are needed")
    return asked


def main() -> None:
    """Fit, bound and record; or show."""
    asked = arguments()
    if asked.show:
        show()
        return
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    file = asked.work / "text.json"
    done = json.loads(file.read_text()) if file.exists() else {"characters": {}, "stories260K": {}}

    def keep() -> None:
        file.write_text(json.dumps(done, indent=1))

    whole(asked, done["stories260K"], keep)
    characters(asked, done["characters"], keep)
    if not asked.quick:
        about = asdict(tl.Provenance.now(0)) | {"delta": DELTA, "paid": PAID}
        RESULT.write_text(json.dumps({"about": about, **done}, indent=1) + "\n")
        show()


if __name__ == "__main__":
    main()
