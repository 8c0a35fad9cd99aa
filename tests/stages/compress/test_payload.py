"""The file: everything comes back bit for bit, and nothing else is taken for one."""

import json
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import Codebook, Grid, Spec
from tailor.stages.compress import RANS, Adaptive, CompressedModel, pack
from tailor.stages.compress.payload import CODERS, MAX_HEADER, SIGNATURE, write_file

TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


def assert_same(one, other):
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].shape == other[name].shape
        assert torch.equal(bits(one[name]), bits(other[name])), name


@pytest.mark.parametrize("coder", CODERS, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_every_state_comes_back_bit_for_bit(coder, data):
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i in range(data.draw(st.integers(1, 4))):
        shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
        dtype = getattr(torch, data.draw(st.sampled_from(TYPES)))
        # Any pattern of bits: NaN payloads, infinities, -0.0.
        size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
        raw = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
        state[f"t{i}"] = raw.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    state["flag"] = torch.tensor([True, False])
    assert_same(pack(state, coder=coder).state_dict(), state)


def test_special_floats():
    state = {"x": torch.tensor([-0.0, 0.0, math.inf, -math.inf, math.nan, 1e-45])}
    assert_same(pack(state).state_dict(), state)


def test_strides_do_not_matter():
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    state = {"turned": matrix.t(), "every other": matrix[:, ::2]}
    assert_same(pack(state).state_dict(), {k: v.contiguous() for k, v in state.items()})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_stored_once_and_tied_again():
    model = Tied()
    small = pack(model)
    assert small.ties == {"head.weight": "embed.weight"}
    assert list(small.specs()) == ["embed.weight"]
    state = small.state_dict()
    assert state["head.weight"] is state["embed.weight"]
    back = small.into(Tied)
    assert back.head.weight is back.embed.weight
    assert torch.equal(back.embed.weight, model.embed.weight)

    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 5)
            self.head = nn.Linear(5, 7, bias=False)

    with pytest.raises(PayloadError, match=r"head.weight is float32 \[7, 5\] in the task and abs"):
        small.into(Free)


def test_codes_have_to_fit_and_codebooks_need_the_fast_coder():
    state = {"w": torch.zeros(2, 3)}
    grid = Grid(levels=np.zeros((3, 2), dtype=np.int64))
    with pytest.raises(UsageError, match=r"w has the shape \[2, 3\], but its codes have \[3, 2\]"):
        pack(state, {"w": grid})
    book = Codebook(codes=np.array([[0, 1, 1], [1, 0, 0]]), values=np.float32([-1.5, 2.25]))
    file = pack(state, {"w": book})
    assert file.state_dict()["w"].tolist() == [[-1.5, 2.25, 2.25], [2.25, -1.5, -1.5]]
    with pytest.raises(UsageError, match="a tensor has a codebook"):
        file.recoded(Adaptive())


def test_a_file_can_change_its_coder():
    levels = np.random.default_rng(0).integers(-3, 4, (20, 30))
    state = {"w": torch.as_tensor(levels * 0.5, dtype=torch.float32), "b": torch.randn(3)}
    fast = pack(state, {"w": Grid(levels=levels, step=0.5)}, about={"seed": "1"})
    slow = fast.recoded(Adaptive())
    assert isinstance(fast.coder, RANS)
    assert isinstance(slow.coder, Adaptive)
    assert slow.about == fast.about == {"seed": "1"}
    assert_same(slow.state_dict(), state)
    assert slow.recoded(RANS()).payload == fast.payload


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.float8_e4m3fn),
    ],
    ids=lambda t: f"{t.dtype}-{t.layout}-{t.device}",
)
def test_odd_tensors_are_refused_by_name(odd):
    with pytest.raises(UsageError, match=r"cannot be packed \(odd\); convert it to float32"):
        pack({"odd": odd})


# Damage


def sample(coder):
    generator = np.random.default_rng(1)
    levels = generator.integers(-2, 3, (12, 9)) * (generator.random((12, 9)) < 0.4)
    state = {"w": torch.as_tensor(levels * 0.25, dtype=torch.float32), "b": torch.ones(5)}
    return pack(state, {"w": Grid(levels=levels, step=0.25)}, coder=coder)


@pytest.mark.parametrize("coder", CODERS, ids=str)
def test_every_flipped_bit_and_every_cut_is_noticed(coder):
    payload = sample(coder).payload
    for i in range(len(payload)):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[i] ^= 1 << bit
            with pytest.raises(PayloadError, match="tailor"):
                CompressedModel(payload=bytes(damaged))
        with pytest.raises(PayloadError, match="tailor"):
            CompressedModel(payload=payload[:i])


def resealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("coder", CODERS, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_damage_under_a_good_checksum_is_refused_or_means_another_network(coder, data):
    body = bytearray(sample(coder).payload[:-4])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(8, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    try:
        state = CompressedModel(payload=resealed(bytes(body))).state_dict()
    except PayloadError:
        return
    assert sum(tensor.numel() for tensor in state.values()) < 1 << 25


def with_header(text, version=2, stream=b""):
    packed = zlib.compress(text) if version == 2 else text
    return resealed(SIGNATURE + bytes([version]) + struct.pack("<I", len(packed)) + packed + stream)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (resealed(SIGNATURE + b"\x02" + struct.pack("<I", 3) + b"abc"), "unreadable header"),
        (
            resealed(SIGNATURE + b"\x02" + struct.pack("<I", 9) + zlib.compress(b"x" * 99)[:9]),
            "unreadable header",
        ),
        (with_header(b'{"tensors": [], "about": {}, "ties": {"a": "b"}}'), "a tie leads nowhere"),
        (with_header(b'{"tensors": [], "about": {}, "ties": {"a": ["b"]}}'), "unreadable header"),
        (with_header(b'{"tensors": [], "about": {}, "ties": 3}'), "unreadable header"),
        (with_header(b'{"tensors": [], "about": {}, "sizes": 3}'), "unreadable header"),
        (with_header(b'{"tensors": [], "about": {}, "sizes": {"a": 3}}'), "unreadable header"),
    ],
)
def test_refused_headers(payload, message):
    with pytest.raises(PayloadError, match=message):
        CompressedModel(payload=payload)


def test_a_header_that_swells_is_refused_before_it_does():
    bomb = zlib.compress(b" " * (4 * MAX_HEADER), 9)
    body = SIGNATURE + b"\x02" + struct.pack("<I", len(bomb)) + bomb
    with pytest.raises(PayloadError, match="it does not end"):
        CompressedModel(payload=resealed(body))


def test_shapes_that_claim_too_much_are_refused_before_memory_is_taken():
    rows = [["w", [1 << 20, 1 << 20], "float32"]]
    text = json.dumps({"tensors": rows, "about": {}}).encode()
    file = CompressedModel(payload=with_header(text, stream=bytes(64)))
    with pytest.raises(PayloadError, match="elements, more than"):
        file.state_dict()


def test_a_file_that_fails_half_way_is_not_there(tmp_path):
    path = tmp_path / "model.tailor"
    path.write_bytes(b"the old one")

    def broken():
        yield b"some bytes"
        raise RuntimeError("the disk burns")

    with pytest.raises(RuntimeError, match="burns"):
        write_file(path, {"w": Spec(shape=(1,), dtype="int8")}, broken(), coder=RANS())
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]
