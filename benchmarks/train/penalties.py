"""What a training step with a penalty costs beside the plain step, on ResNet-18.

    OMP_NUM_THREADS=1 python -m benchmarks.train.penalties
    python -m benchmarks.train.penalties --show

The whole step (forward, loss, penalty, backward, SGD with momentum) at batch 128 of 32 x 32
images. All methods take turns; the time is CPU time of the process with one thread, and the ratio
the median over rounds of method / plain of the same round. The last method differentiates through
full decompositions, as the published code for such penalties does. Writes
benchmarks/results/penalties.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

import tailor as tl
from benchmarks.train.resnet import resnet18

RESULT = Path(__file__).parents[1] / "results" / "penalties.json"
BATCH = 128
PENALTIES: dict[str, tl.Penalty] = {
    "SpectralNorm": tl.SpectralNorm(1e-3),
    "LogSpectralNorm": tl.LogSpectralNorm(1e-3),
    "StableRank": tl.StableRank(1e-3),
    "FrechetPrior": tl.FrechetPrior(1e-3),
    "WeightedAlpha": tl.WeightedAlpha(1e-3),
    "TailExponent": tl.TailExponent(1e-3),
    "PowerLawPrior": tl.PowerLawPrior(1e-5),
    "GroupLasso": tl.GroupLasso(1e-5),
}
GOALS = {"SpectralNorm": 1.03, "StableRank": 1.03, "FrechetPrior": 1.03} | {
    "WeightedAlpha": 1.12,
    "TailExponent": 1.12,
    "PowerLawPrior": 1.12,
}

Step = Callable[[], None]


def by_autograd(model: nn.Module) -> Tensor:
    """Stable rank by autograd through all singular values."""
    ranks = []
    for parameter in model.parameters():
        if parameter.ndim > 1:
            values = torch.linalg.svdvals(parameter.flatten(1))
            ranks.append(values.square().sum() / values[0] ** 2)
    return 1e-3 * torch.stack(ranks).sum()


def steps() -> dict[str, Step]:
    """A training step for each method, each with a network of its own."""
    made = {"plain": _step(None)}
    for name, penalty in PENALTIES.items():
        made[f"{name}, term"] = _step(penalty)
    for name in ("StableRank", "WeightedAlpha"):
        made[f"{name}, decoupled"] = _step(PENALTIES[name], decoupled=True)
    made["stable rank, autograd through the SVD"] = _step(by_autograd)
    return made


def _step(term: Callable[[nn.Module], Tensor] | None, decoupled: bool = False) -> Step:
    torch.manual_seed(0)
    model = resnet18()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    if decoupled:
        assert isinstance(term, tl.Penalty)
        term.attach(model, optimizer)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(x), y)
        if term is not None and not decoupled:
            loss = loss + term(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(rounds: int) -> dict[str, object]:
    """CPU seconds of every method, in turns."""
    methods = steps()
    for step in methods.values():
        step()  # the first one allocates, and warms the singular vectors up
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(rounds):
        for name, step in methods.items():
            begun = time.process_time()
            step()
            seconds[name].append(time.process_time() - begun)
        print(f"round {turn + 1} of {rounds}", flush=True)
    rows = []
    for name, values in seconds.items():
        ratios = [one / plain for one, plain in zip(values, seconds["plain"], strict=True)]
        goal = GOALS.get(name.partition(",")[0]) if "term" in name or "decoupled" in name else None
        rows.append(
            {
                "method": name,
                "seconds": statistics.median(values),
                "ratio": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "goal": goal,
            }
        )
    about = asdict(tl.Provenance.now(0)) | {"threads": torch.get_num_threads(), "rounds": rounds}
    return {"about": about, "rows": rows}


def show() -> None:
    """The recorded table."""
    record = json.loads(RESULT.read_text())
    print("| step | CPU seconds | times the plain step | goal |\n| --- | --- | --- | --- |")
    for row in record["rows"]:
        spread = f"{row['ratio']:.3f} ({row['least']:.3f} - {row['most']:.3f})"
        print(f"| {row['method']} | {row['seconds']:.3f} | {spread} | {row['goal'] or ''} |")


def main() -> None:
    """Measure and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        RESULT.write_text(json.dumps(measure(chosen.rounds), indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
