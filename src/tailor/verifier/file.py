"""The file: its frame, and the streams that are codewords of certificates."""

import json
import math
import struct
import zlib
from typing import Any

import torch
from torch import Tensor

from tailor.verifier.said import Mismatch
from tailor.verifier.streams import Levels, read

SIGNATURE = b"\x89TAILOR"
CERTIFIED = (1, 3)  # versions of the stream that are codewords of a certificate
MAX_ELEMENTS = 1 << 24


class File:
    """The frame of a file, and its stream."""

    def __init__(self, payload: bytes) -> None:
        start = len(SIGNATURE) + 5
        if payload[:7] != SIGNATURE or len(payload) < start + 4:
            raise Mismatch("the file does not begin as a tailor file does, or is cut short")
        self.version = payload[7]
        (length,) = struct.unpack("<I", payload[8:start])
        if zlib.crc32(payload[:-4]) != struct.unpack("<I", payload[-4:])[0]:
            raise Mismatch("the file is damaged: its checksum does not match")
        if length > len(payload) - start - 4:
            raise Mismatch("the header of the file is longer than the file")
        self.head: dict[str, Any] = {}
        self.stream = payload[start + length : -4]
        if self.version not in CERTIFIED:
            return
        try:
            self.head = json.loads(payload[start : start + length])
        except (ValueError, RecursionError) as error:
            raise Mismatch(f"the file has an unreadable header ({error})") from error

    def state(self) -> dict[str, Tensor]:
        """The tensors by name.

        Raises:
            Mismatch: The stream is damaged, or of a version that this reader does not know.
        """
        if self.version not in CERTIFIED:
            raise Mismatch(
                f"the file has version {self.version}; only {CERTIFIED} are read here: write it "
                "again by a coder for certificates"
            )
        rows = self.head["tensors"]
        kinds = [getattr(torch, dtype) for _, _, dtype in rows]
        self.shapes = [
            (tuple(shape), _width(k)) for (_, shape, _), k in zip(rows, kinds, strict=True)
        ]
        if sum(math.prod(shape) for shape, _ in self.shapes) > MAX_ELEMENTS:
            raise Mismatch(f"the file claims more than {MAX_ELEMENTS} elements")
        self.items = read(self.stream, self.shapes, self.version)
        return {
            row[0]: _tensor(item, kind, shape)
            for row, item, kind, (shape, _) in zip(
                rows, self.items, kinds, self.shapes, strict=True
            )
        }


def _width(kind: torch.dtype) -> int:
    return torch.empty(0, dtype=kind).element_size()


def _tensor(item: bytes | Levels, kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if isinstance(item, bytes):
        flat = torch.frombuffer(bytearray(item), dtype=kind) if item else torch.empty(0)
        return flat.to(kind).reshape(shape)
    return (torch.from_numpy(item.matrix).double() * item.step).to(kind).reshape(shape)
