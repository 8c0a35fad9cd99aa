"""Linear layers in sparse rows: the same outputs, and the choice between them and dense ones."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import NonFinite, UsageError
from tailor.stages.sparse import SparseLinear, alternately, densified, speed_note, to_sparse_cpu


def pruned(inputs: int, outputs: int, zeros: float = 0.9, *, bias: bool = True) -> nn.Linear:
    """A linear layer of which exactly that share is zero."""
    made = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        gone = torch.randperm(inputs * outputs)[: round(zeros * inputs * outputs)]
        made.weight.view(-1)[gone] = 0
    return made


@settings(max_examples=40)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(), (0,), (1,), (4,), (2, 3)]),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_outputs_are_those_of_the_dense_layer(inputs, outputs, batch, zeros, bias, seed):
    torch.manual_seed(seed)
    dense = pruned(inputs, outputs, zeros, bias=bias)
    x = torch.randn(*batch, inputs)
    made = SparseLinear.of(dense)
    with torch.inference_mode():
        torch.testing.assert_close(made(x), dense(x))
        assert made(x).is_contiguous()
    assert len(made.values) == int(dense.weight.count_nonzero())
    torch.testing.assert_close(made.csr(check=True).to_dense(), dense.weight.detach())
    back = made.dense()
    assert torch.equal(back.weight, dense.weight)
    assert (back.bias is None) == (not bias)


def test_gradients_pass_through():
    dense = pruned(8, 6)
    x, same = (torch.ones(2, 8, requires_grad=True) for _ in range(2))
    SparseLinear.of(dense)(x).square().sum().backward()
    dense(same).square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad)


def test_it_is_copied_saved_and_loaded():
    torch.manual_seed(0)
    first, second = SparseLinear.of(pruned(8, 6)), SparseLinear.of(pruned(8, 6))
    x = torch.randn(3, 8)
    assert torch.equal(copy.deepcopy(first)(x), first(x))
    assert torch.equal(pickle.loads(pickle.dumps(first))(x), first(x))  # noqa: S301
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(second(x), first(x))
    empty = SparseLinear(8, 6, len(first.values))
    assert not empty(x).any()
    empty.load_state_dict(first.state_dict())
    assert torch.equal(empty(x), first(x))


@pytest.mark.parametrize("column", [8, -1])
def test_indices_that_would_read_foreign_memory_are_refused(column):
    made = SparseLinear.of(pruned(8, 6))
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state["col_indices"][0] = column
    with pytest.raises(UsageError, match="wrong indices of a sparse matrix"):
        made.load_state_dict(state)


class Net(nn.Module):
    """A convolution, and linear layers of several kinds."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.wide = pruned(16, 30, 0.9)
        self.narrow = pruned(30, 10, 0.8)
        self.full = pruned(10, 10, 0.5)
        self.unused = pruned(10, 10, 0.9)
        self.wider = pruned(10, 10, 0.9).double()
        self.dropout = nn.Dropout()

    def forward(self, x):
        hidden = self.conv(x).flatten(1)
        y = self.full(self.narrow(self.wide(input=self.dropout(hidden))))
        return self.wider(y.double())


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def slower_than(times: dict[int, float]):
    """A clock of which the dense time is always 1; the sparse one depends on the outputs."""

    def measure(dense, sparse, repeats):
        torch.testing.assert_close(sparse(), dense())
        return 1.0, times[dense().shape[1]]

    return measure


def test_the_faster_one_is_kept(net):
    x = torch.randn(5, 1, 4, 4)
    found = to_sparse_cpu(net, x, measure=slower_than({30: 0.9, 10: 0.91}))
    assert isinstance(found.model.wide, SparseLinear)
    assert type(found.model.narrow) is nn.Linear
    assert [(row.name, row.chosen) for row in found.report] == [
        ("narrow.weight", "dense"),
        ("wide.weight", "sparse"),
    ]
    wide = found.report[1]
    assert (wide.shape, wide.rows, wide.dense, wide.sparse) == ((30, 16), 5, 1.0, 0.9)
    assert wide.zeros == pytest.approx(0.9)
    said = {one.name: one.reason for one in found.left_alone}
    assert said.pop("conv.weight").startswith("CSR convolutions were slower")
    assert said.pop("full.weight").startswith("50% zeros are too few")
    assert said.pop("unused.weight") == "the example never reached it"
    assert said.pop("wider.weight").startswith("of torch.float64, and only float32")
    assert not said
    torch.testing.assert_close(found.model.eval()(x), net.eval()(x))


def test_the_margin_decides(net):
    x = torch.randn(5, 1, 4, 4)
    found = to_sparse_cpu(net, x, margin=0.0, measure=slower_than({30: 1.0, 10: 1.01}))
    assert [row.chosen for row in found.report] == ["dense", "sparse"]


def test_the_model_its_modes_hooks_and_the_random_state_stay(net):
    net.wide.eval()
    state = torch.get_rng_state()
    found = to_sparse_cpu(
        net, {"x": torch.randn(2, 1, 4, 4)}, measure=slower_than({30: 0.1, 10: 0.1})
    )
    torch.set_rng_state(state)
    torch.randn(2, 1, 4, 4)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    to_sparse_cpu(net, (torch.randn(2, 1, 4, 4),), measure=slower_than({30: 0.1, 10: 0.1}))
    assert torch.equal(torch.get_rng_state(), after)
    assert type(net.wide) is nn.Linear
    for one in (net, found.model):
        modes = {name: part.training for name, part in one.named_modules()}
        assert [name for name, mode in modes.items() if not mode] == ["wide"]
        assert not any(part._forward_pre_hooks for part in one.modules())


def test_a_layer_alone_is_a_network():
    found = to_sparse_cpu(pruned(8, 6), torch.randn(2, 8), measure=lambda *_: (1.0, 0.5))
    assert isinstance(found.model, SparseLinear)
    assert isinstance(densified(found.model), nn.Linear)


def test_it_can_be_made_dense_again(net):
    x = torch.randn(5, 1, 4, 4)
    made = to_sparse_cpu(net, x, measure=lambda *_: (1.0, 0.5)).model
    back = densified(made)
    assert isinstance(made.wide, SparseLinear)
    assert all(torch.equal(tensor, back.state_dict()[k]) for k, tensor in net.state_dict().items())
    assert densified(net) is net


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repeats": 0}, "repeats from 1 and a margin"),
        ({"margin": 1.0}, "margin in"),
        ({"margin": math.nan}, "margin in"),
        ({"layers": "conv*"}, "found no nn.Linear that it can replace .conv.weight: CSR conv"),
    ],
)
def test_bad_arguments_are_refused(net, given, said):
    with pytest.raises(UsageError, match=said):
        to_sparse_cpu(net, torch.randn(2, 1, 4, 4), **given)


def test_infinite_weights_are_refused(net):
    with torch.no_grad():
        net.wide.weight[0, :2] = torch.inf
    with pytest.raises(NonFinite, match=r"wide.weight holds 2 NaN or infinite values"):
        to_sparse_cpu(net, torch.randn(2, 1, 4, 4))


def test_calls_are_timed_in_turns(monkeypatch):
    """With a clock that a call itself moves on: 2 and 3 seconds, now and then a hundred."""
    now, order = [0.0], []

    def call(name: str, seconds: float):
        def run():
            order.append(name)
            now[0] += seconds + 100 * (len(order) % 7 == 0)

        return run

    monkeypatch.setattr("tailor.stages.sparse.measure.time.perf_counter", lambda: now[0])
    assert alternately(call("a", 2.0), call("b", 3.0), 9) == (2.0, 3.0)
    assert order == ["a", "b"] * 10


def test_short_calls_are_repeated(monkeypatch):
    now = [0.0]

    def run():
        now[0] += 1e-5

    monkeypatch.setattr("tailor.stages.sparse.measure.time.perf_counter", lambda: now[0])
    first, second = alternately(run, run, 3)
    assert (first, second) == (pytest.approx(1e-5), pytest.approx(1e-5))
    assert now[0] == pytest.approx((2 * 255 + 6 * 128) * 1e-5)


def test_the_note_speaks_where_zeros_gain_nothing():
    assert "90% of the weights are zero" in speed_note(0.9)
    assert "`to_sparse_cpu` may" in speed_note(0.9)
    assert "sparse formats would not" in speed_note(0.4)
    assert speed_note(0.9, sparse_layers=2) == ""
    assert speed_note(0.0) == ""
