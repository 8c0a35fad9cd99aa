"""Compression: the file is the network, held weights stay, hostile bytes are refused."""

import itertools
import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from tailor.errors import NonFinite, PayloadError, UsageError
from tailor.numerics.coding import Grid
from tailor.stages.compress import (
    CompressedModel,
    Uniform,
    frontier,
    gradual,
    pack,
)
from tailor.stages.compress.payload import SIGNATURE, Adaptive

MAGIC = SIGNATURE + b"\x01"


def squeezed(model, sparsity=0.9, retrain=None, **options):
    """The last file of a frontier that ends there."""
    path = gradual(sparsity) if retrain else [sparsity]
    *_, last = frontier(model, path, retrain=retrain, quantize_from=sparsity, **options)
    return last.compressed


def mlp():
    return nn.Sequential(
        nn.Linear(6, 12, bias=False), nn.ReLU(), nn.Linear(12, 8, bias=False), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


class Conv(nn.Module):
    """Convolution, batch normalisation with its integer counter, bias, half precision."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.extra = nn.Parameter(torch.randn(3, 2).to(torch.bfloat16))

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


@pytest.mark.parametrize("build", [mlp, Conv])
def test_the_file_is_a_complete_network(build):
    model = seeded(build)
    small = squeezed(model, 0.5, quantizer=Uniform(top=7))
    state = small.state_dict()
    assert list(state) == list(model.state_dict())
    back = small.into(lambda: seeded(build, 1))
    for name, tensor in back.state_dict().items():
        assert tensor.dtype == model.state_dict()[name].dtype
        assert torch.equal(tensor, state[name])
        if tensor.ndim < 2:  # everything that is no matrix is stored as it is
            assert torch.equal(tensor, model.state_dict()[name])
    matrices = [t for t in state.values() if t.ndim > 1]
    zeros = sum(int((t == 0).sum()) for t in matrices) / sum(t.numel() for t in matrices)
    assert zeros >= 0.5


def test_the_given_model_is_not_changed():
    model = seeded(mlp)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    squeezed(model, 0.8, retrain=shake)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_fine_grid_without_pruning_keeps_the_function():
    model = seeded(mlp)
    grid = Uniform(top=1 << 14)
    back = squeezed(model, 0.0, quantizer=grid).into(mlp)
    x = torch.randn(50, 6)
    with torch.no_grad():
        torch.testing.assert_close(back(x), model(x), rtol=2e-3, atol=2e-3)


def test_unit_step_keeps_the_decisions_of_a_homogeneous_network():
    def build():
        return nn.Sequential(nn.Linear(6, 40, bias=False), nn.ReLU(), nn.Linear(40, 3, bias=False))

    model, x = seeded(build), torch.randn(200, 6)
    grids = {}
    for unit in (False, True):
        grid = Uniform(top=60, unit_step=unit)
        grids[unit] = squeezed(model, 0.3, quantizer=grid)
    with torch.no_grad():
        decisions = [small.into(build)(x).argmax(dim=1) for small in grids.values()]
    assert torch.equal(*decisions)
    assert len(grids[True].stream) <= len(grids[False].stream) - 3  # 2 x 16 bits, rounded


def shake(model):
    """Training that moves every free weight, with weight decay that would move zeros too."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_pruned_weights_stay_zero_while_the_rest_is_retrained():
    model = seeded(mlp)
    first, second = frontier(model, [0.5, 0.8], retrain=shake)
    for name in ("0.weight", "2.weight", "4.weight"):
        early, late = first.pruned[name] != 0, second.pruned[name] != 0
        assert not (late & ~early).any()  # nothing comes back
    assert second.nonzeros < first.nonzeros
    assert first.sparsity >= 0.5 - 1e-9
    assert not torch.equal(first.pruned["4.bias"], model.state_dict()["4.bias"])  # it trained


def test_quantised_weights_are_held_while_the_rest_adapts():
    seen = []

    def watch(model):
        seen.append(
            {n: m.weight.detach().clone() for n, m in model.named_children() if m.state_dict()}
        )
        shake(model)

    squeezed(seeded(mlp), 0.5, quantizer=Uniform(top=2), retrain=watch)
    rounds = seen[-3:]  # half, three quarters and nine tenths are on the grid
    for early, late in itertools.pairwise(rounds):
        for name in early:
            weights = early[name]
            still = weights == late[name]
            assert still.double().mean() > 0.45


@pytest.mark.parametrize("build", [mlp, lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))])
def test_a_retrained_network_with_biases_loads(build):
    small = squeezed(seeded(build), 0.6, retrain=shake)
    assert list(small.state_dict()) == list(build().state_dict())
    small.into(build)


def test_retrain_is_called_once_for_each_sparsity_and_thrice_for_the_grid():
    calls = []
    squeezed(seeded(mlp), 0.9, retrain=calls.append)
    assert len(calls) == len(gradual(0.9)) + 3


def test_a_module_that_fails_in_retraining_is_reported():
    def broken(model):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(float("nan"))

    with pytest.raises(NonFinite, match="infinite weights; retraining made them so"):
        squeezed(seeded(mlp), 0.5, retrain=broken)


def test_uniform_finds_the_least_squares_step():
    weights = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = Uniform(top=3)
    step = grid.step(weights)

    def error(candidate):
        return float((grid.levels(weights, candidate) * candidate - weights).square().sum())

    assert error(step) <= 1.02 * min(error(0.01 * k) for k in range(5, 300))
    assert int(grid.levels(weights, step).abs().max()) <= 3


@given(st.floats(0.05, 0.999))
def test_gradual_rises_to_the_target(target):
    path = gradual(target)
    assert path[-1] == target
    assert all(a < b for a, b in itertools.pairwise(path))


# The file


def small_file():
    return squeezed(seeded(mlp), 0.7, about={"seed": "0"})


def test_save_and_load(tmp_path):
    small = small_file()
    assert CompressedModel.load(small.save(tmp_path / "m.tailor")) == small
    assert small.about == {"seed": "0"}


def test_code_length_adds_up_to_the_stream():
    small = small_file()
    ideal = sum(sum(parts.values()) for parts in small.code_length().values())
    assert ideal - 0.1 <= 8 * len(small.stream) <= ideal + 10


def test_every_flipped_byte_is_noticed():
    payload = small_file().payload
    for place in range(len(payload)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(payload)
            damaged[place] ^= flip
            with pytest.raises(PayloadError, match="tailor"):
                CompressedModel(payload=bytes(damaged))


def resealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


@given(st.data())
def test_bytes_that_were_changed_on_purpose_do_no_harm(data):
    """The checksum is made to fit, as an attacker would."""
    body = bytearray(PAYLOAD[:-4])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        other = CompressedModel(payload=resealed(bytes(body)))
        other.state_dict()
    except PayloadError:
        return
    try:
        other.into(mlp)
    except PayloadError:
        return
    assert [s.shape for s in other.specs().values()] == [
        t.shape for t in mlp().state_dict().values()
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(PayloadError, match="tailor"):
        CompressedModel(payload=MAGIC + data)


def header(text, stream=b""):
    body = MAGIC + struct.pack("<I", len(text)) + text + stream
    return resealed(body)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "does not begin with the tailor signature"),
        (b"PK\x03\x04" + bytes(50), "does not begin with the tailor signature"),
        (MAGIC, "cut short"),
        (MAGIC[:-1] + b"\x09" + bytes(20), "format version 9, but this tailor reads 1 and 2"),
        (MAGIC + bytes(20), "checksum does not match"),
        (resealed(MAGIC + b"\xff\xff\xff\x7f" + bytes(9)), "header is longer than the file"),
        (header(b"{"), "unreadable header"),
        (header(b"[]"), "unreadable header"),
        (header(b'{"tensors": [["a", [2], "complex64"]], "about": {}}'), "complex64 cannot"),
        (header(b'{"tensors": [["a", [-2], "float32"]], "about": {}}'), "not a shape"),
        (header(b'{"tensors": [["a", [2.5], "float32"]], "about": {}}'), "not a side of a shape"),
        (
            header(b'{"tensors": [["a",[1],"int8"],["a",[1],"int8"]], "about": {}}'),
            "a name stands twice",
        ),
    ],
)
def test_refused_files(payload, message):
    with pytest.raises(PayloadError, match=message):
        CompressedModel(payload=payload)


def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken():
    bomb = header(
        b'{"tensors": [["a", [4000000000, 4000000000], "float64"]], "about": {}}', b"\xff"
    )
    with pytest.raises(PayloadError, match="claims 16000000000000000000 elements"):
        CompressedModel(payload=bomb).state_dict()


def test_another_architecture_is_refused():
    small = small_file()
    wide = lambda: nn.Sequential(nn.Linear(6, 13, bias=False))  # noqa: E731
    with pytest.raises(PayloadError, match=r"0.weight is float32 \[13, 6\] in the task"):
        small.into(wide)
    with pytest.raises(PayloadError, match=r"another architecture.*float64"):
        small.into(lambda: mlp().double())


def test_another_order_of_the_tensors_is_refused():
    """The order could carry information that nobody pays for."""

    class Swapped(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.register_parameter(name, nn.Parameter(torch.zeros(2, 2)))

    zeros = {n: Grid(levels=torch.zeros(2, 2, dtype=torch.int64).numpy()) for n in "ab"}
    small = pack(Swapped("ab"), zeros, coder=Adaptive())
    with pytest.raises(PayloadError, match="another order"):
        small.into(lambda: Swapped("ba"))


def test_missing_file(tmp_path):
    with pytest.raises(PayloadError, match=r"none.tailor: there is no such file"):
        CompressedModel.load(tmp_path / "none.tailor")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(value):
    model = seeded(mlp)
    with torch.no_grad():
        model[2].weight[0, 0] = value
    with pytest.raises(NonFinite, match=r"2.weight holds 1 NaN or infinite"):
        squeezed(model)


def test_tied_and_parametrized_weights_are_refused():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(UsageError, match=r"0.weight and 1.weight are one tensor"):
        squeezed(tied)
    with pytest.raises(UsageError, match="comes from a parametrization"):
        squeezed(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))))


@pytest.mark.parametrize("top", [0, 1 << 21])
def test_uniform_refuses(top):
    with pytest.raises(UsageError, match="top must lie between"):
        Uniform(top=top)


PAYLOAD = small_file().payload
