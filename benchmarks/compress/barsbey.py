"""Is a heavier tail more compressible? After Barsbey et al. (2021), on MNIST.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.barsbey --data FOLDER --cache FOLDER
    python -m benchmarks.compress.barsbey --show

The networks are those of `benchmarks.compress.barsbey_networks`, which has to be run first with
the same folders; the averages of their last iterates are pruned by the three schemes of the paper,
all layers alike, with and without its centring by a median, and tested on 10,000 images. Tail
indices are those of the paper: the log-moment estimator on the rows of each matrix, the last one
transposed. Beside it stands the paper's synthetic figure, which needs no network. Writes
benchmarks/results/barsbey.json.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import tailor as tl
from benchmarks.compress.barsbey_networks import (
    SETTINGS,
    Trained,
    accuracy,
    initial,
    path,
    restore,
    standardised,
)
from benchmarks.compress.barsbey_synthetic import ERROR, synthetic
from tailor.numerics.ranks import rank_correlation
from tailor.numerics.stable import log_moment_rows
from tailor.stages.schemes import Entries, Nodes, Scheme, SingularValues, Units, reduce_weight
from tailor.stages.scores.smallest import smallest_dropped

RESULT = Path(__file__).parents[1] / "results" / "barsbey.json"
SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)
LOSSES = (0.01, 0.05)  # of accuracy
# The scheme, whether layers are compared with each other, and how many last layers stay whole. In
# the paper's program the last one does so, but for nodes: it is handed over as a transposed view,
# and what is assigned to that never reaches the network.
METHODS: dict[str, tuple[Callable[..., Scheme], bool, int]] = {
    "entries": (Entries, False, 0),
    "entries, last layer whole": (Entries, False, 1),
    "entries, layers together": (Entries, True, 0),
    "singular values": (SingularValues, False, 0),
    "nodes": (Nodes, False, 0),
}
CENTERS = ("none", "median")


# Networks


def measure(trained: Trained, test: tl.Data) -> dict:
    """Tails of one network, and what pruning leaves of its accuracy."""
    matrices = trained.average
    start = initial(matrices[0].shape[1], trained.about["width"], trained.about["seed"])
    return {
        **trained.about,
        "test": accuracy(matrices, test),
        "layers": [
            layer(W, W0, last=W is matrices[-1]) for W, W0 in zip(matrices, start, strict=True)
        ],
        "curves": {
            f"{name}, {center}": curve(matrices, make(center=center), together, whole, test)
            for name, (make, together, whole) in METHODS.items()
            for center in CENTERS
        },
    }


def layer(W: Tensor, start: Tensor, *, last: bool) -> dict[str, float]:
    """Tail indices of one matrix, and what else may be behind its compressibility."""
    rows = (W.T if last else W).double().numpy()
    entries = rows.ravel() - np.median(rows)
    norms = np.linalg.norm(rows - np.median(rows, axis=0), axis=1)
    return {
        "rows": log_moment_rows(rows).index,
        "entries": tl.LogMoment().fit(entries).index,
        "norms": tl.LogMoment().fit(norms).index,
        "koutrouvelis": tl.Koutrouvelis().fit(entries).index,
        "kurtosis": float((entries**4).mean() / (entries**2).mean() ** 2),
        "norm": float(W.norm()),
        "moved": float((W - start).norm() / start.norm()),
        "at_error": 1 - (one := reduce_weight(W, Entries(), error=ERROR)).kept / one.units,
    }


def curve(
    matrices: Sequence[Tensor], scheme: Scheme, together: bool, whole: int, test: tl.Data
) -> list[list[float]]:
    """Accuracy, and numbers stored over entries, at each share of units that goes."""
    rest = list(matrices[len(matrices) - whole :])
    cuts = [scheme.units(W) for W in matrices[: len(matrices) - whole]]
    total = sum(W.numel() for W in matrices)
    found = []
    for share in SHARES:
        pairs = list(zip(cuts, keeps(cuts, share, together), strict=True))
        pruned = [cut.build(keep) for cut, keep in pairs] if share else list(matrices)[: len(cuts)]
        cost = sum(int(keep.sum()) * cut.cost + cut.fixed for cut, keep in pairs)
        cost += sum(W.numel() for W in rest)
        found.append([round(accuracy([*pruned, *rest], test), 4), round(cost / total, 4)])
    return found


def keeps(cuts: Sequence[Units], share: float, together: bool) -> Sequence[Tensor]:
    """Which units of each matrix stay when the smallest go, of each or of all."""
    sizes = [cut.sizes for cut in cuts]
    if not together:
        return [smallest_dropped(one[None], int(share * len(one)))[0] for one in sizes]
    every = torch.cat(sizes)
    kept = smallest_dropped(every[None], int(share * len(every)))[0]
    return kept.split([len(one) for one in sizes])


def prunable(points: Sequence[Sequence[float]], lost: float) -> float:
    """Largest share up to which the accuracy is never lower by more, between two shares in line."""
    least = points[0][0] - lost
    for at, (here, _) in enumerate(points):
        if here < least:
            before, step = points[at - 1][0], SHARES[at] - SHARES[at - 1]
            return SHARES[at - 1] + step * (before - least) / (before - here)
    return SHARES[-1]


def measured_once(trained: Trained, test: tl.Data, file: Path) -> dict:
    """The same, kept beside the network, so that an interrupted run goes on where it was."""
    kept = file.with_suffix(".json")
    if not kept.exists():
        kept.write_text(json.dumps(measure(trained, test)), encoding="utf-8")
        print(f"measured {file.stem}", flush=True)
    return json.loads(kept.read_text(encoding="utf-8"))


# Tables


def show() -> None:
    """What is recorded, as tables."""
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    show_synthetic(record["synthetic"])
    groups = grouped(record["networks"])
    show_networks(groups)
    for lost in LOSSES:
        show_correlations(groups, lost)
    show_curves(groups)


def show_synthetic(found: dict) -> None:
    """Share that can be pruned at a relative error of 0.1."""
    table("tail index", [f"{kind} [10 %, 90 %]" for kind in next(iter(found.values()))])
    for index, kinds in found.items():
        cells = [f"{mid:.1%} [{low:.1%}, {high:.1%}]" for mid, low, high in kinds.values()]
        print(f"| {index} | {' | '.join(cells)} |")


def grouped(networks: list[dict]) -> dict[str, list[dict]]:
    """The networks that reached the loss, by setting, the smallest ratio first."""
    groups: dict[str, list[dict]] = {}
    for one in sorted(networks, key=lambda one: (one["rate"] / one["batch"], one["batch"])):
        if one["reached"]:
            groups.setdefault(f"{one['rate']:g} / {one['batch']}", []).append(one)
    return groups


def tail(one: dict, kind: str = "rows") -> float:
    """Mean over the layers, the last among them."""
    return statistics.fmean(found[kind] for found in one["layers"])


Look = Callable[[dict], float]

LOOKS: dict[str, Look] = {
    "step / batch": lambda one: one["rate"] / one["batch"],
    "tail index of rows, mean": tail,
    "tail index of rows, median": lambda one: statistics.median(
        found["rows"] for found in one["layers"]
    ),
    "tail index of entries, mean": lambda one: tail(one, "entries"),
    "Koutrouvelis' index of entries, mean": lambda one: tail(one, "koutrouvelis"),
    "kurtosis, mean": lambda one: tail(one, "kurtosis"),
    "norm, mean": lambda one: tail(one, "norm"),
    "distance from the start, mean": lambda one: tail(one, "moved"),
}


COLUMNS: dict[str, tuple[int, Look]] = {
    "test": (2, lambda one: 100 * one["test"]),
    **{f"index {at + 1}": (2, lambda one, at=at: one["layers"][at]["rows"]) for at in range(4)},
    "kurtosis": (1, lambda one: tail(one, "kurtosis")),
    **{
        name: (0, lambda one, key=f"{name}, none": 100 * prunable(one["curves"][key], 0.01))
        for name in METHODS
    },
}


def show_networks(groups: dict[str, list[dict]]) -> None:
    """Each setting: accuracy, tail indices by layer, and what can go for one point."""
    table("step / batch", ["steps", *COLUMNS])
    columns = {
        title: means([[look(one) for one in runs] for runs in groups.values()], digits)
        for title, (digits, look) in COLUMNS.items()
    }
    for at, (name, runs) in enumerate(groups.items()):
        steps = f"{statistics.fmean(one['steps'] for one in runs) / 1000:.0f}k"
        print(f"| {name} | {' | '.join([steps, *(cells[at] for cells in columns.values())])} |")


def means(groups: list[list[float]], digits: int) -> list[str]:
    """Mean of each group and half of its 95 % t interval, with one deviation for all groups."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((one - statistics.fmean(group)) ** 2 for group in groups for one in group)
    if not freedom:
        return [f"{statistics.fmean(group):.{digits}f}" for group in groups]
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(squares / freedom)
    return [
        f"{statistics.fmean(group):.{digits}f} ± {half / math.sqrt(len(group)):.{digits}f}"
        for group in groups
    ]


def mean_of(values: list[float], digits: int) -> str:
    """Mean and half of its 95 % t interval."""
    return means([values], digits)[0]


def show_correlations(groups: dict[str, list[dict]], lost: float) -> None:
    """Rank correlation over the settings, seeds averaged; and over seeds within settings."""
    table(f"{100 * lost:g} % lost", list(METHODS))
    for name, look in LOOKS.items():
        cells = []
        for method in METHODS:
            key = f"{method}, none"
            x = [[look(one) for one in runs] for runs in groups.values()]
            y = [[prunable(one["curves"][key], lost) for one in runs] for runs in groups.values()]
            cells.append(f"{over_settings(x, y)}; {within_settings(x, y)}")
        print(f"| {name} | {' | '.join(cells)} |")


def over_settings(x: list[list[float]], y: list[list[float]]) -> str:
    """Spearman's correlation of the means."""
    try:
        found = rank_correlation(
            *(np.array([statistics.fmean(runs) for runs in side]) for side in (x, y))
        )
    except tl.UsageError:
        return "constant"
    return f"{found.rho:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def within_settings(x: list[list[float]], y: list[list[float]]) -> str:
    """Pearson's correlation of the deviations from the mean of the setting."""
    a, b = (
        np.concatenate([np.array(runs) - statistics.fmean(runs) for runs in side])
        for side in (x, y)
    )
    if not a.any() or not b.any():
        return "-"
    return f"{float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)):+.2f}"


def show_curves(groups: dict[str, list[dict]]) -> None:
    """Accuracy at each share, for the smallest, the middle and the largest ratio."""
    names = list(groups)
    chosen = [names[0], names[len(names) // 2], names[-1]]
    table("scheme, median, step / batch", [f"{100 * share:g}%" for share in SHARES])
    for method in METHODS:
        for center in CENTERS:
            for name in chosen:
                runs = [one["curves"][f"{method}, {center}"] for one in groups[name]]
                cells = [
                    f"{100 * statistics.fmean(run[at][0] for run in runs):.1f}"
                    for at in range(len(SHARES))
                ]
                print(f"| {method}, {center}, {name} | {' | '.join(cells)} |")


def table(first: str, columns: list[str]) -> None:
    """Head of a table."""
    head = [first, *columns]
    print(f"\n| {' | '.join(head)} |\n{'| --- ' * len(head)}|")


def main() -> None:
    """Measure and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST")
    parser.add_argument("--cache", type=Path, help="folder with the networks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show:
        if not (asked.data and asked.cache):
            parser.error("give --data and --cache, or --show")
        torch.set_num_threads(1)
        _, test = standardised(asked.data)
        networks = []
        for seed in range(asked.seeds):
            for setting in SETTINGS:
                trained = restore(asked.cache, setting, seed)
                if trained is not None:
                    networks.append(measured_once(trained, test, path(asked.cache, setting, seed)))
        record = {
            "about": asdict(tl.Provenance.now(0)),
            "synthetic": synthetic(),
            "networks": networks,
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show()


if __name__ == "__main__":
    main()
