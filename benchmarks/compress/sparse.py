"""What zeros gain on a CPU: the same network dense, masked, in sparse rows, smaller, of low rank.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.sparse
    OMP_NUM_THREADS=1 python -m benchmarks.compress.sparse --quick
    python -m benchmarks.compress.sparse --show

A block of two linear layers with a ReLU between them, and one convolution of 3 x 3; weights and
inputs are Gaussian. A share s of the weights goes in five ways: zeros that lie anywhere ("masked");
the same zeros left out of storage (CSR with int32 indices, `tailor.SparseLinear`; a convolution as
unfolded patches times the CSR matrix); hidden units removed, so that a share 1 - s of them stays;
low rank with a share 1 - s of the parameters. One thread, processor time, all ways in turns,
medians. Numbers are times faster than dense. Writes benchmarks/results/sparse.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import tailor as tl
from tailor.stages.sparse import SparseLinear

RESULT = Path(__file__).parents[1] / "results" / "sparse.json"
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
SHORTEST = 2e-3  # seconds of one sample
REPEATS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network and its input.

    Attributes:
        name: For people.
        widths: Inputs, hidden units and outputs; or channels and side of a convolution.
        batch: Number of examples.
    """

    name: str
    widths: tuple[int, ...]
    batch: int

    @property
    def x(self) -> Tensor:
        """The input."""
        if len(self.widths) == 2:
            channels, side = self.widths
            return torch.randn(self.batch, channels, side, side)
        return torch.randn(self.batch, self.widths[0])


CASES = (
    *(Case(name="1024-4096-1024", widths=(1024, 4096, 1024), batch=n) for n in (1, 64, 256)),
    *(Case(name="512-2048-512", widths=(512, 2048, 512), batch=n) for n in (1, 64, 256)),
    Case(name="conv 3x3, 64 channels, 32x32", widths=(64, 32), batch=1),
    Case(name="conv 3x3, 128 channels, 16x16", widths=(128, 16), batch=8),
)


def block(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def thin(layer: nn.Linear, share: float) -> nn.Sequential:
    """Two layers with a share of the parameters of one."""
    rows, columns = layer.weight.shape
    rank = max(1, int(share * rows * columns / (rows + columns)))
    return nn.Sequential(nn.Linear(columns, rank, bias=False), nn.Linear(rank, rows))


class UnfoldedConv(nn.Module):
    """A convolution as a product of a sparse matrix with patches."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        flat = nn.Linear(conv.weight[0].numel(), conv.out_channels)
        with torch.no_grad():
            flat.weight.copy_(conv.weight.flatten(1))
            flat.bias.copy_(conv.bias)
        self.sparse = SparseLinear.of(flat)

    def forward(self, x: Tensor) -> Tensor:
        """Unfold, multiply, fold."""
        patches = nn.functional.unfold(x, 3, padding=1)
        flat = patches.transpose(0, 1).flatten(1)
        made = self.sparse.csr() @ flat + self.sparse.bias[:, None]
        return made.view(-1, len(x), *x.shape[2:]).transpose(0, 1)


def ways(case: Case, sparsity: float) -> dict[str, nn.Module]:
    """The networks by name; masked and sparse ones compute the same."""
    share = 1 - sparsity
    if len(case.widths) == 2:
        dense: nn.Module = nn.Conv2d(case.widths[0], case.widths[0], 3, padding=1)
        masked = _masked(nn.Conv2d(case.widths[0], case.widths[0], 3, padding=1), sparsity)
        return {"dense": dense, "masked": masked, "sparse": UnfoldedConv(masked)}
    inputs, hidden, outputs = case.widths
    dense = block(*case.widths)
    masked = _masked(block(*case.widths), sparsity)
    sparse = [SparseLinear.of(one) if isinstance(one, nn.Linear) else one for one in masked]
    low = [thin(one, share) if isinstance(one, nn.Linear) else one for one in dense]
    return {
        "dense": dense,
        "masked": masked,
        "sparse": nn.Sequential(*sparse),
        "removed": block(inputs, max(1, round(share * hidden)), outputs),
        "low rank": nn.Sequential(*low),
    }


def _masked(model: nn.Module, sparsity: float) -> nn.Module:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_()
                weight[torch.rand_like(weight) < sparsity] = 0
    return model


def measure(case: Case, sparsity: float, *, repeats: int, seed: int) -> dict[str, float]:
    """Median seconds of each way, in turns."""
    torch.manual_seed(seed)
    networks, x = ways(case, sparsity), case.x
    with torch.inference_mode():
        torch.testing.assert_close(
            networks["sparse"](x), networks["masked"](x), rtol=1e-3, atol=1e-3
        )
        calls = {name: _call(network, x) for name, network in networks.items()}
        loops = {name: _loops(call) for name, call in calls.items()}
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                taken[name].append(_seconds(call, loops[name]) / loops[name])
    return {name: statistics.median(times) for name, times in taken.items()}


def _call(network: nn.Module, x: Tensor) -> Callable[[], object]:
    return lambda: network(x)


def _loops(call: Callable[[], object]) -> int:
    loops = 1
    while _seconds(call, loops) < SHORTEST:
        loops *= 2
    return loops


def _seconds(call: Callable[[], object], loops: int) -> float:
    start = time.thread_time()
    for _ in range(loops):
        call()
    return time.thread_time() - start


def show() -> None:
    """The recorded table."""
    record = json.loads(RESULT.read_text())
    print(
        "| network, batch (dense time) | zeros | masked | CSR | units removed | low rank |\n"
        + "| --- " * 6
        + "|"
    )
    for row in record["rows"]:
        first = row["sparsity"] == record["rows"][0]["sparsity"]
        seconds = row["seconds"]
        gains = {name: seconds["dense"] / seconds[name] for name in seconds}
        cells = [
            _times(gains[name]) if name in gains else ""
            for name in ("masked", "sparse", "removed", "low rank")
        ]
        label = f"{row['name']}, {row['batch']} ({1e3 * seconds['dense']:.2g} ms)" if first else ""
        print(f"| {label} | {100 * row['sparsity']:.0f} % | {' | '.join(cells)} |")


def _times(gain: float) -> str:
    return f"{gain:.0f}" if gain >= 9.95 else f"{gain:.2g}"


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        torch.set_num_threads(1)
        rows = []
        for case in CASES:
            for sparsity in SPARSITIES:
                repeats = 2 if chosen.quick else REPEATS
                seconds = measure(case, sparsity, repeats=repeats, seed=0)
                row = {"name": case.name, "batch": case.batch, "sparsity": sparsity}
                rows.append(row | {"seconds": seconds})
                print(case.name, case.batch, sparsity, seconds, flush=True)
        if chosen.quick:
            return
        record = {"about": asdict(tl.Provenance.now(0)), "repeats": REPEATS, "rows": rows}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
