"""Whole analyses of models: weights in memory in, a table out."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas
from torch import Tensor

from benchmarks.analyze import ours, theirs
from benchmarks.analyze.case import Case, Contest, Ours, Side, cpu_seconds
from benchmarks.analyze.data import gpt2_like, heavy_tailed, module, resnet
from tailor.stages.analyze import MarchenkoPastur, Measure, Shuffled

State = dict[str, Tensor]

DEPTHS = (20, 32, 44, 56)
SINGLE = 1e-4  # relative tolerance of what float32 finds


def cases(resnets: Path | None) -> list[Case]:
    """All of them; ``resnets`` is the folder with pretrained weights."""
    found = [_default(f"ResNet-{depth}", partial(_resnet, depth, resnets)) for depth in DEPTHS]
    found.append(_in_both_precisions("48 matrices like GPT-2 small", _gpt2, (3.5, 5), 3))
    for rows in (4096, 11008):
        build = partial(_one_matrix, rows)
        found.append(_in_both_precisions(f"one {rows} x 4096 matrix", build, (4, 8), 2))
    bulk, shuffled = MarchenkoPastur(), Shuffled()
    state = partial(_resnet, 20, resnets)
    found.append(_option("ResNet-20, mp_fit", state, {"mp_fit": True}, (bulk,), theirs.BULK))
    found.append(_option("ResNet-20, randomize", state, {"randomize": True}, (shuffled,), ()))
    found.append(_everything(state))
    return found


def _resnet(depth: int, folder: Path | None, tiny: bool) -> State:
    if tiny:
        return {"conv.weight": heavy_tailed(12, 72, seed=1).reshape(12, 8, 3, 3)}
    return resnet(depth, folder)


def _gpt2(tiny: bool) -> State:
    return gpt2_like(blocks=1, shrink=12) if tiny else gpt2_like()


def _one_matrix(rows: int, tiny: bool) -> State:
    shape = (rows // 32, 128) if tiny else (rows, 4096)
    return {"layer.weight": heavy_tailed(*shape, seed=2)}


def _default(name: str, state: Callable[[bool], State]) -> Case:
    def build(tiny: bool) -> Contest:
        weights = state(tiny)
        own = _side((), partial(ours.own_analysis, weights))
        same = _side(theirs.COLUMNS, partial(ours.analyze, weights))
        return Contest(
            theirs=_their_side(weights),
            ours=(
                Ours(side=own, label="each in its own way", at_least=8),
                Ours(side=same, label="the same numbers", at_least=8),
            ),
        )

    return _case(f"{name}, default analysis", build, repeats=9)


def _in_both_precisions(
    name: str, state: Callable[[bool], State], goals: tuple[float, float], repeats: int
) -> Case:
    def build(tiny: bool) -> Contest:
        weights = state(tiny)
        double = _side(theirs.COLUMNS, partial(ours.analyze, weights))
        single = _side(ours.TOLD, partial(ours.analyze, weights, precision="float32"))
        return Contest(
            theirs=_their_side(weights),
            ours=(
                Ours(side=double, label="float64", at_least=goals[0]),
                Ours(side=single, label="float32", at_least=goals[1], tolerance=SINGLE),
            ),
        )

    return _case(name, build, repeats)


def _option(
    name: str,
    state: Callable[[bool], State],
    option: dict[str, bool],
    measures: tuple[Measure, ...],
    more: Sequence[str],
) -> Case:
    def build(tiny: bool) -> Contest:
        weights, columns = state(tiny), (*theirs.COLUMNS, *more)
        side = _side(columns, partial(ours.analyze, weights, measures=measures))
        return Contest(
            theirs=_their_side(weights, columns, **option), ours=(Ours(side=side, at_least=200),)
        )

    return _case(name, build, repeats=3)


def _everything(state: Callable[[bool], State]) -> Case:
    def build(tiny: bool) -> Contest:
        weights = state(tiny)
        options = dict.fromkeys(("plot", "mp_fit", "randomize", "detX"), True)
        run = partial(theirs.analyze, module(weights), **options)
        columns = (*theirs.COLUMNS, *theirs.BULK)
        side = _side(columns, _in_a_folder(partial(ours.with_report, weights)))
        return Contest(
            theirs=_side(columns, _in_a_folder(lambda folder: run(savefig=str(folder)))),
            ours=(Ours(side=side, at_least=30),),
        )

    return _case("ResNet-20, every measure and drawing", build, repeats=1)


def _their_side(weights: State, columns: Sequence[str] = theirs.COLUMNS, **options: bool) -> Side:
    return _side(columns, partial(theirs.analyze, module(weights), **options))


def _side(columns: Sequence[str], run: Callable[[], pandas.DataFrame]) -> Side:
    return Side(run=run, read=partial(theirs.in_table, columns))


def _in_a_folder(write: Callable[[Path], pandas.DataFrame]) -> Callable[[], pandas.DataFrame]:
    """What writes files does so in a folder that is then thrown away."""

    def run() -> pandas.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            return write(Path(folder))

    return run


def _case(name: str, build: Callable[[bool], Contest], repeats: int) -> Case:
    return Case(name=name, against="weightwatcher", build=build, repeats=repeats, meter=cpu_seconds)
