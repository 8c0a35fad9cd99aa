"""Arrays of numpy (``.npy``, ``.npz``), without pickles."""

import math
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.source.entry import Entry, Refused, first_line, torch_dtype, turned
from tailor.weights.source.place import File, Place
from tailor.weights.source.span import Span, foreign, typed

RATIO = 1100  # deflate packs at most 1032 bytes into one


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the numbers of an array.

    Attributes:
        shape: As bytes lie, slowest axis first.
        dtype: By torch's name, or by numpy's if torch has none.
        swapped: Whether bytes are in the other order than this machine's.
        fortran: Whether the shape was reversed, since the first axis is the fastest.
        start: First byte of the numbers.
        length: Their length in bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    swapped: bool
    fortran: bool
    start: int
    length: int


def read_npy(place: Place) -> list[Entry]:
    """The one array of the file, named "weight"."""
    try:
        with place.open() as file:
            header = _header(file)
        if header.start + header.length != place.size():
            raise ValueError(f"it should have {header.start + header.length} bytes")
    except SourceError:
        raise
    except Exception as error:  # numpy parses a literal there, which fails in many ways
        raise SourceError(f"{place} is not a whole npy file ({first_line(error)})") from error
    load = Span(
        place=place,
        name="weight",
        start=header.start,
        dtype=header.dtype,
        shape=header.shape,
        swapped=header.swapped,
    )
    return [_entry("weight", header, load, place)]


def read_npz(place: Place) -> list[Entry]:
    """One entry for each array of the archive."""
    try:
        with place.open() as file, zipfile.ZipFile(file) as archive:
            return [_member(place, archive, info) for info in archive.infolist()]
    except SourceError:
        raise
    except Exception as error:  # zipfile fails in many ways on damaged bytes
        raise SourceError(f"{place} is not a whole npz file ({first_line(error)})") from error


def _member(place: Place, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    if info.file_size > RATIO * info.compress_size + 1000:
        raise ValueError(f"{info.filename} would unpack to {info.file_size} bytes")
    with archive.open(info) as file:
        header = _header(file)
    if header.start + header.length != info.file_size:
        raise ValueError(f"the length of {info.filename} is not that of its shape")
    name = info.filename.removesuffix(".npy")
    return _entry(name, header, Zipped(place=place, member=info.filename, header=header), place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zipped:
    """A loader of one array in an archive."""

    place: Place
    member: str
    header: Header

    def __call__(self) -> Tensor:
        """The tensor, unpacked."""
        dtype = torch_dtype(self.header.dtype)
        try:
            with (
                self.place.open() as file,
                zipfile.ZipFile(file) as archive,
                archive.open(self.member) as member,
            ):
                member.read(self.header.start)
                data = bytearray(member.read(self.header.length))
            if dtype is None or len(data) != self.header.length:
                raise ValueError("its bytes changed")
        except Exception as error:  # as in read_npz
            raise SourceError(
                f"{self.place} lost the tensor {self.member} while it was read: {error}"
            ) from error
        if not data:
            return torch.empty(self.header.shape, dtype=dtype)
        raw = torch.frombuffer(data, dtype=torch.uint8)
        return typed(raw, dtype, self.header.shape, self.header.swapped)


def _entry(name: str, header: Header, load: Span | Zipped, place: Place) -> Entry:
    axes = tuple(reversed(range(len(header.shape))))
    fortran = turned(load, header.shape, axes)
    known = torch_dtype(header.dtype) is not None
    return Entry(
        name=name,
        shape=fortran.shape if header.fortran else header.shape,
        dtype=header.dtype,
        identity=(str(place), name),
        load=(fortran if header.fortran else load)
        if known
        else Refused(f"{place} holds {name} as {header.dtype}, which torch lacks"),
    )


def _header(file: File) -> Header:
    """Read by numpy, which parses a literal of at most 10,000 characters and runs nothing."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its version is {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are pickles; refused")
    if any(n < 0 for n in shape):
        raise ValueError("its shape is negative")
    named = np.dtype(dtype.newbyteorder("=")).name
    return Header(
        shape=tuple(int(n) for n in (reversed(shape) if fortran else shape)),
        dtype=named,
        swapped=foreign(dtype.byteorder),
        fortran=bool(fortran),
        start=file.tell(),
        length=math.prod(shape) * dtype.itemsize,
    )
