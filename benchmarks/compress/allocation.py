"""Does it help to prune blocks by their spectra? With seeds, dumb rules and random permutations.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.allocation --text FILE --folder FOLDER
    python -m benchmarks.compress.allocation --show

FILE is tiny Shakespeare (github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt). For each of
four seeds a language model of characters with six LLaMA blocks is trained (eight minutes each)
and kept in FOLDER; then it is pruned in one shot by every allocation, with magnitude, Wanda and
SparseGPT, at 50, 70 and 80 %. The null: 40 random permutations of the shares that alpha gives to
the blocks (magnitude, 70 %). A run that was broken off goes on where it was. Writes
benchmarks/results/allocation.json.
"""

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from scipy import stats
from torch import nn

import tailor as tl
from benchmarks.compress import charlm
from benchmarks.compress.case import ALPHA, HILL, METHODS, SCORES, UNIFORM, Case
from benchmarks.train.paired import paired
from tailor.stages.allocate import AlphaPruning
from tailor.stages.scores import Magnitude
from tailor.weights.source import read

RESULT = Path(__file__).parents[1] / "results" / "allocation.json"
SEEDS, STEPS = 4, 1000
SPARSITIES = (0.5, 0.7, 0.8)
PERMUTATIONS = 40
NULL = 0.7  # sparsity of the permutations


def permutations(shares: list[float], count: int, seed: int) -> list[list[float]]:
    """Random orders of the shares, all different and none the given one; fewer if there are not."""
    others = sorted(set(itertools.permutations(shares)) - {tuple(shares)})
    drawn = random.Random(seed).sample(others, min(count, len(others)))
    return [list(one) for one in drawn]


def case(model: nn.Module, text: charlm.Text, seed: int) -> Case:
    """A model with its own calibration data; all are tested on the same pieces."""
    return Case(
        model,
        calibration=charlm.windows(text.train, 32, charlm.WINDOW, seed=seed),
        held_out=charlm.windows(text.held_out, 256, charlm.WINDOW + 1, seed=0),
    )


def measure(case: Case, done: dict, keep: Callable[[], None], permuted: int = PERMUTATIONS) -> None:
    """Fill in what is not there yet; ``keep`` is called after each value."""
    if "dense" not in done:
        done["dense"] = charlm.bits(case.model, case.held_out)
        done["alphas"] = case.by_block(case.alphas)
        layers = [one for one in read(case.model).layers if one.name in case.block]
        gated = AlphaPruning(fit=HILL).allocate(layers, NULL, score=Magnitude())
        done["gate"] = gated.note
        free = AlphaPruning(fit=HILL, gate=False).allocate(layers, NULL, score=Magnitude())
        done["shares"] = case.by_block({name: free.ratio(name) for name in case.block})
        keep()
    for sparsity in SPARSITIES:
        for name, score in SCORES.items():
            for method, make in METHODS.items():
                key = f"{sparsity:g} {name} {method}"
                if key not in done:
                    done[key] = case.pruned(score, make(case, sparsity), sparsity)
                    print(key, round(done[key], 4), flush=True)
                    keep()
    null = done.setdefault("permutations", [])
    for shares in permutations(done["shares"], permuted, seed=0)[len(null) :]:
        null.append(case.pruned(Magnitude(), case.fixed(shares), NULL))
        keep()


def quantile(run: dict) -> float:
    """Share of the permutations that do at least as well as alpha."""
    alpha = run[f"{NULL:g} magnitude {ALPHA}"]
    return statistics.fmean(one <= alpha for one in run["permutations"])


def combined(runs: list[dict]) -> float:
    """Fisher's p over the seeds that alpha is better than a random order."""
    ps = [(1 + sum(_better(run))) / (1 + len(run["permutations"])) for run in runs]
    return float(stats.chi2.sf(-2 * sum(map(math.log, ps)), 2 * len(ps)))


def _better(run: dict) -> list[bool]:
    alpha = run[f"{NULL:g} magnitude {ALPHA}"]
    return [one <= alpha for one in run["permutations"]]


def show() -> None:
    """The recorded tables."""
    runs = json.loads(RESULT.read_text())["runs"]
    dense = [run["dense"] for run in runs]
    print(f"dense: {statistics.fmean(dense):.3f} bits per character, {len(runs)} seeds")
    for sparsity in SPARSITIES:
        print(f"\n{sparsity:.0%} of the weights pruned\n")
        print("| allocation | " + " | ".join(SCORES) + " |\n" + "| --- " * (len(SCORES) + 1) + "|")
        for method in METHODS:
            cells = [_cell(runs, f"{sparsity:g} {score}", method) for score in SCORES]
            print(f"| {method} | " + " | ".join(cells) + " |")
    _show_against(runs)
    _show_null(runs)


def _cell(runs: list[dict], start: str, method: str) -> str:
    values = [run[f"{start} {method}"] for run in runs]
    mean = f"{statistics.fmean(values):.3f}"
    if method == UNIFORM or len(runs) < 2:
        return mean
    middle, half = paired(values, [run[f"{start} {UNIFORM}"] for run in runs])
    return f"{mean} ({middle:+.3f} ± {half:.3f})"


RIVALS = ("ramp", "first block spared", "measured loss", "OWL", "LAMP", "alpha, FARMS")


def _show_against(runs: list[dict]) -> None:
    print("\n| alpha, median minus | " + " | ".join(f"{s:.0%}" for s in SPARSITIES) + " |")
    print("| --- " * (len(SPARSITIES) + 1) + "|")
    for score in SCORES:
        for rival in RIVALS:
            cells = []
            for sparsity in SPARSITIES:
                start = f"{sparsity:g} {score}"
                pair = [[run[f"{start} {m}"] for run in runs] for m in (ALPHA, rival)]
                cells.append("{:+.3f} ± {:.3f}".format(*paired(*pair)))
            print(f"| {rival} ({score}) | " + " | ".join(cells) + " |")


def _show_null(runs: list[dict]) -> None:
    names = ("alpha, median", "quantile", "best", "lower quartile", "median", "upper quartile")
    print("\n| seed | block alphas | " + " | ".join(names) + " | ramp | first block spared |")
    print("| --- " * (len(names) + 4) + "|")
    for seed, run in enumerate(runs):
        null = run["permutations"]
        shown = [run[f"{NULL:g} magnitude {ALPHA}"], min(null), *statistics.quantiles(null)]
        cells = [f"{one:.3f}" for one in shown]
        cells.insert(1, f"{quantile(run):.0%}")
        rest = [f"{run[f'{NULL:g} magnitude {name}']:.3f}" for name in RIVALS[:2]]
        alphas = " ".join(f"{one:.2f}" for one in run["alphas"])
        print(f"| {seed} | {alphas} | " + " | ".join([*cells, *rest]) + " |")
    print(f"\nFisher's p over the seeds: {combined(runs):.2g}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--folder", type=Path, help="models and what is measured so far")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show and not (asked.text and asked.folder):
        parser.error("--text and --folder are needed")
    return asked


def main() -> None:
    """Train, prune, record; or show."""
    asked = arguments()
    if asked.show:
        show()
        return
    torch.set_num_threads(1)
    text = charlm.load_text(asked.text)
    runs = []
    for seed in range(asked.seeds):
        model = charlm.trained(asked.folder, text, seed=seed, steps=STEPS)
        file = asked.folder / f"seed{seed}.json"
        done = json.loads(file.read_text()) if file.exists() else {}
        measure(
            case(model, text, seed),
            done,
            lambda file=file, done=done: file.write_text(json.dumps(done, indent=1)),
        )
        runs.append(done)
        record(runs, len(text.characters))
    show()


def record(runs: list[dict], characters: int) -> None:
    """Write what is known of the seeds that are done."""
    about = asdict(tl.Provenance.now(0)) | {"steps": STEPS, "characters": characters}
    RESULT.write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
