"""The packed stream: exact inverses, lengths near the entropy or below, hostile bytes."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import (
    DTYPES,
    ELEMENTS_PER_BYTE,
    MAX_PACKED_ELEMENTS,
    Codebook,
    Grid,
    Raw,
    Spec,
    decode_packed,
    encode_packed,
    order0_bits,
    report,
)
from tailor.numerics.coding import packed as module


def packed(items):
    return b"".join(encode_packed(items))


def unpacked(data, items):
    return list(decode_packed(data, [spec for _, spec in items]))


def grid(levels, step=1.0):
    levels = np.asarray(levels)
    return Grid(levels=levels, step=step), Spec(shape=levels.shape, dtype="float32")


def raw(values, dtype=None):
    values = np.asarray(values)
    dtype = str(values.dtype) if dtype is None else dtype
    return Raw(data=values.tobytes()), Spec(shape=values.shape, dtype=dtype)


def assert_equal(one, other):
    assert type(one) is type(other)
    match one:
        case Grid():
            np.testing.assert_array_equal(one.levels, other.levels)
            assert one.step == other.step
        case Codebook():
            np.testing.assert_array_equal(one.codes, other.codes)
            assert one.values.tobytes() == other.values.tobytes()
        case Raw():
            assert one.data == other.data


def assert_comes_back(items):
    data = packed(items)
    for (tensor, _), found in zip(items, unpacked(data, items), strict=True):
        assert_equal(tensor, found)
    return data


shapes = st.lists(st.integers(0, 4), max_size=2).map(tuple)


@st.composite
def contents(draw):
    """Plain values; `built` makes a tensor of them, as type checks may not run in a strategy."""
    shape, kind = draw(shapes), draw(st.sampled_from(["grid", "codebook", "raw"]))
    seed = draw(st.integers(0, 2**32 - 1))
    return shape, kind, seed, draw(st.sampled_from([0, 1, 3, 20]))


def built(drawn):
    shape, kind, seed, top = drawn
    rng = np.random.default_rng(seed)
    if kind == "grid":
        return grid(rng.integers(-top, top + 1, shape), 0.75)
    if kind == "codebook":
        values = np.unique(rng.standard_normal(top + 1).astype("f4"))
        codes = rng.integers(0, len(values), shape)
        return Codebook(codes=codes, values=values), Spec(shape=shape, dtype="bfloat16")
    dtype = sorted(DTYPES)[seed % len(DTYPES)]
    size = int(np.prod(shape)) * DTYPES[dtype].itemsize
    return Raw(data=rng.integers(0, top + 1, size, "u1").tobytes()), Spec(shape=shape, dtype=dtype)


@settings(max_examples=12)
@given(st.lists(contents(), max_size=3))
def test_decode_inverts_encode(drawn):
    items = [built(one) for one in drawn]
    data = assert_comes_back(items)
    again = unpacked(data, items)
    assert packed([(t, spec) for t, (_, spec) in zip(again, items, strict=True)]) == data


def test_wide_ranges_come_back():
    rng = np.random.default_rng(0)
    values = np.unique(rng.standard_normal(600).astype("f4"))
    codes = Codebook(codes=np.arange(len(values)), values=values)
    items = [grid([[1 << 20, -(1 << 20), 0]], 1.5 * 2.0**-90), grid(rng.integers(-999, 999, 50))]
    assert_comes_back([*items, (codes, Spec(shape=codes.codes.shape, dtype="bfloat16"))])


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38], dtype="f4")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_floats_come_back_bit_for_bit(dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(3000) * 0.02
    values[rng.random(3000) < 0.5] = 0.0
    if dtype == "bfloat16":
        words = (np.concatenate([values.astype("f4"), SPECIAL]).view("<u4") >> 16).astype("<u2")
    else:
        with np.errstate(over="ignore", under="ignore"):
            words = np.concatenate([values, SPECIAL]).astype(dtype)
        words = words.view(f"<u{words.itemsize}").copy()
        words[-1] ^= 5  # some payload
    item = raw(words, dtype)
    data = assert_comes_back([item])
    made = report(*item)
    assert made.mode == "floats"
    assert len(data) < 0.7 * len(item[0].data)  # half of them are zeros
    assert made.total_bits <= made.entropy_bits + 700


def test_random_bytes_are_stored_as_they_are():
    item = raw(np.random.default_rng(0).integers(0, 256, 4000, "u1"))
    assert report(*item).mode == "stored"
    assert len(assert_comes_back([item])) <= 4000 + 5


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "bool"])
def test_whole_numbers_are_coded_byte_by_byte(dtype):
    values = (np.arange(3000) % 2 * 3).astype(dtype)
    item = raw(values)
    assert len(assert_comes_back([item])) < 3000 / 8 + 60
    assert report(*item).mode == "bytes"


@pytest.mark.parametrize(
    ("values", "size"),
    [([0.5, 2.0**100], 2), ([0.25, 1 + 2**-10], 2), ([0.25, 1 + 2**-11], 4), ([1e-9, 1.0], 4)],
)
def test_values_are_stored_in_the_shortest_exact_form(values, size):
    book = Codebook(codes=np.zeros(9, dtype=int), values=np.array(values, dtype="f4"))
    spec = Spec(shape=(9,), dtype="float32")
    assert_comes_back([(book, spec)])
    assert report(book, spec).parts["stored"] == 8 * size * 2


def bell(size, step, seed=0, law="standard_normal"):
    return np.rint(getattr(np.random.default_rng(seed), law)(size=size) / step).astype(np.int16)


def test_length_is_the_entropy_within_a_few_thousandths():
    items = [grid(bell((300, 400), 0.4))]
    sparse = bell((500, 400), 0.25, 1)
    items.append(grid(sparse * (np.abs(sparse) > 6)))
    for tensor, spec in items:
        limit = order0_bits(tensor.levels) / 8
        assert limit < len(assert_comes_back([(tensor, spec)])) < 1.003 * limit + 64


def test_many_tensors_cost_few_bytes_each():
    shapes = [(16, 27)] + [(16, 144)] * 6 + [(32, 288)] * 3
    items = [
        grid(bell(shape, 0.25 + 0.01 * seed, seed, law))
        for seed, (shape, law) in enumerate(
            zip(shapes, ["laplace", "standard_normal"] * 5, strict=True)
        )
    ]
    limit = sum(order0_bits(tensor.levels) for tensor, _ in items)
    entries = sum(len(np.unique(tensor.levels)) for tensor, _ in items)
    extra = 8 * len(assert_comes_back(items)) - limit
    assert extra < 4 * entries  # each a number of 14 bits, and all other costs are in it


def test_scales_of_rows_go_below_the_entropy():
    """Rows with Pareto(1.5) scales, nine weights in ten pruned: two thirds of order 0 at most."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((256, 256)) * rng.pareto(1.5, (256, 1))
    cut = np.quantile(np.abs(weights), 0.9)
    item = grid(np.rint(weights / cut / 2 * (np.abs(weights) > cut)).astype(int))
    made = report(*item)
    assert made.total_bits == 8 * len(assert_comes_back([item]))
    assert made.total_bits < 0.75 * made.entropy_bits
    assert made.parts["classes"] > 0


def test_far_outliers_do_not_blow_up_the_table():
    levels = np.clip(np.random.default_rng(0).standard_t(1.2, (200, 300)) * 3, -1e6, 1e6)
    made = report(*grid(np.rint(levels).astype(int)))
    assert made.parts["rests of symbols"] > 0
    assert made.parts["tables"] < 1000
    assert made.total_bits < 1.01 * made.entropy_bits


def test_nothing_but_zeros_takes_a_few_bytes():
    assert len(assert_comes_back([grid(np.zeros((1000, 1000), dtype=np.int8))])) < 16
    assert len(assert_comes_back([grid(np.zeros((0, 7), dtype=np.int8))])) < 8
    assert packed([]) == b""


def test_report_adds_up():
    item = grid(bell((40, 50), 0.3))
    made = report(*item)
    assert made.total_bits == 8 * len(packed([item]))
    assert made.elements == 2000
    assert made.entropy_bits == order0_bits(item[0].levels)
    assert made.mode == "grid"


def test_levels_come_in_the_smallest_type():
    for top, dtype in [(127, np.int8), (128, np.int16), (40_000, np.int32)]:
        items = [grid(np.array([0, top]))]
        (found,) = unpacked(packed(items), items)
        assert found.levels.dtype == dtype


def test_a_section_is_written_before_the_next_tensors_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "SECTION_TENSORS", 4)
    asked = []
    items = [grid(bell((3,), 1.0, number)) for number in range(10)]
    sections = encode_packed(asked.append(number) or item for number, item in enumerate(items))
    next(sections)
    assert len(asked) == 4
    assert len(list(sections)) == 2
    assert_comes_back(items)


def test_a_tensor_that_is_not_what_its_spec_says_is_refused():
    wrong = Spec(shape=(2, 3), dtype="float32")
    for tensor in (
        Grid(levels=np.zeros((3, 2), dtype=int)),
        Codebook(codes=np.zeros(6, dtype=int), values=np.ones(1, dtype="f4")),
        Raw(data=bytes(23)),
    ):
        with pytest.raises(UsageError, match=r"\(2, 3\)"):
            packed([(tensor, wrong)])


def test_a_codebook_of_too_many_values_is_refused():
    many = np.arange(1 << 18, dtype=np.float32)
    book = Codebook(codes=np.zeros(3, dtype=int), values=many)
    with pytest.raises(UsageError, match="at most 262143"):
        packed([(book, Spec(shape=(3,), dtype="float32"))])


def small_streams():
    """One stream for each way in which tensors are sent."""
    rng = np.random.default_rng(1)
    alive = np.repeat([0, 1], 32)[:, None]
    book = np.sort(rng.standard_normal(5)).astype("f4")
    yield [grid(bell((10, 12), 1.0))]
    yield [grid(rng.integers(-1, 2, (64, 16)) * alive, 0.5)]
    yield [grid(np.array([1 << 20, -(1 << 20), 0, 5] * 9))]
    yield [
        (Codebook(codes=rng.integers(0, 5, 60), values=book), Spec(shape=(60,), dtype="float16"))
    ]
    yield [raw(rng.standard_normal(50).astype("f4")), raw(np.arange(3).repeat(20))]
    yield [raw(rng.random(90) < 0.3), raw(rng.standard_normal(3)), grid(np.zeros((0, 3), int))]


def test_truncated_and_lengthened_streams_are_refused():
    for items in small_streams():
        data = packed(items)
        for end in {0, 1, 2, 5, len(data) // 2, len(data) - 1}:
            with pytest.raises(PayloadError, match=r"damaged|ends too early"):
                unpacked(data[:end], items)
        with pytest.raises(PayloadError, match="bytes follow"):
            unpacked(data + b"\0", items)


def test_edited_streams_are_refused_or_decode_but_nothing_else_happens():
    rng = np.random.default_rng(2)
    streams = [(packed(items), items) for items in small_streams()]
    refused = 0
    for number in range(100):
        data, items = streams[number % len(streams)]
        edited = bytearray(data)
        place = int(rng.integers(0, min(len(data), 10 ** (1 + number % 3))))
        edited[place] ^= int(rng.integers(1, 256))
        try:
            unpacked(bytes(edited), items)
        except PayloadError:
            refused += 1
    assert refused > 50  # bytes that are stored as they are can be edited unseen


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_shapes_too_large_for_the_bytes_are_refused_before_anything_is_allocated():
    def claim(elements, data):
        with pytest.raises(PayloadError, match="elements"):
            list(decode_packed(data, [Spec(shape=(elements,), dtype="float32")]))

    assert peak(lambda: claim(MAX_PACKED_ELEMENTS + 1, bytes(100))) < 1 << 20
    long = bytes(MAX_PACKED_ELEMENTS // ELEMENTS_PER_BYTE + 1)
    assert peak(lambda: claim(ELEMENTS_PER_BYTE * len(long) + 1, long)) < 1 << 20


def test_stored_tensors_are_not_allocated_before_their_bytes_are_there():
    specs = [Spec(shape=(MAX_PACKED_ELEMENTS,), dtype="float64")]

    def decode():
        with pytest.raises(PayloadError, match="too early"):
            list(decode_packed(b"\x02\0\0\0abc", specs))

    assert peak(decode) < 4 << 20


def test_a_stream_of_almost_nothing_is_as_long_as_its_elements_need(monkeypatch):
    monkeypatch.setattr(module, "MAX_PACKED_ELEMENTS", 1 << 10)
    items = [grid(np.zeros((60 * ELEMENTS_PER_BYTE + 5, 1), dtype=np.int8))]
    data = packed(items)
    assert len(data) == 61
    assert not any(data[20:])
    assert not unpacked(data, items)[0].levels.any()
    with pytest.raises(PayloadError, match="bytes follow"):
        unpacked(data[:-1] + b"\1", items)
