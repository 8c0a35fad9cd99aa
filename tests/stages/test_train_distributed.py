"""Several processes train as one does: DDP by the example, and parameters spread by FSDP2."""

import multiprocessing
import os
import runpy
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tailor.errors import UsageError
from tailor.stages.regularize import L2, StableRank
from tailor.stages.train import Checkpoint, Monitor, Patience, train

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_ddp.py"
CROSS_ENTROPY = nn.functional.cross_entropy
WORLD = 2
STEPS = 8


@pytest.fixture(scope="module")
def together():
    """Run a function in two processes at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tailor", "torch._dynamo", "sklearn.datasets"])

    def run(work, *arguments):
        team = [context.Process(target=work, args=(rank, *arguments)) for rank in range(WORLD)]
        for one in team:
            one.start()
        for one in team:
            one.join(timeout=100)
            one.kill()  # nothing to a process that has ended
            one.join()
        assert [one.exitcode for one in team] == [0] * WORLD

    return run


# DDP


def example(rank, port, path):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runpy.run_path(str(EXAMPLE))["main"](str(path))


def test_the_ddp_example_gives_the_weights_of_one_process(together, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together(example, port, tmp_path / "two.pt")
    runpy.run_path(str(EXAMPLE))["main"](str(tmp_path / "one.pt"))
    assert "step 20: loss" in capsys.readouterr().out
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)


# FSDP2


def batch(number):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(12, 5, generator=generator)
    return x, (x[:, 0] > 0).long()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.ReLU(), nn.Linear(3, 2)
        )


def steps_of(model, share=lambda x: x, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    given = [tuple(map(share, batch(number))) for number in range(2 * STEPS)]
    return train(
        model,
        given,
        loss=CROSS_ENTROPY,
        optimizer=optimizer,
        penalties=[StableRank(1e-2), L2(1e-2)],
        accumulate=2,
        clip_norm=0.5,
        **options,
    )


def member(rank, folder, work):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    work(rank, folder)
    dist.destroy_process_group()  # after all models are gone, or the two may wait forever


def sharded():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(), init_device_mesh("cpu", (WORLD,))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)  # seven rows, and three, do not divide by two


def shard(rank, folder, left=5):
    """Uninterrupted, then left after some steps and taken up again."""
    calm = sharded()
    monitor = Monitor(every=4, csv=folder / "rows.csv")
    seen = list(steps_of(calm, lambda x: x[rank::WORLD], monitor=monitor))
    assert [len(step.layers) for step in seen] == [0, 0, 0, 3, 0, 0, 0, 3]
    options = {"checkpoint": Checkpoint(folder=folder / "runs", every=3)}
    for step in steps_of(sharded(), lambda x: x[rank::WORLD], **options):
        if step.number == left:
            break
    if rank == 1:  # what a crash may leave: a file of a later step, without its fellows
        torch.save({}, folder / "runs" / f"checkpoint-{left}-1-of-2.pt")
    resumed = sharded()
    rest = list(steps_of(resumed, lambda x: x[rank::WORLD], **options))
    assert [step.number for step in rest] == list(range(4, STEPS + 1))
    assert [step.loss for step in rest] == [step.loss for step in seen[3:]]
    for one, two in zip(calm.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one.to_local(), two.to_local())
    weights = {name: p.full_tensor() for name, p in calm.named_parameters()}
    if rank == 0:
        torch.save(
            {"weights": weights, "norms": [step.gradient_norm for step in seen]}, folder / "x"
        )


def test_sharded_training_equals_one_process_and_resumes_to_the_bit(together, tmp_path):
    together(member, tmp_path, shard)
    found = torch.load(tmp_path / "x", weights_only=True)
    model = network()
    alone = list(steps_of(model))
    assert found["norms"] == pytest.approx([step.gradient_norm for step in alone], rel=1e-4)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found["weights"][name], weight.detach(), rtol=0, atol=1e-5)
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["checkpoint-8-0-of-2.pt", "checkpoint-8-1-of-2.pt", "checkpoint.json"]
    assert len((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3 * 3
    with pytest.raises(UsageError, match="holds a checkpoint of a sharded model; go on in the"):
        next(steps_of(network(), checkpoint=Checkpoint(folder=tmp_path / "runs")))


def copied():
    """A copy in each process, with random numbers of its own."""
    model = network()
    model[1] = nn.Dropout(0.5)
    return nn.parallel.DistributedDataParallel(model)


def resume(rank, folder):
    calm, drawn = copied(), []
    calm.module[1].register_forward_hook(lambda *seen: drawn.append(seen[2]))
    seen = list(steps_of(calm, lambda x: x[rank::WORLD]))
    masks = [torch.zeros_like(drawn[0]) for _ in range(WORLD)]
    dist.all_gather(masks, (drawn[0] == 0).to(drawn[0].dtype))
    assert not torch.equal(*masks)
    options = {"checkpoint": Checkpoint(folder=folder / "runs", every=3)}
    for step in steps_of(copied(), lambda x: x[rank::WORLD], **options):
        if step.number == 4:
            break
    resumed = copied()
    rest = list(steps_of(resumed, lambda x: x[rank::WORLD], **options))
    assert [step.loss for step in rest] == [step.loss for step in seen[3:]]
    assert all(map(torch.equal, calm.parameters(), resumed.parameters()))


def test_a_ddp_run_resumes_to_the_bit_in_every_process(together, tmp_path):
    together(member, tmp_path, resume)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["checkpoint.pt"]


def disagree(rank, folder):
    """Values that fall on the second process alone, then float16 without a common scale."""
    model = nn.parallel.DistributedDataParallel(network())
    values = iter(range(100, 0, -1))
    rule = Patience(lambda: 1.0 if rank == 0 else float(next(values)), patience=3)
    options = {"checkpoint": Checkpoint(folder=folder / "runs", every=2), "stop": [rule]}
    *_, last = steps_of(model, lambda x: x[rank::WORLD], **options)
    assert last.number == 4
    assert last.stopped.startswith("Patience" if rank == 0 else "the first process")
    assert [path.name for path in (folder / "runs").iterdir()] == ["checkpoint.pt"]
    with pytest.raises(UsageError, match="float16 needs one scale of the loss for all processes"):
        next(steps_of(sharded(), precision="float16"))


def test_processes_stop_together_and_only_the_first_writes(together, tmp_path):
    together(member, tmp_path, disagree)
