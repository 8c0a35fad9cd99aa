"""Networks with zeros: exact numbers, untouched survivors, a true report, and all refusals."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from tailor.errors import NonFinite, UsageError
from tailor.stages.allocate import Allocated, Allocation, FixedAllocation, GlobalMagnitude
from tailor.stages.inputs import collect
from tailor.stages.prune import prune, prune_layers
from tailor.stages.scores import Magnitude, NofM, Scored, SparseGPT, Wanda
from tailor.weights.source import read
from tests.stages.prune.networks import LINEAR, Conv1D, Tied, convolutional, mlp, normal

DATA = [normal(40, 8, seed=1), normal(20, 8, seed=2)]
SCORES = [Magnitude(), Wanda(), SparseGPT(), Scored(lambda matrix: matrix.square())]


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_state(model, before):
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- what goes and what stays -------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@settings(max_examples=15)
@given(sparsity=st.floats(0, 0.95))
def test_exactly_the_asked_share_goes(score, sparsity):
    model = mlp()
    found = prune(model, sparsity, score=score, data=DATA)
    new, old = dict(found.model.named_parameters()), dict(model.named_parameters())
    total = round(sparsity * (96 + 48))
    assert sum(row.zeros for row in found.report) == total
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == total
    assert found.sparsity == found.masks.sparsity == found.allocated.sparsity
    for row in found.report:
        keep = found.masks[row.name]
        assert (new[row.name][~keep] == 0).all()
        assert row.zeros == int((new[row.name] == 0).sum())
        if not isinstance(score, SparseGPT):
            assert torch.equal(new[row.name][keep], old[row.name][keep])
    assert torch.equal(new["0.bias"], old["0.bias"])


def test_the_model_that_came_is_not_changed_unless_asked():
    model = mlp()
    model.train()
    model[2].eval().requires_grad_(False)
    before = state(model)
    found = prune(model, 0.5)
    assert_state(model, before)
    assert found.model is not model
    assert [m.training for m in found.model] == [True, True, False]
    assert not found.model[2].weight.requires_grad
    same = prune(model, 0.5, inplace=True)
    assert same.model is model
    assert_state(model, found.model.state_dict())


@pytest.mark.parametrize("score", SCORES)
def test_no_sparsity_is_a_copy_and_needs_no_data(score):
    model = mlp()
    found = prune(model, 0, score=score)
    assert_state(found.model, state(model))
    assert found.model is not model
    assert all(mask.all() for mask in found.masks.values())
    assert [row.error for row in found.report] == [0, 0]


def test_the_allocation_says_how_many():
    model = mlp()
    found = prune(model, 0.5, allocation=GlobalMagnitude())
    every = torch.cat([model[0].weight.flatten(), model[2].weight.flatten()]).abs()
    threshold = every.sort().values[72]
    assert torch.equal(found.masks["0.weight"], model[0].weight.abs() >= threshold)
    fixed = prune(model, allocation=FixedAllocation(ratios={"2.weight": 0.25}))
    assert [row.zeros for row in fixed.report] == [0, 12]
    again = prune(model, allocation=fixed.allocated)
    assert [row.zeros for row in again.report] == [0, 12]
    by_row = Allocated(
        method="rows", drop={"0.weight": (3,) * 12, "2.weight": 5}, sizes=found.allocated.sizes
    )
    rows = prune(model, allocation=by_row)
    assert (~rows.masks["0.weight"]).sum(dim=1).tolist() == [3] * 12
    assert rows.report[0].target == 36 / 96


def test_zeros_that_are_there_count():
    model = prune(mlp(), 0.3).model
    again = prune(model, 0.3)
    assert_state(again.model, state(model))
    assert prune(model, 0.6).sparsity == pytest.approx(0.6, abs=1 / 144)


def test_layers_and_skip():
    found = prune(mlp(), 0.5, layers="0.*")
    assert list(found.masks) == ["0.weight"]
    assert found.skipped["2.weight"] == "not selected"
    assert found.skipped["0.bias"] == "vector"
    assert list(prune(mlp(), 0.5, skip="0.*").masks) == ["2.weight"]


def test_convolutions_count_as_matrices():
    model = convolutional()
    found = prune(model, 0.5, score=Scored(lambda matrix: matrix.abs()))
    assert [row.shape for row in found.report] == [(4, 2, 3, 3), (4, 3, 2, 2), (4, 75)]
    assert [row.zeros for row in found.report] == [36, 24, 150]
    W = model[0].weight.detach()
    kept = found.model[0].weight.detach()
    assert torch.equal(kept.flatten(1), Magnitude().prune(W.flatten(1), 36).matrix)
    assert found.masks["0.weight"].shape == W.shape


def test_transposed_weights_have_their_outputs_on_the_second_axis():
    shapes = []

    def score(matrix):
        shapes.append(tuple(matrix.shape))
        return torch.arange(matrix.numel()).reshape(matrix.shape)  # the first outputs go first

    model = convolutional()
    found = prune(model, 0.5, score=Scored(score), layers="3.weight")
    assert shapes == [(3, 16)]
    assert (found.masks["3.weight"].transpose(0, 1).flatten() == (torch.arange(48) >= 24)).all()
    turned = nn.Sequential(Conv1D(3, 8))
    again = prune(turned, 0.5, score=Scored(score))
    assert shapes[1:] == [(3, 8)]
    assert (again.masks["0.weight"].T.flatten() == (torch.arange(24) >= 12)).all()
    assert torch.equal(again.model[0].weight != 0, again.masks["0.weight"])


@pytest.mark.parametrize("score", [Wanda(), SparseGPT()])
def test_a_turned_linear_layer_is_pruned_as_the_plain_one(score):
    turned, plain = nn.Sequential(Conv1D(3, 8)), nn.Sequential(nn.Linear(8, 3, bias=False))
    plain[0].weight.data = turned[0].weight.detach().T.contiguous()
    one = prune(turned, 0.5, score=score, data=DATA)
    other = prune(plain, 0.5, score=score, data=DATA)
    torch.testing.assert_close(one.model[0].weight.T, other.model[0].weight)
    assert one.report[0].output_error == pytest.approx(other.report[0].output_error)


def test_tied_weights_are_pruned_once():
    model = Tied()
    found = prune(model, 0.5)
    assert found.model.head.weight is found.model.embedding.weight
    assert list(found.masks) == ["embedding.weight", "layer.weight"]
    assert found.report[0].aliases == ("head.weight",)
    assert found.report[0].zeros == 16
    wanda = prune(model, 0.5, score=Wanda(), data=[torch.arange(8)])
    assert wanda.report[0].zeros == 16


def test_patterns():
    found = prune(mlp(), pattern=NofM(n=2, m=4), score=Wanda(), data=DATA)
    assert found.sparsity == found.allocated.sparsity == 0.5
    assert all((mask.reshape(-1, 4).sum(dim=1) == 2).all() for mask in found.masks.values())
    assert prune(mlp(), 0.75, pattern=NofM(n=1, m=4)).report[0].target == 0.75


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("score", [Magnitude(), Wanda(), SparseGPT()])
def test_other_types(dtype, score):
    model = mlp().to(dtype)
    inputs = collect(mlp(), DATA, gram="*")
    found = prune(model, 0.5, score=score, inputs=inputs)
    assert found.model[0].weight.dtype == dtype
    assert found.sparsity == 0.5


def test_odd_tensors_are_skipped_or_handled():
    model = nn.Module()
    model.zero = nn.Parameter(torch.zeros(3, 4))
    model.constant = nn.Parameter(torch.ones(3, 4))
    model.turned = nn.Parameter(normal(4, 3).T)
    model.image = nn.Parameter(normal(3, 2, 3, 3).contiguous(memory_format=torch.channels_last))
    model.empty = nn.Parameter(torch.zeros(0, 4))
    model.complex = nn.Parameter(torch.ones(3, 4, dtype=torch.complex64))
    model.scale = nn.Parameter(torch.ones(()))
    model.meta = nn.Parameter(torch.ones(3, 4, device="meta"))
    model.register_buffer("whole", torch.ones(3, 4, dtype=torch.int64))
    model.register_buffer("table", normal(3, 4))
    found = prune(model, 0.5)
    assert set(found.masks) == {"zero", "constant", "turned", "image"}
    assert found.sparsity > 0.5  # the matrix of zeros had more
    assert int((found.model.constant == 0).sum()) == 6
    assert int((found.model.image == 0).sum()) == 27
    assert found.model.image.is_contiguous(memory_format=torch.channels_last)
    assert found.skipped["table"] == "a buffer, not a weight"
    assert found.skipped["empty"] == "empty"
    assert found.skipped["scale"] == "scalar"
    assert found.skipped["complex"] == "not floating point (complex64)"
    assert "int64" in found.skipped["whole"]
    assert "meta" in found.skipped["meta"]
    assert torch.equal(found.model.table, model.table)


# ---- the report ---------------------------------------------------------------------------


def test_errors_of_weights_and_outputs():
    model = mlp()
    inputs = collect(model, DATA, gram="*")
    found = prune(model, 0.5, score=SparseGPT(), inputs=inputs)
    seen = {"0.weight": torch.cat(DATA).double()}
    seen["2.weight"] = model[0](torch.cat(DATA)).relu().detach().double()
    for row, place in zip(found.report, (0, 2), strict=True):
        old = model[place].weight.detach().double()
        D = old - found.model[place].weight.detach().double()
        X = seen[row.name].T
        assert row.error == pytest.approx(float(D.norm() / old.norm()))
        assert row.output_error == pytest.approx(float((D @ X).norm() / (old @ X).norm()), rel=1e-4)
        assert row.known == "gram"
        assert row.sparsity == row.target == 0.5


def test_errors_of_outputs_with_norms_alone_take_inputs_as_uncorrelated():
    model = mlp()
    found = prune(model, 0.5, data=DATA)
    X2 = torch.cat(DATA).double().square().sum(dim=0)
    old = model[0].weight.detach().double()
    D = old - found.model[0].weight.detach().double()
    expected = float(((D.square() @ X2).sum() / (old.square() @ X2).sum()).sqrt())
    assert found.report[0].output_error == pytest.approx(expected)
    assert found.report[0].known == "norms"
    plain = prune(model, 0.5).report[0]
    assert (plain.known, plain.output_error) == ("nothing", None)


def test_errors_come_in_pieces(monkeypatch):
    inputs = collect(mlp(), DATA, gram="*")
    whole = prune(mlp(), 0.5, inputs=inputs).report
    monkeypatch.setattr("tailor.stages.prune.error.PIECE", 20)
    for one, other in zip(whole, prune(mlp(), 0.5, inputs=inputs).report, strict=True):
        assert one.error == pytest.approx(other.error)
        assert one.output_error == pytest.approx(other.output_error)


def test_few_vectors_are_noted():
    with pytest.warns(UserWarning, match="fewer vectors than inputs"):
        found = prune(mlp(), 0.5, score=SparseGPT(), data=[normal(5, 8)])
    assert found.report[0].note.startswith("5 vectors for 8 inputs")
    assert prune(mlp(), 0.5, score=SparseGPT(), data=DATA).report[0].note == ""


# ---- weights on disk ----------------------------------------------------------------------


def test_layers_of_a_checkpoint_come_one_by_one(tmp_path):
    model = mlp()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    layers = read(tmp_path / "model.pt").layers
    found = prune(model, 0.5)
    for one in prune_layers(layers, found.allocated, Magnitude()):
        assert torch.equal(one.tensor, found.model.state_dict()[one.layer.name])
        assert torch.equal(one.keep, found.masks[one.layer.name])
        assert one.row == next(row for row in found.report if row.name == one.layer.name)


def test_an_allocation_for_other_layers():
    allocated = prune(mlp(), 0.5, layers="0.*").allocated
    with pytest.raises(UsageError, match=r"the allocation says nothing of 2\.weight"):
        list(prune_layers(read(mlp()).layers, allocated, Magnitude()))


# ---- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, float("nan"), float("inf"), True])
def test_sparsities_out_of_range(sparsity):
    with pytest.raises(UsageError, match=r"sparsity has to be a number in \[0, 1\), but is"):
        prune(mlp(), sparsity)


def test_arguments_that_do_not_go_together():
    model, allocated = mlp(), prune(mlp(), 0.5).allocated
    with pytest.raises(UsageError, match=r"needs a sparsity, such as 0\.5"):
        prune(model)
    with pytest.raises(UsageError, match="already has its own sparsity"):
        prune(model, 0.5, allocation=allocated)
    with pytest.raises(UsageError, match=r"2:4 has sparsity 0\.5, but 0\.6 came"):
        prune(model, 0.6, pattern=NofM(n=2, m=4))
    with pytest.raises(UsageError, match="give data, or inputs that were collected before"):
        prune(model, 0.5, data=DATA, inputs=collect(model, DATA))


def test_a_pattern_that_does_not_fit_names_the_layer():
    with pytest.raises(
        UsageError, match=r"0\.weight has 8 inputs, but .* 1:5 needs a multiple of 5"
    ):
        prune(mlp(), pattern=NofM(n=1, m=5))
    turned = nn.Sequential(Conv1D(3, 8))
    assert prune(turned, pattern=NofM(n=2, m=4)).sparsity == 0.5


@pytest.mark.parametrize("score", [Wanda(), SparseGPT()])
def test_data_that_is_missing(score):
    name = type(score).__name__
    with pytest.raises(UsageError, match=rf"{name} needs the .*of 0\.weight \(linear\); give data"):
        prune(mlp(), 0.5, score=score)
    with pytest.raises(UsageError, match=rf"{name} needs the .*of 0\.weight"):
        prune(mlp(), pattern=NofM(n=2, m=4), score=score)
    inputs = collect(mlp(), DATA, gram="*")
    with pytest.raises(UsageError, match=rf"{name} needs the .*of 2\.weight"):
        prune(mlp(), 0.5, score=score, inputs={"0.weight": inputs["0.weight"]})
    with pytest.raises(UsageError, match="data is empty"):
        prune(mlp(), 0.5, score=score, data=[])


def test_norms_where_a_gram_matrix_is_needed():
    with pytest.raises(UsageError, match=r"needs the Gram matrix of the inputs of 0\.weight"):
        prune(mlp(), 0.5, score=SparseGPT(), inputs=collect(mlp(), DATA))


class NeedsNorms(Allocation):
    """Gives every layer the same, once it knows their inputs."""

    needs = "norms"

    def allocate(self, layers, sparsity, *, score, inputs=None, model=None):
        assert set(inputs) == set(LINEAR)
        drop = {layer.name: round(sparsity * layer.load().numel()) for layer in layers}
        return Allocated(method="same", drop=drop, sizes={"0.weight": 96, "2.weight": 48})


def test_an_allocation_may_need_data_too():
    with pytest.raises(UsageError, match=r"NeedsNorms needs the inputs of 0\.weight"):
        prune(mlp(), 0.5, allocation=NeedsNorms())
    assert prune(mlp(), 0.5, allocation=NeedsNorms(), data=DATA).sparsity == 0.5


def test_layers_whose_inputs_cannot_be_seen():
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    data = [normal(2, 4, 5, 5)]
    with pytest.raises(UsageError, match=r"Wanda needs the inputs of 0\.weight \(conv2d\).*skip="):
        prune(grouped, 0.5, score=Wanda(), data=data)
    assert prune(grouped, 0.5, score=Wanda(), data=data, skip="0.weight").sparsity == 0.5


class Everything(Allocation):
    def allocate(self, layers, sparsity, *, score, inputs=None, model=None):
        return Allocated(
            method="everything",
            drop={"0.weight": 0, "2.weight": 48},
            sizes={"0.weight": 96, "2.weight": 48},
        )


def test_a_layer_that_would_be_emptied():
    model = mlp()
    before = state(model)
    with pytest.raises(
        UsageError, match=r"all 48 weights of 2\.weight, which can lose at most 0\.9"
    ):
        prune(model, 0.3, allocation=Everything(), inplace=True)
    assert_state(model, before)
    model[2].weight.data.zero_()
    assert prune(model, 0.3, allocation=Everything()).report[1].zeros == 48


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    model = mlp()
    model[2].weight.data[0, :3] = value
    before = state(model)["0.weight"]
    with pytest.raises(NonFinite, match=r"2\.weight holds 3 NaN or infinite weights"):
        prune(model, 0.5, inplace=True)
    assert torch.equal(model[0].weight, before)


def test_no_matrix_and_no_module():
    with pytest.raises(UsageError, match=r"no layer fits missing; there are: 0\.weight"):
        prune(mlp(), 0.5, layers="missing")
    with pytest.raises(UsageError, match="no layer fits"):
        prune(mlp(), 0.5, skip="*")
    model = nn.Module()
    model.register_buffer("table", normal(3, 4))
    with pytest.raises(UsageError, match="table are buffers, not weights"):
        prune(model, 0.5)


# ---- weights that are computed ------------------------------------------------------------


def test_pending_masks_are_made_permanent():
    model = mlp()
    torch_prune.random_unstructured(model[0], "weight", 0.25)
    model[0](normal(3, 8))
    mask = model[0].weight_mask.clone()
    with pytest.warns(
        UserWarning, match=r"masks of torch.nn.utils.prune .* permanent in 0\.weight"
    ):
        found = prune(model, 0.5)
    assert torch_prune.is_pruned(model)
    assert not torch_prune.is_pruned(found.model)
    assert isinstance(found.model[0].weight, nn.Parameter)
    assert set(found.model.state_dict()) == set(mlp().state_dict())
    assert not found.masks["0.weight"][mask == 0].any()
    with pytest.warns(UserWarning, match="permanent"):
        prune(model, 0.5, inplace=True)
    assert_state(model, found.model.state_dict())


def test_parametrized_weights():
    model = mlp()
    parametrizations.weight_norm(model[2])
    with pytest.raises(UsageError, match=r"2\.weight comes from a parametrization .*skip="):
        prune(model, 0.5)
    assert list(prune(model, 0.5, skip="2.*").masks) == ["0.weight"]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_hooks_that_compute_weights():
    for wrap, name in ((nn.utils.weight_norm, "WeightNorm"), (nn.utils.spectral_norm, "Spectral")):
        model = mlp()
        wrap(model[2])
        with pytest.raises(UsageError, match=rf"2\.weight_\w+ comes from {name}.*plain parameter"):
            prune(model, 0.5)


def test_a_model_that_cannot_be_copied():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    model = Stubborn(4, 4)
    with pytest.raises(UsageError, match=r"Stubborn cannot be copied \(no copies\); use inplace"):
        prune(model, 0.5)
    assert prune(model, 0.5, inplace=True).model is model


def test_a_copy_of_the_result_is_one():
    found = prune(mlp(), 0.5)
    assert_state(copy.deepcopy(found.model), state(found.model))
