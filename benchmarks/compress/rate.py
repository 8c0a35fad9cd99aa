"""Bits a weight at a given error: measured, predicted from two numbers a layer, and of laws.

    python -m benchmarks.compress.rate resnet20-12fca82f.th
    python -m benchmarks.compress.rate --show

The checkpoint is ResNet-20 for CIFAR-10 of the public repository akamaster/pytorch_resnet_cifar10
(folder pretrained_models). Every matrix is quantised on its own so that its relative squared
error is at most the tolerance; everything else (biases, batch normalisation) is stored without
loss. The file is the packed stream of the whole state dict, its tables included. Rates of laws are
integrals; where the variance is infinite they are medians over samples of 400,000 weights, with
the least and the most. Nothing is retrained, and no accuracy is measured here. Writes
benchmarks/results/rate.json.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

import tailor as tl
from tailor.numerics.coding import Coded, Raw, Spec, encode_packed
from tailor.numerics.rate import (
    Gaussian,
    Laplace,
    Law,
    Predicted,
    Student,
    gaussian_limit,
    kept,
    rate,
    sampled_rate,
    shannon_lower_bound,
)
from tailor.stages.compress.quantize import (
    KMeans,
    Quantizer,
    Shortest,
    Uniform,
    UniformStep,
    quantize_layer,
)

RESULT = Path(__file__).parents[1] / "results" / "rate.json"
TOLERANCES, BITS, ERRORS = (
    (0.001, 0.003, 0.01, 0.03, 0.1),
    (2, 3, 4, 6, 8),
    (0.001, 0.01, 0.05, 0.1),
)
DRAWS = 400_000

LAWS: dict[str, Law] = {
    "Gaussian": Gaussian(),
    "Laplace": Laplace(),
    **{f"Student, index {index:g}": Student(index=index) for index in (5.0, 3.0, 2.5, 2.0, 1.5)},
}


def measure(source: str | Path, quantizer: Quantizer) -> dict[str, object]:
    """Quantise and pack a whole checkpoint.

    Returns:
        Bits a weight of the matrices (order-0 entropy, predicted), bytes of the file and its
        ratio to the plain numbers, seconds of the processor, and one row for each matrix.
    """
    weights = tl.read(source)
    before = time.process_time()
    found = [quantize_layer(layer, quantizer) for layer in weights.layers]
    quantising = time.process_time() - before
    items: list[tuple[Coded, Spec]] = [
        (coded, Spec(shape=said.shape, dtype=said.dtype)) for coded, said in found
    ]
    items += [_raw(other.load()) for other in weights.others]
    before = time.process_time()
    packed = sum(map(len, encode_packed(items)))
    packing = time.process_time() - before
    plain = sum(_bytes(one.load()) for one in (*weights.layers, *weights.others))
    rows = [
        {
            "name": said.name,
            "weights": _size(said.shape),
            "error": said.error,
            "levels": said.levels,
            "table": said.step is None,
            "bits": said.bits,
            "predicted": said.predicted.bits if isinstance(said.predicted, Predicted) else None,
            "tail_index": getattr(said.predicted, "tail_index", None),
        }
        for _, said in found
    ]
    total = sum(row["weights"] for row in rows)
    return {
        "quantizer": str(quantizer),
        "bits": sum(row["weights"] * row["bits"] for row in rows) / total,
        "predicted": _mean(rows, "predicted"),
        "error": max(row["error"] for row in rows),
        "tables": sum(row["table"] for row in rows),
        "weights": total,
        "plain_bytes": plain,
        "packed_bytes": packed,
        "ratio": plain / packed,
        "cpu_seconds": {"quantising": quantising, "packing": packing},
        "layers": rows,
    }


def _whole(source: Path, quantizer: Quantizer) -> dict[str, object]:
    """What ``measure`` says of the checkpoint, without its matrices one by one."""
    return {name: value for name, value in measure(source, quantizer).items() if name != "layers"}


def of_laws() -> dict[str, object]:
    """Bits and shares kept at several errors for the laws, and how close the theory is."""
    table: dict[str, object] = {}
    for name, law in LAWS.items():
        if law.variance() < float("inf"):
            table[name] = {
                "bits": [rate(law, error) for error in ERRORS],
                "bound": [shannon_lower_bound(law, error) for error in ERRORS],
                "kept": [kept(law, error) for error in ERRORS],
            }
        else:
            drawn = [sampled_rate(law, error, n=DRAWS, samples=9) for error in ERRORS]
            table[name] = {
                "bits": [one.bits for one in drawn],
                "range": [[one.low, one.high] for one in drawn],
                "kept": [one.kept for one in drawn],
            }
    return table


def _raw(tensor: Tensor) -> tuple[Raw, Spec]:
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Raw(data=flat.numpy().tobytes()), Spec(shape=tuple(tensor.shape), dtype=dtype)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _mean(rows: list[dict[str, object]], what: str) -> float | None:
    known = [row for row in rows if row[what] is not None]
    total = sum(row["weights"] for row in known)
    return sum(row["weights"] * row[what] for row in known) / total if known else None


def show() -> None:
    """The recorded tables."""
    record = json.loads(RESULT.read_text())
    print("\n| relative squared error | quantizer | bits | predicted | file, bytes | ratio |")
    print("| --- " * 6 + "|")
    for name, runs in record["tolerances"].items():
        for tolerance, one in runs.items():
            print(
                f"| {float(tolerance):g} | {name} | {one['bits']:.3f} | {one['predicted']:.3f} "
                f"| {one['packed_bytes']:,} | {one['ratio']:.2f} |"
            )
    print("\n| bits given | quantizer | largest error | bits | file, bytes | ratio |")
    print("| --- " * 6 + "|")
    for name, runs in record["bits"].items():
        for bits, one in runs.items():
            print(
                f"| {bits} | {name} | {one['error']:.4f} | {one['bits']:.3f} "
                f"| {one['packed_bytes']:,} | {one['ratio']:.2f} |"
            )
    print("\n| matrix at error 0.01 | weights | tail index | predicted | measured |")
    print("| --- " * 5 + "|")
    for row in record["layers"]:
        index = "Gaussian" if row["tail_index"] is None else f"{row['tail_index']:.1f}"
        print(
            f"| {row['name']} | {row['weights']:,} | {index} | {row['predicted']:.2f} "
            f"| {row['bits']:.2f} |"
        )
    _show_laws(record["laws"])


def _show_laws(laws: dict[str, dict[str, list[float]]]) -> None:
    heads = " | ".join(f"{100 * error:g} %" for error in ERRORS)
    print(f"\n| law | {heads} | weights kept by pruning alone at 1, 5, 10 % |")
    print("| --- " * (len(ERRORS) + 2) + "|")
    for name, one in laws.items():
        spread = one.get("range", [None] * len(ERRORS))
        cells = [
            f"{bits:.2f}" if ends is None else f"{bits:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"
            for bits, ends in zip(one["bits"], spread, strict=True)
        ]
        shares = ", ".join(f"{share:.3f}" for share in one["kept"][1:])
        print(f"| {name} | {' | '.join(cells)} | {shares} |")
    limits = " | ".join(f"{gaussian_limit(error):.2f}" for error in ERRORS)
    print(f"| limit of the Gaussian law | {limits} | |")


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", help="resnet20-12fca82f.th")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        if chosen.checkpoint is None:
            parser.error("give the checkpoint, or --show")
        torch.set_num_threads(1)
        path = Path(chosen.checkpoint)
        record = {
            "about": asdict(tl.Provenance.now(0, checkpoint=path.name)),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "tolerances": {
                make.__name__: {str(one): _whole(path, make(tolerance=one)) for one in TOLERANCES}
                for make in (UniformStep, KMeans, Shortest)
            },
            "bits": {
                "Uniform": {str(b): _whole(path, Uniform(top=2 ** (b - 1) - 1)) for b in BITS},
                **{
                    make.__name__: {str(b): _whole(path, make(bits=b)) for b in BITS}
                    for make in (UniformStep, KMeans, Shortest)
                },
            },
            "layers": measure(path, Shortest(tolerance=0.01))["layers"],
            "laws": of_laws(),
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
