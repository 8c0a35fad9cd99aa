"""A recipe is a value: it is read back from JSON as it was, and refuses what is none."""

import json

import pytest
import torch

from tailor.errors import RecordError, UsageError
from tailor.numerics.powerlaw import HillMid, XminPeak
from tailor.stages.allocate import AlphaPruning, FixedAllocation, GlobalMagnitude, Sensitivity
from tailor.stages.compress import (
    Factorize,
    KMeans,
    Prune,
    Quantize,
    Recipe,
    Rescale,
    Retrain,
    Shortest,
    Shrink,
    Uniform,
    brief,
)
from tailor.stages.compress.recipe import KINDS
from tailor.stages.scores import Magnitude, NofM, Score, Scored, Wanda
from tailor.stages.shrink import ColumnNorm

RECIPES = [
    [Prune(0.9)],
    [Prune(0.8, allocation=AlphaPruning(eps=0.3, fit=XminPeak()), score=Wanda(), rounds=3)],
    [Prune(None, pattern=NofM(n=1, m=2), layers=("a*", "b"), skip="c")],
    [Prune(0.5, allocation=FixedAllocation(ratios={"a": 0.25}))],
    [Prune(0.5, allocation=AlphaPruning(alphas={"a": 2.0, "b": 3.5}, fit=HillMid()))],
    [Shrink(0.5, importance=ColumnNorm(), compensate="mean", align=8), Retrain(), Rescale()],
    [Factorize(rank=4), Factorize(energy=0.9), Quantize(KMeans(levels=16), retrain=False)],
    [Quantize(), Quantize(Uniform(top=2, unit_step=True)), Quantize(Shortest(bits=4))],
]


@pytest.mark.parametrize("steps", RECIPES, ids=str)
def test_json_gives_the_same_recipe(steps):
    recipe = Recipe(steps)
    text = json.dumps(recipe.to_json(), allow_nan=False)
    assert Recipe.from_json(json.loads(text)) == recipe
    assert recipe.written() == json.dumps(recipe.to_json(), separators=(",", ":"))


def test_every_kind_of_method_is_known_by_one_name():
    for kinds in KINDS.values():
        names = [kind.__name__ for kind in kinds]
        assert len(set(names)) == len(names)


def test_only_what_differs_from_the_defaults_is_said():
    assert Recipe([Prune(0.5)]).to_json() == [{"type": "Prune", "sparsity": 0.5}]
    assert brief(Prune(0.5, allocation=GlobalMagnitude(relative=True))) == (
        "Prune(sparsity=0.5, allocation=GlobalMagnitude(relative=True))"
    )
    assert str(Recipe([Prune(0.5), Rescale()])) == "Prune(sparsity=0.5), then Rescale()"


class Own(Score):
    def prune(self, matrix, drop, *, inputs=None, pattern=None):
        raise NotImplementedError


def test_what_is_the_users_own_cannot_be_written_but_is_named():
    recipe = Recipe([Prune(0.5, score=Own())])
    with pytest.raises(UsageError, match=r"Prune.score is of your own type Own"):
        recipe.to_json()
    assert recipe.written() == str(recipe)
    with pytest.raises(UsageError, match="your own type Scored"):
        Recipe([Prune(0.5, score=Scored(torch.abs))]).to_json()
    with pytest.raises(UsageError, match="your own type Sensitivity"):
        Recipe([Prune(0.5, allocation=Sensitivity(evaluate=lambda m: 0.0))]).to_json()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "needs a step"),
        ([Magnitude()], "is no step of a recipe; take Prune, Shrink"),
        (["prune"], "'prune' is no step"),
    ],
)
def test_what_is_no_recipe(steps, message):
    made = object.__new__(Recipe)  # users have no check of types before it
    object.__setattr__(made, "steps", steps)
    with pytest.raises(UsageError, match=message):
        made.__post_init__()


def test_rounds():
    with pytest.raises(UsageError, match="rounds must be at least 1, but is 0"):
        Prune(0.5, rounds=0)
    with pytest.raises(UsageError, match="rounds need a sparsity"):
        Prune(pattern=NofM(n=2, m=4), rounds=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "must be a list"),
        ([3], "step 1 must be one of Prune, Shrink"),
        ([{"type": "eval"}], "step 1 must be one of"),
        ([{"type": "Prune", "sparsity": 0.5}, {"type": "Prune", "spars": 1}], "no field 'spars'"),
        ([{"type": "Prune", "sparsity": "0.5"}], "step 1.sparsity must be"),
        ([{"type": "Prune", "sparsity": 0.5, "score": {"type": "OWL"}}], "score must be one of"),
        ([{"type": "Prune", "rounds": 0}], "step 1 cannot be: rounds must be at least 1"),
        ([{"type": "Shrink"}], "step 1 cannot be"),
    ],
)
def test_what_is_no_recipe_in_json(value, message):
    with pytest.raises(RecordError, match=message):
        Recipe.from_json(value)
