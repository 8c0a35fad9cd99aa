"""How tensors of each kind become runs of whole numbers and bytes, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt
from numpy import ndarray

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding.entropy import chunks
from tailor.numerics.coding.floats import FIELDS, Fields
from tailor.numerics.coding.stretch import Stretch
from tailor.numerics.coding.symbols import pack_bits, packed_size, unpack_bits
from tailor.numerics.coding.tensors import DTYPES, Codebook, Coded, Grid, Raw, Spec, sides

MODES = ("stored", "grid", "codebook", "floats", "bytes")
MAX_VALUES = (1 << 18) - 1  # of a codebook
VALUES = ("float32", "float16", "bfloat16")  # types in which the values of a codebook are stored


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A tensor as it will be sent.

    Attributes:
        mode: Place in ``MODES``.
        header: Whole numbers that the mode needs, of the widths in ``header_widths``.
        stretches: The runs of whole numbers that are coded.
        stored: Bytes that are not.
    """

    mode: int
    header: tuple[int, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    stored: bytes = b""


def header_widths(mode: int, spec: Spec) -> tuple[int, ...]:
    """Bits of each number in a header.

    These are: the upper half of the step; number of values and their type; lowest exponent and
    dropped bits; which planes of bytes are coded.
    """
    return {
        "stored": (),
        "grid": (16,),
        "codebook": (18, 2),
        "floats": (11, 6),
        "bytes": (DTYPES[spec.dtype].itemsize,),
    }[MODES[mode]]


def runs(mode: int, header: Sequence[int]) -> int:
    """How many runs of whole numbers a tensor has."""
    if MODES[mode] == "bytes":
        return header[0].bit_count()
    return int(MODES[mode] != "stored")


def plan(tensor: Coded, spec: Spec) -> Plan:
    """The shortest way to send a tensor.

    Raises:
        UsageError: The tensor has another size than the spec says.
    """
    if isinstance(tensor, Grid):
        _same_shape(tensor.levels.shape, spec)
        return _plan_grid(tensor, spec)
    if isinstance(tensor, Codebook):
        _same_shape(tensor.codes.shape, spec)
        return _plan_codebook(tensor, spec)
    if len(tensor.data) != spec.size * DTYPES[spec.dtype].itemsize:
        raise UsageError(
            f"{len(tensor.data)} bytes came for a tensor of shape {spec.shape} and type "
            f"{spec.dtype}"
        )
    if not tensor.data:
        return Plan(mode=MODES.index("stored"))
    return _plan_floats(tensor, spec) if spec.dtype in FIELDS else _plan_bytes(tensor, spec)


def _same_shape(shape: tuple[int, ...], spec: Spec) -> None:
    if shape != spec.shape:
        raise UsageError(f"a tensor of shape {shape} came, but its spec says {spec.shape}")


def _plan_grid(tensor: Grid, spec: Spec) -> Plan:
    step = int(np.array([tensor.step], dtype="<f4").view("<u4")[0]) >> 16
    levels = Stretch.of(tensor.levels.reshape(-1), sides(spec.shape))
    return Plan(mode=MODES.index("grid"), header=(step,), stretches=(levels,))


def _plan_codebook(tensor: Codebook, spec: Spec) -> Plan:
    if len(tensor.values) > MAX_VALUES:
        raise UsageError(
            f"a codebook has {len(tensor.values)} values, but at most {MAX_VALUES} can be packed; "
            "leave the tensor as it is"
        )
    kind, stored = _pack_values(tensor.values)
    return Plan(
        mode=MODES.index("codebook"),
        header=(len(tensor.values), kind),
        stretches=(Stretch.of(tensor.codes.reshape(-1), sides(spec.shape)),),
        stored=stored,
    )


def _plan_floats(tensor: Raw, spec: Spec) -> Plan:
    words = _words(tensor.data, spec)
    fields = Fields.of(words, spec.dtype)
    symbols = np.empty(len(words), dtype=np.int16)
    for part in chunks(len(words)):
        symbols[part] = fields.symbols(words[part])
    run = Stretch.of(symbols, sides(spec.shape))
    if run.bits + fields.kept * np.count_nonzero(words) >= 8 * len(tensor.data):
        return Plan(mode=MODES.index("stored"), stored=tensor.data)
    rests = []
    for part in chunks(len(words)):
        live = fields.rests(words[part])
        rests.append(pack_bits(live, np.full(len(live), fields.kept)))
    return Plan(
        mode=MODES.index("floats"),
        header=(fields.lowest, fields.dropped),
        stretches=(run,),
        stored=b"".join(rests),
    )


def _plan_bytes(tensor: Raw, spec: Spec) -> Plan:
    planes = np.frombuffer(tensor.data, dtype=np.uint8).reshape(spec.size, -1)
    coded, stored, flags = [], [], 0
    for place in range(planes.shape[1]):
        plane = np.ascontiguousarray(planes[:, place])
        run = Stretch.of(plane, sides(spec.shape))
        if run.bits < 8 * len(plane):
            coded.append(run)
            flags |= 1 << place
        else:
            stored.append(plane.tobytes())
    if not coded:
        return Plan(mode=MODES.index("stored"), stored=tensor.data)
    return Plan(
        mode=MODES.index("bytes"),
        header=(flags,),
        stretches=tuple(coded),
        stored=b"".join(stored),
    )


class Bytes:
    """What is left of a section, to be read from the front."""

    def __init__(self, data: memoryview) -> None:
        self.left = data

    def take(self, size: int) -> memoryview:
        """The next bytes.

        Raises:
            PayloadError: There are fewer.
        """
        if size > len(self.left):
            raise PayloadError("the stream ends too early")
        taken, self.left = self.left[:size], self.left[size:]
        return taken


def restore(
    mode: int,
    header: Sequence[int],
    values: Sequence[Integer[ndarray, "n"]],
    spec: Spec,
    stored: Bytes,
) -> Coded:
    """Invert ``plan``: the tensor, given its runs of whole numbers and the bytes behind.

    Raises:
        PayloadError: They are no tensor of this kind.
    """
    match MODES[mode]:
        case "stored":
            return Raw(data=bytes(stored.take(spec.size * DTYPES[spec.dtype].itemsize)))
        case "floats":
            return _restore_floats(header, values[0], spec, stored)
        case "bytes":
            return _restore_bytes(header, values, spec, stored)
    try:
        if MODES[mode] == "grid":
            step = float(np.array([header[0] << 16], dtype="<u4").view("<f4")[0])
            return Grid(levels=values[0].reshape(spec.shape), step=step)
        book = _unpack_values(header, stored)
        return Codebook(codes=values[0].reshape(spec.shape), values=book)
    except UsageError as error:
        raise PayloadError(f"the stream is damaged: {error}") from error


def _restore_floats(
    header: Sequence[int], symbols: Integer[ndarray, "n"], spec: Spec, stored: Bytes
) -> Raw:
    if spec.dtype not in FIELDS:
        raise PayloadError(f"the stream is damaged: {spec.dtype} has no exponent")
    exponent, fraction = FIELDS[spec.dtype]
    lowest, dropped = header
    if dropped > fraction or lowest >> exponent:
        raise PayloadError("the stream is damaged: a number has no such bits")
    fields = Fields(exponent=exponent, fraction=fraction, lowest=lowest, dropped=dropped)
    words = np.empty(spec.size, dtype=_word(spec))
    for part in chunks(spec.size):
        widths = np.full(np.count_nonzero(symbols[part]), fields.kept)
        rests = unpack_bits(stored.take(packed_size(widths)), widths)
        words[part] = fields.words(symbols[part].astype(np.int64), rests)
    return Raw(data=words.tobytes())


def _restore_bytes(
    header: Sequence[int], values: Sequence[Integer[ndarray, "n"]], spec: Spec, stored: Bytes
) -> Raw:
    if spec.dtype in FIELDS:
        raise PayloadError(f"the stream is damaged: {spec.dtype} is not split in bytes")
    planes = np.empty((spec.size, DTYPES[spec.dtype].itemsize), dtype=np.uint8)
    left = list(values)
    for place in range(planes.shape[1]):
        if not header[0] >> place & 1:
            planes[:, place] = np.frombuffer(stored.take(spec.size), dtype=np.uint8)
            continue
        run = left.pop(0)
        if run.size and not 0 <= int(run.min()) <= int(run.max()) < 256:
            raise PayloadError("the stream is damaged: a byte is out of range")
        planes[:, place] = run
    return Raw(data=planes.tobytes())


def _pack_values(values: Float32[ndarray, "levels"]) -> tuple[int, bytes]:
    """Type (place in ``VALUES``) and bytes of the shortest exact form."""
    bits = values.astype("<f4").view("<u4")
    if not (bits & 0xFFFF).any():
        return 2, (bits >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if half.astype("<f4").tobytes() == bits.tobytes():
        return 1, half.tobytes()
    return 0, bits.tobytes()


def _unpack_values(header: Sequence[int], stored: Bytes) -> Float32[ndarray, "levels"]:
    number, kind = header
    if kind >= len(VALUES):
        raise PayloadError("the stream is damaged: values have no known type")
    data = stored.take(number * (4, 2, 2)[kind])
    if kind == 2:
        wide = np.frombuffer(data, dtype="<u2").astype("<u4") << np.uint32(16)
        return wide.view("<f4").astype(np.float32)
    return np.frombuffer(data, dtype=("<f4", "<f2")[kind]).astype(np.float32)


def _words(data: bytes, spec: Spec) -> UInt[ndarray, "n"]:
    return np.frombuffer(data, dtype=_word(spec)).astype(_word(spec).newbyteorder("="))


def _word(spec: Spec) -> np.dtype[np.unsignedinteger]:
    return np.dtype(f"<u{DTYPES[spec.dtype].itemsize}")
