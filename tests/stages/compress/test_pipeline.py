"""Recipes followed on a network: what is kept, what is reported, what is refused."""

import copy
import json

import pytest
import torch
from torch import nn

from tailor import records
from tailor.errors import NonFinite, RecordError, UsageError
from tailor.stages.allocate import FixedAllocation, GlobalMagnitude, UniformAllocation
from tailor.stages.compress import (
    Adaptive,
    CompressedModel,
    CompressionReport,
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
    UniformStep,
    compress,
)
from tailor.stages.scores import NofM, Wanda


def mlp(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 24, bias=bias), nn.ReLU(), nn.Linear(24, 24, bias=bias), nn.ReLU(),
        nn.Linear(24, 4, bias=bias),
    )  # fmt: skip


X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


def fit(model):
    """Training that would move zeros and rounded weights, too."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def accuracy(model):
    with torch.no_grad():
        return float((model(X).argmax(1) == Y).double().mean())


def test_the_model_the_file_and_the_report_agree():
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    made = compress(model, [Prune(0.5), Quantize(UniformStep(tolerance=0.01))], evaluate=accuracy)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    back = made.file.into(mlp)
    assert all(torch.equal(back.state_dict()[k], v) for k, v in made.model.state_dict().items())
    report = made.report
    assert report.file_bytes == len(made.file.payload)
    assert report.stream_bytes == len(made.file.stream)
    assert report.quality_before == accuracy(model)
    assert report.quality_after == accuracy(back)
    assert report.parameters == (sum(p.numel() for p in model.parameters()),) * 2
    assert report.dense_bytes == 4 * report.parameters[0]
    for row in report.tensors:
        old, new = before[row.name].double(), made.model.state_dict()[row.name].double()
        assert row.zeros == pytest.approx(float((new == 0).double().mean()))
        assert row.error == pytest.approx(float((new - old).norm() / old.norm()), abs=1e-12)
        assert row.target == (None if old.ndim == 1 else pytest.approx(0.5, abs=0.01))
    kept = [row for row in report.tensors if len(row.shape) == 2]
    for row in kept:  # of the weights as they came, of which 96 are too few
        assert (row.predicted_bits is None) == (row.elements < 100)
    lost = sum((row.error * row.norm) ** 2 for row in kept)
    assert report.error == pytest.approx((lost / sum(row.norm**2 for row in kept)) ** 0.5)
    assert report.sparsity >= 0.5
    assert report.limit_bytes == pytest.approx(sum(row.limit_bytes for row in report.tensors))


def test_tolerance_is_kept_after_pruning():
    model = mlp()
    pruned = compress(model, [Prune(0.5)])
    rounded = compress(model, [Prune(0.5), Quantize(Shortest(tolerance=0.01))])
    for name, w in pruned.model.state_dict().items():
        if w.ndim == 2:
            lost = (rounded.model.state_dict()[name] - w).double().norm() / w.double().norm()
            assert float(lost) ** 2 <= 0.01
            assert bool((rounded.model.state_dict()[name][w == 0] == 0).all())


def test_it_is_saved_whole_and_read_back(tmp_path):
    made = compress(mlp(), [Quantize(KMeans(levels=4))], about={"who": "me"})
    folder = made.save(tmp_path / "run")
    assert sorted(one.name for one in folder.iterdir()) == ["compressed.json", "model.tailor"]
    assert records.load(CompressionReport, folder / "compressed.json") == made.report
    file = CompressedModel.load(folder / "model.tailor")
    assert file == made.file
    assert file.about == {"who": "me"}


def test_the_file_says_its_recipe():
    recipe = Recipe([Prune(0.5), Quantize(KMeans(levels=4))])
    file = compress(mlp(), recipe).file
    assert Recipe.from_json(json.loads(file.about["recipe"])) == recipe
    with pytest.raises(RecordError, match="list of steps"):
        Recipe.from_json(json.loads('{"a": 1}'))


def test_retraining_keeps_zeros_and_rounded_weights():
    seen = []

    def watched(model):
        zeros = {n: p.detach() == 0 for n, p in model.state_dict().items() if "weight" in n}
        seen.append(sum(int(z.sum()) for z in zeros.values()))
        fit(model)

    made = compress(mlp(), [Prune(0.8, rounds=2), Quantize(Uniform(top=3))], retrain=watched)
    assert len(seen) == 2 + 3  # a round each, and three before all weights are rounded
    assert made.report.sparsity >= 0.8
    for row in made.report.tensors:
        if len(row.shape) == 2:
            assert row.levels <= 7
    moved = made.model.state_dict()["4.bias"], mlp().state_dict()["4.bias"]
    assert not torch.equal(*moved)


def test_rounds_go_down_geometrically():
    shares = []

    def watched(model):
        every = torch.cat([m.weight.flatten() for m in model if isinstance(m, nn.Linear)])
        shares.append(float((every == 0).double().mean()))

    compress(mlp(), [Prune(0.875, rounds=3)], retrain=watched)
    assert shares == pytest.approx([0.5, 0.75, 0.875], abs=2e-3)


def test_rescaled_networks_decide_as_before():
    model = mlp(bias=False)
    made = compress(model, [Rescale(), Quantize(Uniform(top=2000))], coder=Adaptive())
    with torch.no_grad():
        assert torch.allclose(made.model(X), model(X), atol=1e-2)
        norms = made.model[0].weight.square().mean(1)
    assert torch.allclose(norms, torch.ones(24), atol=1e-2)
    assert isinstance(made.file.coder, Adaptive)


def test_units_are_removed_and_the_rest_computes_the_same():
    model = mlp()
    with torch.no_grad():
        model[0].weight[5:] = 0
        model[0].bias[5:] = 0
    made = compress(model, [Shrink(0.0)], example=X, evaluate=accuracy)
    assert made.model[0].out_features == 5
    with torch.no_grad():
        assert torch.allclose(made.model(X), model(X), atol=1e-5)
    back = made.file.into(mlp)
    assert [layer.out_features for layer in back[::2]] == [5, 24, 4]
    with torch.no_grad():
        assert torch.equal(back(X), made.model(X))
    assert set(made.file.sizes) == {"0", "2"}
    assert made.report.parameters[1] < made.report.parameters[0]
    assert made.report.error is None
    assert made.report.latency.batch == (64, 8)
    assert made.report.notes == ()


def test_low_rank_is_in_the_file():
    made = compress(mlp(), [Factorize(rank=3), Quantize(KMeans(levels=8))], data=[X])
    assert isinstance(made.model[2], nn.Sequential)
    assert made.report.parameters[1] < made.report.parameters[0]
    assert set(made.file.state_dict()) == set(made.model.state_dict())


def test_the_uniform_allocation_stands_beside_any_other():
    recipe = [Prune(0.6, allocation=GlobalMagnitude()), Quantize(KMeans(levels=8))]
    made = compress(mlp(), recipe, evaluate=accuracy)
    plain = compress(
        mlp(), [Prune(0.6, allocation=UniformAllocation()), Quantize(KMeans(levels=8))],
        evaluate=accuracy,
    )  # fmt: skip
    even = made.report.uniform
    assert even.error == plain.report.error
    assert even.quality == plain.report.quality_after
    assert plain.report.uniform is None
    assert compress(mlp(), recipe, beside=False).report.uniform is None
    fixed = Prune(None, allocation=FixedAllocation(ratios={"0.weight": 0.5}), layers="0.weight")
    assert compress(mlp(), [fixed]).report.uniform is None


def test_a_pattern_and_a_score_that_looks_at_data():
    made = compress(mlp(), [Prune(pattern=NofM(n=2, m=4), score=Wanda())], data=[X])
    groups = made.model[2].weight.reshape(-1, 4) != 0
    assert bool((groups.sum(1) == 2).all())
    assert made.report.tensors[0].output_error > 0
    assert made.report.notes[0].startswith("Zeros alone speed nothing up")


def test_steps_are_told():
    told = []
    recipe = [Prune(0.5), Quantize(KMeans(levels=4))]
    compress(mlp(), recipe, watch=lambda *one: told.append(one))
    assert told == [("prune", 0, 2), ("quantize", 1, 2)]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([Shrink(0.5)], "give compress an example"),
        ([Retrain()], "give compress a retrain function"),
        ([Prune(0.5, score=Wanda())], "data"),
        ([Prune(1.0)], "sparsity"),
        ([Prune(float("nan"))], "sparsity"),
        ([Prune(0.5, layers="nothing")], "nothing"),
    ],
    ids=str,
)
def test_what_is_missing_is_said(recipe, message):
    with pytest.raises(UsageError, match=message):
        compress(mlp(), recipe)


def test_nan_is_refused_and_named():
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    for recipe in ([Prune(0.5)], [Quantize()]):
        with pytest.raises(NonFinite, match=r"2\.weight"):
            compress(model, recipe)
