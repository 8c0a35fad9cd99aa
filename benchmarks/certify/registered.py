"""Certificates whose terms were written down before the fit: register, search, certify, verify.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --data FOLDER --only digits
    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --quick
    python -m benchmarks.certify.registered --show

The tasks and the numbers of alternatives are those of ``benchmarks.certify.weights``, ``learned``,
``gibbs`` and ``picks``; here the registration is made and its seal printed before anything is
fitted, and the certificate is counted again by the verifier. Where a prior is learnt on a part of
the sample, that is done before the registration, which names it by its hash, and the other part is
not touched until then. The seed of a learner of picks belongs to its rule, so these are five that
no earlier run had; elsewhere a seed only finds the file. Writes
benchmarks/results/certify_registered.json.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tailor as tl
from benchmarks.certify import gibbs, learned
from benchmarks.certify.picks import STUDIES, learner_of
from benchmarks.certify.samples import SAMPLES
from benchmarks.certify.weights import BUILD, JOBS, PAID
from tailor.records import to_json
from tailor.stages.certify.method import Method
from tailor.tasks import Data

RESULT = Path(__file__).parents[1] / "results" / "certify_registered.json"
SEEDS = (0, 1, 2, 3, 4)
FRESH = (5, 6, 7, 8, 9)  # of the learners of picks, for which 0 to 4 had been run before
LATER = (10, 11, 12, 13, 14)  # where 5 and 6 had been run as well
LARGEST = 100_000  # bytes of a file that is recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is registered, and how the file is made after that.

    Attributes:
        sample: Name of the data.
        build: Makes the network.
        method: The kind of certificate.
        alternatives: That had been looked at on this sample before.
        make: Makes the file from the examples that the bound counts and the number of choices
            that are paid for.
        split: How the sample is cut, if a prior was made with a part of it.
    """

    sample: str
    build: Callable[[], nn.Module]
    method: Method
    alternatives: int
    make: Callable[[Data, int], tl.CompressedModel]
    split: tl.Split | None = None


def head(sample: str, seconds: float, seed: int) -> Plan:
    """Weights by their bits."""

    def make(train: Data, choices: int) -> tl.CompressedModel:
        steps = tl.search(
            BUILD[sample],
            train,
            jobs=JOBS[sample],
            choices=choices,
            coder=tl.Contextual(),
            seed=seed,
            rounds=1000,
            patience=60,
            seconds=seconds,
        )
        *_, last = steps
        return last.best.recoded(tl.Contextual())

    return Plan(
        sample=sample,
        build=BUILD[sample],
        method=tl.Occam(pays="prior"),
        alternatives=PAID[sample],
        make=make,
    )


def law(name: str) -> Plan:
    """A law of networks."""
    setting = gibbs.SETTINGS[name]
    return Plan(
        sample=setting.sample,
        build=partial(gibbs.build, setting),
        method=tl.PACBayes(repeats=setting.repeats),
        alternatives=setting.choices,
        make=lambda train, choices: tl.pack(gibbs.fitted(setting, train)),
    )


def layers(sample: str, seed: int) -> Plan:
    """Weights by their bits, every layer learned."""

    def make(train: Data, choices: int) -> tl.CompressedModel:
        assert choices == learned.CHOICES[sample]
        file = learned.found(sample, train, learned.SETTINGS[sample], seed)
        return file.recoded(tl.Contextual())

    return Plan(
        sample=sample,
        build=learned.BUILD[sample],
        method=tl.Occam(pays="prior"),
        alternatives=learned.CHOICES[sample],
        make=make,
    )


def picked(name: str, folder: Path | None, seed: int) -> Plan:
    """A network that few examples determine."""
    study = STUDIES[name]
    sample, _ = SAMPLES[study.sample](folder)  # type: ignore[operator]
    learner = learner_of(name, sample, folder, seed, work=None)
    method = tl.PickToLearn(learner=learner, rounds=replace(study.rounds, seed=seed))
    return Plan(
        sample=study.sample,
        build=study.build,
        method=method,
        alternatives=study.alternatives,
        make=lambda counted, choices: method.run(counted, build=study.build).best().small,
        split=study.split,
    )


PLANS: dict[str, tuple[tuple[int, ...], Callable[[Path | None, int], Plan]]] = {
    "digits": (SEEDS, lambda folder, seed: head("digits", 300.0, seed)),
    "digits, a law": ((0,), lambda folder, seed: law("digits")),
    "digits, picks": (FRESH, partial(picked, "digits, views")),
    "digits, split and picks": (FRESH, partial(picked, "digits, split")),
    "mnist": (SEEDS, lambda folder, seed: head("mnist", 300.0, seed)),
    "mnist, learned": (SEEDS, lambda folder, seed: layers("mnist", seed)),
    "mnist, a law": ((0,), lambda folder, seed: law("mnist")),
    "mnist, picks, near views": ((5, 6), partial(picked, "mnist, transfer")),
    "mnist, picks": (LATER, partial(picked, "mnist, transfer, far views")),
    "mnist, split and picks": (FRESH, partial(picked, "mnist, split, wide")),
}


def run(name: str, plan: Plan, folder: Path | None, seed: int) -> dict[str, object]:
    """One certificate from the registration to the recount."""
    train, held_out = SAMPLES[plan.sample](folder)  # type: ignore[operator]
    task = tl.Task(name=plan.sample, build=plan.build, train=lambda: train, test=lambda: held_out)
    registration = tl.register(
        task, plan.method, earlier=plan.alternatives, split=plan.split, seed=seed
    )
    print(f"{name}: registered {registration.sha256} at {registration.created}", flush=True)
    start = time.perf_counter()
    counted = train if plan.split is None else plan.split.parts(train)[1]
    small = plan.make(counted, registration.choices)
    seconds = time.perf_counter() - start
    certificate = tl.certify(
        small,
        build=plan.build,
        data=train,
        held_out=held_out,
        registration=registration,
        task=plan.sample,
        method=plan.method,
        seed=seed,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = tl.verify(
        certificate, small, build=plan.build, data=train, held_out=held_out, method=plan.method
    )
    print(f"{name}: {certificate.claim}", flush=True)
    return {
        "name": name,
        "seed": seed,
        "sample": plan.sample,
        "holds": outcome.holds,
        "verify_seconds": time.perf_counter() - wall,
        "verify_cpu_seconds": time.process_time() - cpu,
        "search_seconds": seconds,
        "file": small.payload.hex() if len(small.payload) <= LARGEST else None,
        "certificate": to_json(certificate),
    }


def record(row: dict[str, object]) -> None:
    """Add one certificate to the record, or replace it."""
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = {(one["name"], one["seed"]): one for one in [*old, row]}
    order = [*PLANS]
    kept = sorted(rows.values(), key=lambda one: (order.index(one["name"]), one["seed"]))
    about = asdict(tl.Provenance.now(None))
    RESULT.write_text(json.dumps({"about": about, "rows": kept}, indent=1) + "\n")


def show() -> None:
    """The recorded table: of several seeds the median and the range, the rest from the median."""
    print(
        "| certificate | seeds | registered | n | errors | it rests on | paid for choices "
        "| certified, median (range) | held out certifies | recounts hold | a recount takes |\n"
        + "| --- " * 11
        + "|"
    )
    rows = json.loads(RESULT.read_text())["rows"]
    for name in (one for one in PLANS if any(row["name"] == one for row in rows)):
        runs = [row for row in rows if row["name"] == name]
        runs.sort(key=lambda row: row["certificate"]["risk_bound"])
        mid = runs[(len(runs) - 1) // 2]
        said = mid["certificate"]
        low, high = (runs[at]["certificate"]["risk_bound"] for at in (0, -1))
        print(
            f"| {name} | {len(runs)} | {said['registration']['created']} | {said['n']:,} "
            f"| {said['errors']} | {grounds(said['evidence'])} "
            f"| {math.log2(said['choices']):.0f} bits | **{said['risk_bound']:.4f}** "
            f"({low:.4f} - {high:.4f}) | {said['held_out']['upper']:.4f} "
            f"| {sum(row['holds'] for row in runs)} of {len(runs)} "
            f"| {mid['verify_seconds']:.1f} s |"
        )


def grounds(evidence: dict[str, Any]) -> str:
    """What a bound was computed from, in brief."""
    if "code" in evidence:
        return f"{evidence['code']['charged']:.1f} bits"
    if "divergence" in evidence:
        return f"{evidence['divergence']:.1f} nats"
    return f"{evidence['k']} examples"


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with mnist/")
    parser.add_argument("--only", nargs="*", choices=PLANS, default=[*PLANS])
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of the plan's own")
    parser.add_argument("--quick", action="store_true", help="digits, a second, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.show:
        show()
        return
    if asked.quick:
        run("digits", head("digits", 1.0, seed=0), None, 0)
        return
    if asked.data is None:
        parser.error("--data says where the samples are")
    for name in asked.only:
        seeds, plan = PLANS[name]
        for seed in asked.seeds or seeds:
            record(run(name, plan(asked.data, seed), asked.data, seed))


if __name__ == "__main__":
    main()
