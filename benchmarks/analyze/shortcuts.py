"""Where no whole spectrum is needed: products of low rank, norms."""

from functools import partial

import torch

from benchmarks.analyze import ours, theirs
from benchmarks.analyze.case import Case, Contest, Ours, Side, cpu_seconds
from benchmarks.analyze.data import SEED, heavy_tailed


def cases() -> list[Case]:
    """All of them."""
    adapters = ((4096, 4096, 16, 5), (4096, 11008, 64, 3))
    found = [_adapter(rows, columns, rank, n) for rows, columns, rank, n in adapters]
    found.append(
        Case(
            name="norms only, 4096 x 4096",
            against="weightwatcher",
            build=_norms,
            repeats=2,
            meter=cpu_seconds,
        )
    )
    return found


def _adapter(rows: int, columns: int, rank: int, repeats: int) -> Case:
    def build(tiny: bool) -> Contest:
        shrink = 32 if tiny else 1
        generator = torch.Generator().manual_seed(SEED)
        left = torch.randn(rows // shrink, rank, generator=generator)
        right = torch.randn(rank, columns // shrink, generator=generator)
        left *= torch.linspace(0.1, 1, rank)  # a spectrum with some width
        side = Side(run=partial(ours.low_rank, left, right), read=theirs.in_order)
        run = partial(theirs.low_rank, left.numpy(), right.numpy())
        return Contest(
            theirs=Side(run=run, read=theirs.in_order), ours=(Ours(side=side, at_least=300),)
        )

    return Case(
        name=f"LoRA spectrum, {rows} x {columns}, rank {rank}",
        against="weightwatcher",
        build=build,
        repeats=repeats,
        meter=cpu_seconds,
    )


def _norms(tiny: bool) -> Contest:
    matrix = heavy_tailed(128, 128, seed=3) if tiny else heavy_tailed(4096, 4096, seed=3)
    side = Side(run=partial(ours.norms, matrix), read=theirs.in_order)
    return Contest(
        theirs=Side(run=partial(theirs.norms, matrix.numpy()), read=theirs.in_order),
        ours=(Ours(side=side, at_least=60),),
    )
