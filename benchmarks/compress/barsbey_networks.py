"""Networks for `benchmarks.compress.barsbey`: plain SGD on MNIST at several steps and batches.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.barsbey_networks --data FOLDER --cache FOLDER

Four matrices without biases, ReLU between them ("FCN depth 4" of Barsbey et al. 2021), plain SGD
with a constant step, no momentum, no weight decay. Once every training example is right and the
mean loss is below 3e-4, training goes on for 5,000 steps, and the weights of the last 1,000 are
averaged. One file for each network in the cache; those that are there are not trained again.
"""

import argparse
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import tailor as tl
from benchmarks.train.lee import mnist

WIDTH, CLASSES = 256, 10
ENOUGH, MOST_EPOCHS = 3e-4, 80
FURTHER, AVERAGED = 5_000, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A step and a batch."""

    rate: float
    batch: int

    @property
    def ratio(self) -> float:
        """Step over batch, which sets how strong the noise of SGD is."""
        return self.rate / self.batch

    @property
    def name(self) -> str:
        """As text."""
        return f"{self.rate:g} / {self.batch}"


# The ratios of the paper's networks on MNIST run from 5e-5 to 1.1e-2; below 5e-4 the loss takes
# hundreds of epochs to vanish. Two ratios stand twice, with another batch.
SETTINGS = (
    *(Setting(rate=rate, batch=50) for rate in (0.025, 0.05, 0.1, 0.2, 0.3, 0.4)),
    *(Setting(rate=rate, batch=100) for rate in (0.1, 0.4)),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A network and how it came about.

    Attributes:
        average: Its matrices, averaged over the last iterates.
        last: The same at the last iterate.
        about: Setting, seed, epochs, loss and accuracy at the end, cost.
    """

    average: list[Tensor]
    last: list[Tensor]
    about: dict


def standardised(folder: Path) -> tuple[tl.Data, tl.Data]:
    """MNIST, with the mean and the spread of all training pixels removed."""
    train, test = mnist(folder)
    mean, spread = train.x.mean(), train.x.std()
    return tuple(tl.Data(x=(part.x - mean) / spread, y=part.y) for part in (train, test))


def scores(matrices: list[Tensor], x: Tensor) -> Tensor:
    """What the network says."""
    for W in matrices[:-1]:
        x = (x @ W.T).relu_()
    return x @ matrices[-1].T


def accuracy(matrices: list[Tensor], data: tl.Data) -> float:
    """Share of right answers."""
    return float((scores(matrices, data.x).argmax(dim=1) == data.y).double().mean())


def loss(matrices: list[Tensor], data: tl.Data) -> float:
    """Mean cross-entropy."""
    return float(nn.functional.cross_entropy(scores(matrices, data.x), data.y))


def step(matrices: list[Tensor], x: Tensor, y: Tensor, rate: float) -> None:
    """One step of SGD on the cross-entropy, without autograd, which would cost twice as much."""
    seen = [x]
    for W in matrices[:-1]:
        seen.append((seen[-1] @ W.T).relu_())
    back = (seen[-1] @ matrices[-1].T).softmax(dim=1)
    back[torch.arange(len(y)), y] -= 1
    back /= len(y)
    for at in range(len(matrices) - 1, -1, -1):
        before = (back @ matrices[at]).mul_(seen[at] > 0) if at else back
        matrices[at].addmm_(back.T, seen[at], alpha=-rate)
        back = before


def initial(inputs: int, width: int, seed: int) -> list[Tensor]:
    """PyTorch's default, uniform with variance 1 / (3 fan-in)."""
    widths = [inputs, width, width, width, CLASSES]
    generator = torch.Generator().manual_seed(seed)
    return [
        (2 * torch.rand(after, before, generator=generator) - 1) / before**0.5
        for before, after in pairwise(widths)
    ]


def fit(setting: Setting, seed: int, train: tl.Data, *, width: int = WIDTH) -> Trained:
    """Train one network."""
    begun = time.process_time()
    matrices = initial(train.x.shape[1], width, seed)
    generator = torch.Generator().manual_seed(seed)
    epochs, steps, left = 0, 0, None
    sums = [torch.zeros_like(W, dtype=torch.float64) for W in matrices]
    while left != 0 and (epochs < MOST_EPOCHS or left is not None):
        for rows in torch.randperm(len(train), generator=generator).split(setting.batch):
            step(matrices, train.x[rows], train.y[rows], setting.rate)
            steps += 1
            if left is None:
                continue
            left -= 1
            if left < AVERAGED:
                sums = [total.add_(W) for total, W in zip(sums, matrices, strict=True)]
            if left == 0:
                break
        epochs += 1
        if left is None and (accuracy(matrices, train) == 1 and loss(matrices, train) < ENOUGH):
            left = FURTHER
    average = [(total / AVERAGED).float() for total in sums] if left == 0 else matrices
    about = {
        "rate": setting.rate,
        "batch": setting.batch,
        "seed": seed,
        "width": width,
        "steps": steps,
        "reached": left == 0,
        "train_loss": loss(matrices, train),
        "train_accuracy": accuracy(matrices, train),
        "cpu_seconds": round(time.process_time() - begun, 1),
    }
    return Trained(average=average, last=matrices, about=about)


def path(cache: Path, setting: Setting, seed: int) -> Path:
    """Where a network is kept."""
    return cache / f"rate{setting.rate:g}_batch{setting.batch}_seed{seed}.pt"


def restore(cache: Path, setting: Setting, seed: int) -> Trained | None:
    """A network that was trained before."""
    file = path(cache, setting, seed)
    return Trained(**torch.load(file, weights_only=True)) if file.exists() else None


def main() -> None:
    """Train what is not in the cache yet, seed after seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the networks")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.cache.mkdir(parents=True, exist_ok=True)
    train, test = standardised(asked.data)
    for seed in range(asked.seeds):
        for setting in SETTINGS:
            if path(asked.cache, setting, seed).exists():
                continue
            found = fit(setting, seed, train)
            kept = {"average": found.average, "last": found.last, "about": found.about}
            torch.save(kept, path(asked.cache, setting, seed))
            print(json.dumps(found.about), accuracy(found.average, test), flush=True)


if __name__ == "__main__":
    main()
