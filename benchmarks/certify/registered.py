"""Certificates whose terms were written down before the fit: register, search, certify, verify.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.registered --quick
    python -m benchmarks.certify.registered --show

The tasks and the numbers of alternatives are those of ``benchmarks.certify.weights``; here the
registration is made and its seal printed before anything is fitted, and the certificate is counted
again by the verifier. Writes benchmarks/results/certify_registered.json.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

import tailor as tl
from benchmarks.certify.samples import SAMPLES
from benchmarks.certify.weights import BUILD, JOBS, PAID
from tailor.records import to_json

RESULT = Path(__file__).parents[1] / "results" / "certify_registered.json"
SECONDS = {"digits": 60.0, "mnist": 200.0}
METHOD = tl.Occam(pays="prior")


def run(sample: str, folder: Path | None, seconds: float, seed: int = 0) -> dict[str, object]:
    """One certificate from the registration to the recount."""
    train, held_out = SAMPLES[sample](folder)  # type: ignore[operator]
    build = BUILD[sample]
    task = tl.Task(name=sample, build=build, train=lambda: train, test=lambda: held_out)
    registration = tl.register(task, METHOD, earlier=PAID[sample], seed=seed)
    print(f"{sample}: registered {registration.sha256} at {registration.created}", flush=True)
    steps = tl.search(
        build,
        train,
        jobs=JOBS[sample],
        choices=registration.choices,
        coder=tl.Contextual(),
        seed=seed,
        rounds=1000,
        patience=1000,
        seconds=seconds,
    )
    *_, last = steps
    small = last.best.recoded(tl.Contextual())
    certificate = tl.certify(
        small,
        build=build,
        data=train,
        held_out=held_out,
        registration=registration,
        task=sample,
        method=METHOD,
        seed=seed,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = tl.verify(certificate, small, build=build, data=train, held_out=held_out)
    print(f"{sample}: {certificate.claim}", flush=True)
    return {
        "sample": sample,
        "holds": outcome.holds,
        "verify_seconds": time.perf_counter() - wall,
        "verify_cpu_seconds": time.process_time() - cpu,
        "search_seconds": seconds,
        "file": small.payload.hex(),
        "certificate": to_json(certificate),
    }


def show() -> None:
    """The recorded table."""
    print(
        "| sample | registered | n | errors | bits charged, paid | certified | held out certifies "
        "| recount holds | recount takes |\n" + "| --- " * 9 + "|"
    )
    for row in json.loads(RESULT.read_text())["rows"]:
        said = row["certificate"]
        code = said["evidence"]["code"]
        print(
            f"| {row['sample']} | {said['registration']['created']} | {said['n']:,} "
            f"| {said['errors']} | {code['charged']:.1f}, {code['choices']:.0f} "
            f"| **{said['risk_bound']:.4f}** | {said['held_out']['upper']:.4f} "
            f"| {'yes' if row['holds'] else 'no'} | {row['verify_seconds']:.1f} s |"
        )


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with mnist/")
    parser.add_argument("--quick", action="store_true", help="digits, a second, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.show:
        show()
        return
    if asked.quick:
        run("digits", None, 1.0)
        return
    if asked.data is None:
        parser.error("--data says where the samples are")
    rows = [run(sample, asked.data, seconds) for sample, seconds in SECONDS.items()]
    record = {"about": asdict(tl.Provenance.now(0)), "rows": rows}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
