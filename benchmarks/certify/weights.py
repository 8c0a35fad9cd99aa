"""How small does the Occam bound of a network's weights get? Frozen features, a sparse head.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.weights --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.weights --data FOLDER --only digits --seeds 5
    OMP_NUM_THREADS=1 python -m benchmarks.certify.weights --data FOLDER --quick
    python -m benchmarks.certify.weights --show

A deterministic network, a code that no data went into, delta = 0.05. The head's weights are -1, 0
and 1; ``tl.search`` finds them. What is outside the file is paid for: the features of the images
were chosen by looking at short searches on the samples themselves (about 60 for MNIST), so 12 bits
are paid, for 4,096 alternatives; ``FEATURES`` lists those of the same form, and there is room for
others that were tried. Settings of the search are not in the file and cost nothing. Held-out
errors with their two-sided Clopper-Pearson intervals (95 %) stand beside every bound. Writes
benchmarks/results/certify_weights.json, one sample at a time.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import tailor as tl
from benchmarks.certify.samples import SAMPLES
from tailor.numerics.bounds import clopper_pearson, occam
from tailor.numerics.coding import contextual_prior
from tailor.stages.compress import CompressedModel
from tailor.stages.compress.payload import Contextual
from tailor.stages.search import Climb, HeadJob, Job, Rounding, Smooth, search
from tailor.tasks import Data, Frozen, zero_one
from tailor.tasks.edges import OrientedEdges, Quadratic

RESULT = Path(__file__).parents[1] / "results" / "certify_weights.json"
DELTA = 0.05

EDGES = "oriented edges of pixels in cells: how the gradient of an image is distributed"
CONTRASTS = EDGES + ", without the mean over the directions of a cell"
UPRIGHT = (
    EDGES + ", less most of the mean over the directions of a cell, after shearing the image "
    "upright and stretching it to one width by its moments; how much is a bay or a hole"
)
PRODUCTS = "all products of two inputs"


def edges(part: OrientedEdges, statement: str) -> nn.Sequential:
    """A head on frozen oriented edges."""
    frozen = Frozen(part, statement=statement, domain=True)
    return nn.Sequential(frozen, nn.Linear(part.out_features, 10, bias=False))


def quadratic(classes: int) -> nn.Sequential:
    """A head on all products of the 16 inputs."""
    part = Quadratic(16)
    frozen = Frozen(part, statement=PRODUCTS)
    return nn.Sequential(frozen, nn.Linear(part.out_features, classes, bias=False))


# The alternatives that are paid for, and the one that was taken.
FEATURES: dict[str, list[str]] = {
    "digits": [
        f"{c}x{c}x{d}, {kind}, power {p}, concavities {a}"
        for c in (3, 4)
        for d in (4, 5, 6, 8)
        for kind in ("edges", "contrasts", "smoothed contrasts")
        for p in (0.25, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 1.0)
        for a in (0.0, 0.7, 1.0, 1.2)
    ],
    "mnist": [
        f"{c}x{c}x{d}, contrast {s}, width {w}, concavities {a}, power {p}"
        for c in (3, 4, 5, 6)
        for d in (4, 6, 8, 12)
        for s in (0.0, 0.8, 0.9, 1.0)
        for w in (0.0, 0.14, 0.16, 0.18)
        for a in (0.0, 0.7, 1.0, 1.2, 1.4)
        for p in (0.5, 0.65, 0.7)
    ],
    "letter": ["quadratic"],
    "pendigits": ["quadratic"],
}
PAID = {"digits": 4096, "mnist": 4096, "letter": 1, "pendigits": 1}
TAKEN = {
    "digits": "3x3x4, contrasts, power 0.7, concavities 0.0",
    "mnist": "4x4x6, contrast 0.9, width 0.18, concavities 1.2, power 0.65",
}
BUILD: dict[str, Callable[[], nn.Module]] = {
    "digits": lambda: edges(OrientedEdges(3, 4, power=0.7, contrast=1.0, constant=0.3), CONTRASTS),
    "mnist": lambda: edges(
        OrientedEdges(4, 6, deskew=True, width=0.18, power=0.65, contrast=0.9, concavities=1.2),
        UPRIGHT,
    ),
    "letter": lambda: quadratic(26),
    "pendigits": lambda: quadratic(10),
}


def job(
    scale: float, width: float, heat: float, zeros: float, every: int, climb: Climb, share: float
) -> Job:
    """One start of the search."""
    return HeadJob(
        name=f"scale {scale:g}, width {width:g}, temperature {heat:g}, zeros {zeros:g}",
        rounding=Rounding(
            smooth=Smooth(scale=scale, width=width, temperature=heat),
            zeros=zeros,
            every=every,
            jitter=0.3,
        ),
        climb=climb,
        attempts=4,
        share=share,
    )


QUICK, DEEP = Climb(sweeps=4, pairs=2), Climb(sweeps=6, pairs=16)
JOBS: dict[str, list[Job]] = {
    "digits": [
        job(s, w, t, z, 6, DEEP, 0.5)
        for s, w, t, z in (
            (12, 0.5, 1.6, 0.85),
            (12, 0.5, 2.0, 0.88),
            (20, 0.6, 1.3, 0.8),
            (10, 0.6, 2.0, 0.8),
        )
    ],
    "mnist": [job(24, 0.53, heat, 0.88, 10, QUICK, 0.15) for heat in (0.9, 1.2, 1.6)],
    "letter": [job(24, 0.6, 1.0, 0.85, 10, QUICK, 0.15)],
    "pendigits": [job(s, 0.6, 1.0, 0.85, 10, QUICK, 0.15) for s in (16, 24)],
}
ROUNDS = {"digits": 150, "mnist": 30, "letter": 6, "pendigits": 20}


def run(sample: str, train: Data, held_out: Data, seed: int, seconds: float) -> dict[str, object]:
    """One search, and its file counted again from the beginning."""
    start = time.process_time()
    build, paid = BUILD[sample], math.log2(PAID[sample])
    last = None
    for step in search(
        build,
        train,
        jobs=JOBS[sample],
        delta=DELTA,
        choices=PAID[sample],
        coder=Contextual(),
        seed=seed,
        rounds=ROUNDS[sample],
        patience=40 if sample == "digits" else 10,
        seconds=seconds,
    ):
        last = step
        spent = time.process_time() - start
        print(
            sample,
            seed,
            step.job,
            step.errors,
            step.bits,
            f"{step.bound:.4f} {spent:.0f} s",
            flush=True,
        )
    assert last is not None
    return {"seed": seed, "seconds": time.process_time() - start} | counted(
        last.best, build, train, held_out, paid
    )


def counted(
    file: CompressedModel,
    build: Callable[[], nn.Module],
    train: Data,
    held_out: Data,
    paid: float,
) -> dict[str, object]:
    """All figures of a file."""
    model = file.into(build)
    errors = int(zero_one(model, train).sum())
    missed = int(zero_one(model, held_out).sum())
    (grid,) = file.grids().values()
    bits = 8 * len(file.stream)
    prior = contextual_prior([grid])  # what Occam(pays="prior") charges; never more than the stream
    return {
        "bound": occam(errors, len(train), prior + paid, DELTA).binomial,
        "bound_of_whole_bytes": occam(errors, len(train), bits + paid, DELTA).binomial,
        "bits": prior + paid,
        "stream_bits": bits,
        "paid_bits": paid,
        "adaptive_bits_by_part": file.code_length(),
        "adaptive_ideal_bits": sum(sum(p.values()) for p in file.code_length().values()),
        "adaptive_bytes": len(file.recoded(tl.Adaptive()).stream),
        "nonzeros": int((grid.levels != 0).sum()),
        "shape": list(grid.levels.shape),
        "train_errors": errors,
        "n": len(train),
        "train_error": errors / len(train),
        "held_out_errors": missed,
        "held_out_n": len(held_out),
        "held_out_error": missed / len(held_out),
        "held_out_interval": clopper_pearson(missed, len(held_out), DELTA),
        "levels": grid.levels.reshape(-1).tolist(),
    }


def study(sample: str, folder: Path, seeds: int, seconds: float, record: bool) -> None:
    """Some seeds of one sample; each is written down when it is done."""
    train, held_out = SAMPLES[sample](folder)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {"samples": {}}
    runs: list[dict[str, object]] = []
    for seed in range(seeds):
        runs.append(run(sample, train, held_out, seed, seconds))
        if record:
            known = json.loads(RESULT.read_text()) if RESULT.exists() else {"samples": {}}
            known["about"] = asdict(tl.Provenance.now(0))
            known["samples"][sample] = {
                "delta": DELTA,
                "features": TAKEN.get(sample, "quadratic"),
                "alternatives": FEATURES[sample],
                "alternatives_paid": PAID[sample],
                "statement": [p.statement for p in BUILD[sample]().modules() if is_frozen(p)],
                "domain_prior": any(p.domain for p in BUILD[sample]().modules() if is_frozen(p)),
                "jobs": [repr(one) for one in JOBS[sample]],
                "rounds": ROUNDS[sample],
                "runs": runs,
            }
            RESULT.write_text(json.dumps(known, indent=1) + "\n")


def is_frozen(part: nn.Module) -> bool:
    """Is it a declared constant part?"""
    return isinstance(part, Frozen)


def show() -> None:
    """The recorded table."""
    print(
        "| sample | n | prior knowledge | seeds | bits paid | non-zeros | training error "
        "| bound, median (range) | held-out error (95 % interval) |\n" + "| --- " * 9 + "|"
    )
    for name, sample in json.loads(RESULT.read_text())["samples"].items():
        runs = sorted(sample["runs"], key=lambda one: one["bound"])
        middle = runs[(len(runs) - 1) // 2]
        low, high = middle["held_out_interval"]
        print(
            f"| {name} | {middle['n']:,} | {'about images' if sample['domain_prior'] else 'none'} "
            f"| {len(runs)} | {middle['bits']:.0f} | {middle['nonzeros']} "
            f"| {100 * middle['train_error']:.2f} % "
            f"| {statistics.median_low([r['bound'] for r in runs]):.4f} "
            f"({runs[0]['bound']:.4f} - {runs[-1]['bound']:.4f}) "
            f"| {100 * middle['held_out_error']:.2f} % "
            f"({100 * low:.2f} - {100 * high:.2f}) |"
        )


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with mnist/, letter/ and pendigits/")
    parser.add_argument("--only", choices=sorted(SAMPLES), help="one sample")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=900.0, help="of one search, at most")
    parser.add_argument("--quick", action="store_true", help="digits, one seed, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.show:
        show()
        return
    if asked.data is None and not asked.quick:
        parser.error("--data says where the samples are")
    names = ["digits"] if asked.quick else [asked.only] if asked.only else list(SAMPLES)
    for name in names:
        seeds = 1 if asked.quick else asked.seeds
        study(name, asked.data or Path(), seeds, asked.seconds, record=not asked.quick)


if __name__ == "__main__":
    main()
