"""Labelled examples from files: IDX (MNIST's format) and tables of numbers."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tailor.errors import TaskError
from tailor.tasks.data import Data

MAX_VALUES = 1 << 30
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> Tensor:
    """Read an array in the IDX format of MNIST, gzipped or not.

    The format: two zero bytes, a type, the number of axes, the sides as big-endian 32-bit
    numbers, the values (LeCun, Cortes & Burges, the MNIST database).

    Raises:
        TaskError: No such file, or it is not IDX.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
                raise TaskError(f"{path} is no IDX file: it does not begin with 0, 0 and a type")
            sides = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            kind = np.dtype(IDX_TYPES[head[2]])
            size = int(np.prod(sides, dtype=object)) * kind.itemsize
            if size > MAX_VALUES:
                raise TaskError(f"{path} claims {size} bytes of values, more than {MAX_VALUES}")
            values = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error
    if len(values) != size:
        raise TaskError(f"{path} should hold {size} bytes of values by its head, but does not")
    array = np.frombuffer(values, dtype=kind).reshape(sides)
    return torch.from_numpy(array.astype(kind.newbyteorder("=")))


def read_table(path: str | Path, label: str) -> Data:
    """Read examples from a CSV file with a header; every column but one is an input.

    A first column without a name, as R writes it for the numbers of rows, is left out.

    Args:
        path: The file; inputs become float32.
        label: Name of the column with the class. Whole numbers stay what they are; other names
            are numbered in alphabetical order.

    Raises:
        TaskError: No such file or column, a cell that is no number, or rows of unequal length.
    """
    path = Path(path)
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error
    names = [name.strip().strip('"') for name in lines[0].split(",")]
    if label not in names:
        raise TaskError(f"{path} has no column {label!r}; its columns are {', '.join(names)}")
    rows = [line.split(",") for line in lines[1:] if line.strip()]
    if not rows:
        raise TaskError(f"{path} has a header but no rows")
    if all(len(row) == len(names) + 1 for row in rows):
        rows = [row[1:] for row in rows]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise TaskError(
                f"{path}, row {number}, has {len(row)} cells, but there are {len(names)} columns"
            )
    at = names.index(label)
    classes = [row.pop(at).strip().strip('"') for row in rows]
    try:
        x = torch.from_numpy(np.array(rows, dtype=np.float32))
    except ValueError as error:
        raise TaskError(f"{path} holds a cell that is no number: {error}") from error
    if all(name.isdigit() for name in classes):
        return Data(x=x, y=torch.tensor([int(name) for name in classes]))
    numbers = {name: i for i, name in enumerate(sorted(set(classes)))}
    return Data(x=x, y=torch.tensor([numbers[name] for name in classes]))
