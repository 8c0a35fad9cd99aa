"""Power-law fits, p-values and bulk fits: arrays in, numbers out."""

from functools import partial

import numpy as np

from benchmarks.analyze import ours, theirs
from benchmarks.analyze.case import Case, Contest, Ours, Side, cpu_seconds
from benchmarks.analyze.data import heavy_tailed, samples

TINY = 100  # values of a sample in a trial
EXACT = 1e-9


def cases() -> list[Case]:
    """All of them."""
    found = [_weightwatcher_fit(n, repeats) for n, repeats in WEIGHTWATCHER.items()]
    found += [_powerlaw_fit(n, repeats) for n, repeats in POWERLAW.items()]
    found += [_p_value(sample) for sample in ("tail 2.5", "lognormal")]
    return found + [_bulk_fit(rows, columns) for rows, columns in ((768, 768), (2304, 768))]


WEIGHTWATCHER = {768: 9, 1000: 9, 4096: 7, 10_000: 5}  # repeats by size of the sample
POWERLAW = {1000: 7, 4096: 3, 10_000: 3}


def _weightwatcher_fit(n: int, repeats: int) -> Case:
    def build(tiny: bool) -> Contest:
        data = [*samples(TINY if tiny else n).values()]
        run = partial(ours.power_laws, data, ours.WEIGHTWATCHER)
        side = Side(run=run, read=theirs.in_fits)
        return Contest(
            theirs=Side(run=partial(theirs.power_laws, data), read=theirs.in_fits),
            ours=(Ours(side=side, at_least=20, tolerance=EXACT),),
        )

    return Case(
        name=f"power-law fit, 6 samples, n = {n}",
        against="weightwatcher",
        build=build,
        repeats=repeats,
        meter=cpu_seconds,
    )


def _powerlaw_fit(n: int, repeats: int) -> Case:
    def build(tiny: bool) -> Contest:
        data = [*samples(TINY if tiny else n).values()]
        run = partial(ours.power_laws, data, ours.EVERY_TAIL)
        side = Side(run=run, read=theirs.in_fits)
        return Contest(
            theirs=Side(run=partial(theirs.power_laws_of_powerlaw, data), read=theirs.in_fits),
            ours=(Ours(side=side, at_least=100, tolerance=EXACT),),
        )

    return Case(
        name=f"power-law fit by powerlaw, 6 samples, n = {n}",
        against="powerlaw",
        build=build,
        repeats=repeats,
        meter=cpu_seconds,
    )


def _p_value(sample: str) -> Case:
    def build(tiny: bool) -> Contest:
        data = samples(TINY if tiny else 768)[sample]
        run = partial(ours.p_value_of, data, 5 if tiny else 100)
        return Contest(
            theirs=None, ours=(Ours(side=Side(run=run, read=theirs.in_order), at_most=0.06),)
        )

    return Case(
        name=f"p-value of 100 replicates, n = 768, {sample}",
        against="",
        build=build,
        repeats=9,
        meter=cpu_seconds,
    )


def _bulk_fit(rows: int, columns: int) -> Case:
    def build(tiny: bool) -> Contest:
        shape = (rows // 16, columns // 16) if tiny else (rows, columns)
        matrix = heavy_tailed(*shape, seed=1).double().numpy()
        values = np.linalg.svd(matrix, compute_uv=False)[::-1] ** 2
        side = Side(run=partial(ours.bulk, values, *shape), read=theirs.in_order)
        return Contest(
            theirs=Side(run=partial(theirs.bulk, values, *shape), read=theirs.in_order),
            ours=(Ours(side=side, at_least=200),),
        )

    return Case(
        name=f"Marchenko-Pastur fit, {rows} x {columns}",
        against="weightwatcher",
        build=build,
        repeats=5,
        meter=cpu_seconds,
    )
