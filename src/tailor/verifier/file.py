"""The file: its frame, and the streams that are codewords of certificates."""

import json
import struct
import zlib

from torch import Tensor

from tailor.verifier.said import Mismatch

SIGNATURE = b"\x89TAILOR"
CERTIFIED = (1, 3)  # versions of the stream that are codewords of a certificate


class File:
    """The frame of a file, and its stream."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        start = len(SIGNATURE) + 5
        if payload[:7] != SIGNATURE or len(payload) < start + 4:
            raise Mismatch("the file does not begin as a tailor file does, or is cut short")
        self.version = payload[7]
        (length,) = struct.unpack("<I", payload[8:start])
        if zlib.crc32(payload[:-4]) != struct.unpack("<I", payload[-4:])[0]:
            raise Mismatch("the file is damaged: its checksum does not match")
        if length > len(payload) - start - 4:
            raise Mismatch("the header of the file is longer than the file")
        self.head = json.loads(payload[start : start + length])
        self.stream = payload[start + length : -4]

    def state(self) -> dict[str, Tensor]:
        """The tensors by name."""
        from tailor.stages.compress import CompressedModel  # TEMPORARY

        return CompressedModel(payload=self.payload).state_dict()
