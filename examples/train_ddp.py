"""Train on the digits with several processes, each on its share of every batch.

    torchrun --nproc-per-node 2 examples/train_ddp.py weights.pt

Without torchrun it is the same training in one process, and gives the same weights but for
rounding.
"""

import os
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

import tailor as tl

SIZE = 64  # of a batch over all processes; they have to divide it


def share(data: tl.Data, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's rows of every batch: the processes draw the same ones and split them."""
    whole = len(data) - len(data) % SIZE  # DDP averages over processes, so shares must be equal
    for x, y in tl.batches(tl.Data(x=data.x[:whole], y=data.y[:whole]), size=SIZE, epochs=2):
        yield x[rank::world], y[rank::world]


def trained(rank: int, world: int) -> nn.Module:
    """The network, with the same weights in every process."""
    torch.manual_seed(0)  # and the same at the beginning
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    model = nn.parallel.DistributedDataParallel(network) if world > 1 else network
    for step in tl.train(
        model,
        share(tl.DIGITS.train(), rank, world),
        loss=nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        penalties=[tl.StudentPrior(1e-3)],
        accumulate=2,
        clip_norm=1.0,
    ):
        if rank == 0 and step.number % 10 == 0:
            print(f"step {step.number}: loss {step.loss:.4f}")
    return network


def main(path: str) -> None:
    """Train, and let the first process store the weights."""
    if "RANK" in os.environ:  # set by torchrun
        dist.init_process_group("gloo")  # "nccl" on GPUs
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    network = trained(rank, world)
    if rank == 0:
        torch.save(network.state_dict(), path)
    if world > 1:
        dist.destroy_process_group()  # after the DDP model is gone, or the two may wait forever


if __name__ == "__main__":
    main(sys.argv[1])
