"""What layers see: sums against explicit vectors, kinds of layers and batches, nothing left."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tailor.errors import UsageError
from tailor.stages.inputs import collect, watch
from tailor.stages.inputs.vectors import vectors


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def assert_sums(found, X):
    X = X.double()
    assert found.count == len(X)
    torch.testing.assert_close(found.squares, X.square().sum(dim=0))
    if found.gram is not None:
        torch.testing.assert_close(found.gram, X.T @ X)


# ---- sums ---------------------------------------------------------------------------------


def test_sums_over_all_batches():
    model = mlp()
    batches = [normal(5, 4, seed=1), normal(3, 2, 4, seed=2)]
    found = collect(model, batches, gram="3.*")
    X = torch.cat([one.reshape(-1, 4) for one in batches])
    assert list(found) == ["0.weight", "3.weight"]
    assert_sums(found["0.weight"], X)
    assert found["0.weight"].gram is None
    assert_sums(found["3.weight"], model[0](X).relu().detach())
    assert found["3.weight"].gram.dtype == torch.float64


def test_names_gram_patterns_and_skip():
    found = collect(mlp(), [normal(9, 4)], layers=["0.weight"], gram="*")
    assert list(found) == ["0.weight"]
    assert found["0.weight"].gram is not None
    assert list(collect(mlp(), [normal(9, 4)], skip="0.*")) == ["3.weight"]


CONVOLUTIONS = [
    (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
    (nn.Conv2d(2, 4, 3), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(1, 2)), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, 3, padding="same", padding_mode="circular"), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, (2, 4), padding="same"), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, 3, padding="valid"), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 5, 6)),
    (nn.Conv3d(2, 3, 2, padding=1), (1, 2, 3, 4, 3)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS)
def test_a_convolution_is_its_matrix_times_what_it_sees(layer, shape):
    x = normal(*shape)
    X = torch.cat(list(vectors(layer, x)))
    out = X @ layer.weight.detach().double().flatten(1).T + layer.bias.detach().double()
    expected = layer(x).detach().double()
    expected = expected if expected.ndim == len(layer.kernel_size) + 2 else expected[None]
    torch.testing.assert_close(out, expected.movedim(1, -1).flatten(0, -2), rtol=1e-5, atol=1e-5)
    assert_sums(collect(nn.Sequential(layer), [x], gram="*")["0.weight"], X)


def test_pieces_do_not_matter(monkeypatch):
    layer, x = nn.Conv2d(2, 4, 3), normal(7, 2, 5, 5)
    whole = collect(layer, [x], gram="*")["weight"]
    linear = collect(mlp(), [normal(50, 4)], gram="*")["0.weight"]
    monkeypatch.setattr("tailor.stages.inputs.vectors.CHUNK", 100)
    assert len(list(vectors(layer, x))) == 7
    pieces = collect(layer, [x], gram="*")["weight"]
    torch.testing.assert_close(pieces.gram, whole.gram)
    again = collect(mlp(), [normal(50, 4)], gram="*")["0.weight"]
    torch.testing.assert_close(again.gram, linear.gram)
    assert pieces.count == whole.count
    assert again.count == 50


class Conv1D(nn.Module):
    """As in transformers: a linear layer that keeps its weight as inputs by outputs."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(normal(nx, nf))

    def forward(self, x):
        return x @ self.weight


def test_a_turned_linear_layer():
    x = normal(9, 5)
    found = collect(nn.Sequential(Conv1D(3, 5)), [x], gram="*")["0.weight"]
    assert_sums(found, x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.first = nn.Linear(4, 4, bias=False)
        self.again = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 7, bias=False)
        self.again.weight = self.first.weight
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.again(self.first(self.embedding(tokens)).relu()))


def test_tied_weights_see_what_all_their_modules_see():
    model, tokens = Tied(), torch.arange(7)[None]
    found = collect(model, [tokens], gram="*")
    assert list(found) == ["again.weight", "embedding.weight"]
    one = model.embedding(tokens)[0].detach()
    two = model.first(one).relu().detach()
    assert_sums(found["again.weight"], torch.cat([one, two]))
    assert_sums(found["embedding.weight"], model.again(two).detach())


class Attention(nn.Module):
    """Three layers get one tensor; the fourth gets it after it was changed in place."""

    def __init__(self, inplace=False):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4, bias=False) for _ in range(4))
        self.inplace = inplace

    def forward(self, x):
        x = x.clone()
        q, k = self.q(x), self.k(x)
        if self.inplace:
            x.mul_(2)
        out = q + k + self.v(x)
        return self.o(out)


def test_layers_with_the_same_inputs_share_their_sums():
    found = collect(Attention(), [normal(5, 4, seed=i) for i in range(3)], gram="*")
    assert found["q.weight"].gram is found["k.weight"].gram is found["v.weight"].gram
    assert_sums(found["q.weight"], torch.cat([normal(5, 4, seed=i) for i in range(3)]))


def test_inputs_that_change_in_place_are_not_shared():
    found = collect(Attention(inplace=True), [normal(5, 4)], gram="*")
    assert_sums(found["q.weight"], normal(5, 4))
    assert_sums(found["v.weight"], 2 * normal(5, 4))


def test_a_layer_that_gets_the_same_tensor_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) + self.layer(x)

    assert_sums(collect(Twice(), [normal(5, 4)])["layer.weight"], normal(5, 4).repeat(2, 1))


def test_layers_that_share_at_times():
    class Sometimes(Attention):
        def forward(self, x):
            return self.q(x), self.k(x if x[0, 0] > 0 else -2 * x), self.v(x), self.o(x)

    batches = [normal(5, 4, seed=i) for i in range(6)]
    assert len({bool(x[0, 0] > 0) for x in batches}) == 2
    found = collect(Sometimes(), batches, gram="*")
    assert_sums(found["q.weight"], torch.cat(batches))
    assert_sums(found["k.weight"], torch.cat([x if x[0, 0] > 0 else -2 * x for x in batches]))
    assert_sums(found["o.weight"], torch.cat(batches))


def test_encoders_of_torch_do_not_hide_their_linear_layers():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = collect(layer, [normal(2, 5, 8)])
    assert list(found) == ["linear1.weight", "linear2.weight"]  # attention calls no module
    assert found["linear1.weight"].count == 10


# ---- batches ------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, *, x, scale=1.0):
        return self.layer(input=x * scale)


X = normal(6, 4)
FORMS = [
    (mlp, X),
    (mlp, (X, torch.zeros(6))),
    (mlp, [X, torch.zeros(6)]),
    (Named, {"x": X}),
    (Named, {"x": X / 2, "scale": 2.0}),
    (Named, ({"x": X}, torch.zeros(6))),
]


@pytest.mark.parametrize(("build", "batch"), FORMS)
def test_forms_of_batches(build, batch):
    (found, *_) = collect(build(), [batch]).values()
    assert_sums(found, X)


def test_another_form_with_run():
    def run(model, batch):
        model(batch["images"][0])

    found = collect(mlp(), [{"images": [X]}], run=run)
    assert_sums(found["0.weight"], X)


def test_a_loader_and_a_generator():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, X), batch_size=4)
    assert_sums(collect(mlp(), loader)["0.weight"], X)
    assert_sums(collect(mlp(), (x for x in X.split(2)))["0.weight"], X)


@pytest.mark.parametrize("batches", [X, {"x": X}, "data"])
def test_what_is_no_sequence_of_batches(batches):
    with pytest.raises(UsageError, match=f"has to be batches, but is a {type(batches).__name__}"):
        collect(mlp(), batches)


@pytest.mark.parametrize("batch", ["text", 3, (), ("text", X), None])
def test_what_is_no_batch(batch):
    with pytest.raises(UsageError, match=r"batch 2 is a .*, but a tensor, a mapping or a tuple"):
        collect(mlp(), [X, batch])


def test_no_batch():
    with pytest.raises(UsageError, match="data is empty"):
        collect(mlp(), [])


# ---- refusals -----------------------------------------------------------------------------


def test_a_layer_that_is_never_called():
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(4, 2)})
    with pytest.raises(
        UsageError, match=r"no data reached idle.weight; .* skip=\('idle.weight',\)"
    ):
        collect(model, [X], run=lambda model, x: model["used"](x))
    with pytest.raises(UsageError, match=r"no data reached 0\.weight, 3\.weight"):
        collect(mlp(), [X[:0]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite(value):
    bad = X.clone()
    bad[1, :2] = value
    with pytest.raises(UsageError, match=r"2 of 24 inputs of 0\.weight are NaN or infinite"):
        collect(mlp(), [X, bad])
    model = mlp()
    model[0].weight.data[0] = value
    with pytest.raises(UsageError, match=r"inputs of 3\.weight are NaN or infinite"):
        collect(model, [X.abs()])


def test_layers_whose_inputs_cannot_be_seen():
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 2, 3))
    with pytest.raises(UsageError, match=r"none of the layers can be seen.*1\.weight \(transposed"):
        collect(grouped, [normal(1, 4, 5, 5)])
    assert list(collect(Tied(), [torch.arange(7)], skip="emb*")) == ["again.weight"]


def test_complex_inputs():
    model = nn.Linear(4, 2)
    with pytest.raises(UsageError, match=r"inputs of weight are torch\.complex64"):
        collect(model, [X.to(torch.complex64)])


def test_few_vectors_are_warned_of():
    with pytest.warns(
        UserWarning, match=r"0\.weight, 3\.weight: fewer vectors than inputs \(3 and 4"
    ):
        collect(mlp(), [X[:3]], gram="*")
    collect(mlp(), [X[:3]])  # norms need no more


# ---- nothing is left behind ---------------------------------------------------------------


def state_of(model):
    modules = [
        (m.training, len(m._forward_pre_hooks), len(m._forward_pre_hooks_with_kwargs))
        for m in model.modules()
    ]
    return modules, torch.random.get_rng_state().tolist(), torch.is_grad_enabled()


class Random(nn.Module):
    """Draws random numbers, notes how it is run, and may fail."""

    def __init__(self, fails=False):
        super().__init__()
        self.layer, self.norm, self.fails = nn.Linear(4, 4), nn.BatchNorm1d(4), fails

    def forward(self, x):
        self.seen = (self.training, torch.is_grad_enabled())
        out = self.norm(self.layer(x + torch.rand(())))
        if self.fails:
            raise RuntimeError("no")
        return out


def test_modes_hooks_and_random_state_come_back():
    model = Random()
    model.norm.eval()
    before, mean = state_of(model), model.norm.running_mean.clone()
    collect(model, [X])
    assert model.seen == (False, False)
    assert state_of(model) == before
    assert torch.equal(model.norm.running_mean, mean)
    model.fails = True
    with pytest.raises(RuntimeError, match="no"):
        collect(model, [X])
    assert state_of(model) == before


def test_a_compiled_model_is_run_as_it_is():
    class OptimizedModule(nn.Module):
        """As torch.compile wraps a model."""

        def __init__(self, model):
            super().__init__()
            self._orig_mod = model

    found = collect(OptimizedModule(mlp()), [X])
    assert list(found) == ["0.weight", "3.weight"]
    assert_sums(found["0.weight"], X)


def test_watching_while_others_call_the_model():
    model = mlp().eval()
    with watch(model, gram="*") as seen:
        assert seen.names == ("0.weight", "3.weight")
        assert seen.inputs() == {}
        with torch.inference_mode():
            model(X)
        functional.linear(X, model[0].weight)  # calls no module
    model(X)
    assert_sums(seen.inputs()["0.weight"], X)
