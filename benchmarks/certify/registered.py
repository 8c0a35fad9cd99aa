"""Certificates whose terms were written down before the fit: register, search, certify, verify.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --data FOLDER --only digits
    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --quick
    python -m benchmarks.certify.registered --show

The tasks and the numbers of alternatives are those of ``benchmarks.certify.weights``, ``gibbs`` and
``picks``; here the registration is made and its seal printed before anything is fitted, and the
certificate is counted again by the verifier. Writes benchmarks/results/certify_registered.json.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tailor as tl
from benchmarks.certify import gibbs
from benchmarks.certify.picks import STUDIES
from benchmarks.certify.samples import SAMPLES
from benchmarks.certify.weights import BUILD, JOBS, PAID
from tailor.records import to_json
from tailor.stages.certify.method import Method
from tailor.tasks import Data

RESULT = Path(__file__).parents[1] / "results" / "certify_registered.json"
SEED, LARGEST = 0, 100_000  # bytes of a file that is recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is registered, and how the file is made after that.

    Attributes:
        sample: Name of the data.
        build: Makes the network.
        method: The kind of certificate.
        alternatives: That had been looked at on this sample before.
        make: Makes the file from the examples and the number of choices that are paid for.
    """

    sample: str
    build: Callable[[], nn.Module]
    method: Method
    alternatives: int
    make: Callable[[Data, int], tl.CompressedModel]


def head(sample: str, seconds: float) -> Plan:
    """Weights by their bits."""

    def make(train: Data, choices: int) -> tl.CompressedModel:
        steps = tl.search(
            BUILD[sample],
            train,
            jobs=JOBS[sample],
            choices=choices,
            coder=tl.Contextual(),
            seed=SEED,
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


def picked(name: str) -> Plan:
    """A network that few examples determine."""
    study = STUDIES[name]
    method = tl.PickToLearn(learner=study.learner, rounds=study.rounds)
    return Plan(
        sample=study.sample,
        build=study.build,
        method=method,
        alternatives=study.alternatives,
        make=lambda train, choices: method.run(train, build=study.build).best().small,
    )


PLANS: dict[str, Callable[[], Plan]] = {
    "digits": lambda: head("digits", 300.0),
    "digits, a law": lambda: law("digits"),
    "digits, picks": lambda: picked("digits, views"),
    "mnist": lambda: head("mnist", 300.0),
    "mnist, a law": lambda: law("mnist"),
}


def run(name: str, plan: Plan, folder: Path | None) -> dict[str, object]:
    """One certificate from the registration to the recount."""
    train, held_out = SAMPLES[plan.sample](folder)  # type: ignore[operator]
    task = tl.Task(name=plan.sample, build=plan.build, train=lambda: train, test=lambda: held_out)
    registration = tl.register(task, plan.method, earlier=plan.alternatives, seed=SEED)
    print(f"{name}: registered {registration.sha256} at {registration.created}", flush=True)
    start = time.perf_counter()
    small = plan.make(train, registration.choices)
    seconds = time.perf_counter() - start
    certificate = tl.certify(
        small,
        build=plan.build,
        data=train,
        held_out=held_out,
        registration=registration,
        task=plan.sample,
        method=plan.method,
        seed=SEED,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = tl.verify(
        certificate, small, build=plan.build, data=train, held_out=held_out, method=plan.method
    )
    print(f"{name}: {certificate.claim}", flush=True)
    return {
        "name": name,
        "sample": plan.sample,
        "holds": outcome.holds,
        "verify_seconds": time.perf_counter() - wall,
        "verify_cpu_seconds": time.process_time() - cpu,
        "search_seconds": seconds,
        "file": small.payload.hex() if len(small.payload) <= LARGEST else None,
        "certificate": to_json(certificate),
    }


def show() -> None:
    """The recorded table."""
    print(
        "| certificate | registered | n | errors | it rests on | paid for choices | certified "
        "| held out certifies | recount holds | recount takes |\n" + "| --- " * 10 + "|"
    )
    for row in json.loads(RESULT.read_text())["rows"]:
        said = row["certificate"]
        print(
            f"| {row['name']} | {said['registration']['created']} | {said['n']:,} "
            f"| {said['errors']} | {grounds(said['evidence'])} "
            f"| {math.log2(said['choices']):.0f} bits | **{said['risk_bound']:.4f}** "
            f"| {said['held_out']['upper']:.4f} "
            f"| {'yes' if row['holds'] else 'no'} | {row['verify_seconds']:.1f} s |"
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
    parser.add_argument("--quick", action="store_true", help="digits, a second, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.show:
        show()
        return
    if asked.quick:
        run("digits", head("digits", 1.0), None)
        return
    if asked.data is None:
        parser.error("--data says where the samples are")
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = {row["name"]: row for row in old if row.get("name") in PLANS}
    for name in asked.only:
        rows[name] = run(name, PLANS[name](), asked.data)
        kept = [rows[one] for one in PLANS if one in rows]
        record = {"about": asdict(tl.Provenance.now(SEED)), "rows": kept}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
