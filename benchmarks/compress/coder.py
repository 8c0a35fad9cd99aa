"""How long the packed stream is beside the entropy of its symbols, and how fast both ways.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.coder [--checkpoint FILE]
    python -m benchmarks.compress.coder --show

Cases of drawn weights on uniform grids: 1.2 million at about 3 bits; as many with nine in ten
pruned; the 22 matrices of a ResNet-20 for CIFAR-10 with 16 to 32 levels each, Gaussian and
Laplace; a matrix whose rows have Pareto(1.5) scales, pruned to one in ten; Student t1.5 weights
with far outliers; and float32 and bfloat16 weights as they are. With ``--checkpoint`` also the
matrices of that file with steps of 0.35 standard deviations.

The limit is the order-0 entropy of every tensor's symbols (with the stored bits of floats); the
goal for the grids is 0.3 % and 64 bytes above it, tables and everything included, and 10 MB of
float32 weights a second each way, for 250,000 weights or more. The length by constriction is
that of its ANS coder with one exact table for each tensor, tables not counted. Times are CPU
seconds of one thread, medians over rounds in which all cases take turns. Writes
benchmarks/results/coder.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

import tailor as tl
from tailor.numerics.coding import (
    Coded,
    Grid,
    Raw,
    Spec,
    decode_packed,
    encode_packed,
    order0_bits,
    report,
)

RESULT = Path(__file__).parents[1] / "results" / "coder.json"
STAGES = [(16, 27), *[(16, 144)] * 6, (32, 144), *[(32, 288)] * 5, (64, 288), *[(64, 576)] * 5]
RESNET20 = [*STAGES, (32, 16), (64, 32), (10, 64)]  # with the shortcuts and the classifier
ALLOWED, SPARE, SPEED, LARGE = 0.003, 64, 10.0, 250_000

Item = tuple[Coded, Spec]


def grid(weights: np.ndarray, step: float) -> Item:
    """Weights on a grid of that step."""
    levels = np.rint(np.clip(weights / step, -1e6, 1e6)).astype(np.int32)
    return Grid(levels=levels), Spec(shape=levels.shape, dtype="float32")


def pruned(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """The largest weights; zeros else."""
    return weights * (np.abs(weights) > np.quantile(np.abs(weights), sparsity))


def cases(scale: float = 1.0, seed: int = 0) -> dict[str, list[Item]]:
    """The drawn cases; ``scale`` shrinks their sides."""
    rng = np.random.default_rng(seed)
    sides = round(1200 * scale), round(1000 * scale)
    normal = rng.standard_normal(sides)
    found = {
        "Gaussian, 3 bits": [grid(normal, 0.5)],
        "Gaussian, 90 % zeros": [grid(pruned(normal, 0.9), 0.25)],
    }
    shapes = [(max(2, round(r * scale)), max(2, round(c * scale))) for r, c in RESNET20]
    for law in ("standard_normal", "laplace"):
        tensors = []
        for shape in shapes:
            weights = getattr(rng, law)(size=shape)
            weights /= weights.std()
            tensors.append(grid(weights.clip(-4.5, 4.5), rng.uniform(0.29, 0.55)))
        found[f"22 matrices, {'Gaussian' if law != 'laplace' else 'Laplace'}"] = tensors
    rows = rng.pareto(1.5, (round(1024 * scale), 1)) + 1
    elliptic = pruned(rows * rng.standard_normal((len(rows), len(rows))), 0.9)
    least = np.abs(elliptic[elliptic != 0]).min()
    found["Pareto(1.5) rows, 90 % zeros"] = [grid(elliptic, 2 * least)]
    found["Student t1.5"] = [grid(rng.standard_t(1.5, sides), 0.3)]
    stored = (0.02 * normal).astype("<f4")
    found["float32 as it is"] = [raw(stored, "float32")]
    found["float32 as it is, 90 % zeros"] = [raw(pruned(stored, 0.9).astype("<f4"), "float32")]
    halves = (stored.view("<u4") >> 16).astype("<u2")
    found["bfloat16 as it is"] = [raw(halves, "bfloat16")]
    return found


def raw(values: np.ndarray, dtype: str) -> Item:
    """A tensor byte by byte."""
    return Raw(data=values.tobytes()), Spec(shape=values.shape, dtype=dtype)


def checkpoint(path: str) -> list[Item]:
    """The matrices of a file on grids of 0.35 standard deviations."""
    matrices = [layer.load() for layer in tl.read(path).layers]
    return [grid(m.flatten(1).double().numpy(), 0.35 * float(m.double().std())) for m in matrices]


def limit_bits(items: Sequence[Item]) -> float:
    """Order-0 entropy of every tensor's symbols, with what is stored."""
    return sum(
        order0_bits(tensor.levels)
        if isinstance(tensor, Grid)
        else report(tensor, spec).entropy_bits
        for tensor, spec in items
    )


def constriction_bytes(items: Sequence[Item]) -> int | None:
    """Length by another implementation, one table for each tensor, tables not counted."""
    import constriction

    total = 0
    for tensor, _ in items:
        if not isinstance(tensor, Grid):
            return None
        values, codes, counts = np.unique(tensor.levels, return_inverse=True, return_counts=True)
        if len(values) < 2:
            continue
        coder = constriction.stream.stack.AnsCoder()
        shares = (counts / counts.sum()).astype(np.float32)
        model = constriction.stream.model.Categorical(shares, perfect=False)
        coder.encode_reverse(codes.ravel().astype(np.int32), model)
        total += 4 * len(coder.get_compressed())
    return total


def timed(items: Sequence[Item]) -> tuple[bytes, float, float]:
    """The stream, and CPU seconds to make and to read it."""
    specs = [spec for _, spec in items]
    begun = time.process_time()
    data = b"".join(encode_packed(items))
    middle = time.process_time()
    for _ in decode_packed(data, specs):
        pass
    return data, middle - begun, time.process_time() - middle


def assert_exact(items: Sequence[Item], data: bytes) -> None:
    """The stream gives every tensor back."""
    found = decode_packed(data, [spec for _, spec in items])
    for (tensor, _), other in zip(items, found, strict=True):
        assert type(tensor) is type(other)
        if isinstance(tensor, Grid):
            assert np.array_equal(tensor.levels, other.levels)
        else:
            assert tensor.data == other.data


def measure(tensors: dict[str, list[Item]], rounds: int) -> list[dict[str, object]]:
    """One row for each case."""
    streams = {name: timed(items)[0] for name, items in tensors.items()}
    for name, items in tensors.items():
        assert_exact(items, streams[name])
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tensors}
    for _ in range(rounds):
        for name, items in tensors.items():
            seconds[name].append(timed(items)[1:])
    return [row(name, tensors[name], len(streams[name]), seconds[name]) for name in tensors]


def row(
    name: str, items: Sequence[Item], size: int, seconds: Sequence[tuple[float, float]]
) -> dict[str, object]:
    """Length and speed of one case, and whether they are as meant."""
    weights = sum(spec.size for _, spec in items)
    limit = limit_bits(items) / 8
    both = ([pair[way] for pair in seconds] for way in (0, 1))
    speeds = [4e-6 * weights / statistics.median(times) for times in both]
    on_grid = isinstance(items[0][0], Grid)
    return {
        "case": name,
        "tensors": len(items),
        "weights": weights,
        "limit_bytes": limit,
        "bytes": size,
        "constriction_bytes": constriction_bytes(items),
        "encode_mb_s": speeds[0],
        "decode_mb_s": speeds[1],
        "short_enough": size <= (1 + ALLOWED) * limit + SPARE if on_grid else None,
        "fast_enough": min(speeds) >= SPEED if weights >= LARGE else None,
    }


def show(result: dict) -> None:
    """The results as Markdown."""
    print("| weights | tensors | limit, B | packed, B | above | ANS alone, B | encode | decode |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for one in result["rows"]:
        above = 100 * (one["bytes"] / one["limit_bytes"] - 1)
        alone = one["constriction_bytes"]
        print(
            f"| {one['case']} | {one['tensors']} | {one['limit_bytes']:,.0f} | {one['bytes']:,} | "
            f"{above:+.2f} % | {'' if alone is None else f'{alone:,}'} | "
            f"{one['encode_mb_s']:.0f} MB/s | {one['decode_mb_s']:.0f} MB/s |"
        )


def main() -> None:
    """Measure and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", help="a file whose matrices make one more case")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        tensors = cases()
        if chosen.checkpoint:
            tensors[Path(chosen.checkpoint).name] = checkpoint(chosen.checkpoint)
        about = asdict(tl.Provenance.now(0)) | {
            "constriction": version("constriction"),
            "rounds": chosen.rounds,
        }
        result = {"about": about, "rows": measure(tensors, chosen.rounds)}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    show(json.loads(RESULT.read_text()))


if __name__ == "__main__":
    main()
