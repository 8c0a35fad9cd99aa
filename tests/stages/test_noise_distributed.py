"""Noise on two processes equals that on one: replicas (DDP) and spread weights (FSDP2).

Run as a program, this file is one of the two processes: rank and folder are its arguments.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn, optim
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tailor.stages.noise import StableNoise
from tailor.stages.targets import whole

KINDS = {"rotation": 1.5, "iid": 1.5, "shared": 1.5, "gaussian": 2.0}
CLIPS = {"free": None, "clipped": 0.1}
CASES = [(kind, clip) for kind in KINDS for clip in CLIPS]
PROCESSES = 2
STEPS = 5


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2),  # 3 rows: two on one process and one on the other
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.Tanh(),
        nn.Linear(5, 1),  # one row: the other process has none
    )


def train(model, kind, clip):
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    noise = StableNoise(
        alpha=KINDS[kind], scale=0.05, kind=kind, targets="all", clip=CLIPS[clip], seed=9
    )
    noise.attach(model, optimizer)
    inputs = torch.linspace(-1, 1, 36).view(4, 1, 3, 3)  # the same everywhere
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return {name.removeprefix("module."): whole(p) for name, p in model.named_parameters()}


def main(rank, folder):
    """One process: train as a replica and with spread weights, and save the weights."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found = {}
    for kind, clip in CASES:
        found[f"DDP {kind} {clip}"] = train(DistributedDataParallel(network()), kind, clip)
        spread = network()
        fully_shard(spread[2])
        fully_shard(spread)
        found[f"FSDP {kind} {clip}"] = train(spread, kind, clip)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize(("kind", "clip"), CASES)
@pytest.mark.parametrize("way", ["DDP", "FSDP"])
def test_two_processes_equal_one(found, way, kind, clip):
    with torch.random.fork_rng():
        alone = train(network(), kind, clip)
    one, other = (each[f"{way} {kind} {clip}"] for each in found)
    assert one.keys() == alone.keys()
    for name, weight in alone.items():
        assert torch.equal(one[name], other[name])  # no drift between processes
        torch.testing.assert_close(one[name], weight, rtol=1e-6, atol=1e-6)


def test_the_noise_is_there():
    with torch.random.fork_rng():
        noisy, quiet = train(network(), "iid", "free"), train(network(), "iid", "clipped")
    assert (noisy["2.weight"] - quiet["2.weight"]).abs().max() > 0.01


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
