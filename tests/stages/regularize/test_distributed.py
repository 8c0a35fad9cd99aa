"""Two gloo processes give what one gives, for every penalty, as a term and decoupled."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from tailor.stages.regularize import (
    L1,
    L2,
    FrechetPrior,
    GroupLasso,
    HorseshoeNodes,
    LogSpectralNorm,
    Penalty,
    PowerLawPrior,
    Regularizer,
    SpectralNorm,
    StableRank,
    StableRankProjection,
    StudentPrior,
    TailExponent,
    WeightedAlpha,
)

PENALTIES = [
    L1(1e-3),
    L2(1e-2),
    StudentPrior(1e-3),
    GroupLasso(1e-2),
    HorseshoeNodes(1e-4),
    SpectralNorm(1e-1),
    LogSpectralNorm(1e-1, threshold=None),
    StableRank(1e-1),
    FrechetPrior(1e-1),
    TailExponent(1e-2),
    WeightedAlpha(1e-1),
    PowerLawPrior(1e-3),
    StableRankProjection(rank=2.0),
]


def network() -> nn.Sequential:
    """Eleven rows do not divide by two; eigenvalues above one keep every penalty awake."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(14, 11, dtype=torch.float64), nn.Tanh(), nn.Linear(11, 11, dtype=torch.float64)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def trained(model, penalty, decoupled, batches):
    """Three steps of SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    regularizer = None
    if isinstance(penalty, Penalty):
        regularizer = Regularizer(model, [penalty])
        if decoupled:
            regularizer.attach(optimizer)
    else:
        penalty.attach(model, optimizer)
    for x, y in batches:
        loss = (model(x) - y).square().mean()
        if regularizer is not None and not decoupled:
            loss = loss + regularizer()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def examples():
    generator = torch.Generator().manual_seed(1)
    return [
        tuple(torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (14, 11))
        for _ in range(3)
    ]


def weights(model):
    return [
        p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()
    ]


def both_ways(rank, store):
    """One of two processes: every penalty under DDP and fully_shard against one process."""
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    mine = [(x[rank::2], y[rank::2]) for x, y in examples()]
    for penalty in PENALTIES:
        for decoupled in (True, False) if isinstance(penalty, Penalty) else (True,):
            expected = weights(trained(network(), penalty, decoupled, examples()))
            plain = weights(trained(network(), L2(0.0), decoupled, examples()))
            assert not torch.allclose(expected[0], plain[0], atol=1e-7), penalty
            wrapped = DistributedDataParallel(network())
            found = weights(trained(wrapped, copy.deepcopy(penalty), decoupled, mine))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, msg=str(penalty))
            sharded = network()
            for layer in (sharded[0], sharded[2], sharded):
                fully_shard(layer)
            found = weights(trained(sharded, copy.deepcopy(penalty), decoupled, mine))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, msg=str(penalty))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_give_what_one_gives(tmp_path):
    spawn(both_ways, args=(str(tmp_path / "store"),), nprocs=2)
