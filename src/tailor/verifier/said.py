"""What a certificate says, compared with what is found."""

import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor

NEAR = 1e-9  # relative difference up to which two bounds are the same


class Mismatch(Exception):
    """Something is not as the certificate says."""


def same(what: str, said: Any, found: Any) -> None:
    """Refuse what is not equal."""
    if said != found:
        raise Mismatch(f"{what}: the certificate says {said}, but it is {found}")


def near(what: str, said: float, found: float, tolerance: float = NEAR) -> None:
    """Refuse what is not equal but for the last digits."""
    if not math.isclose(said, found, rel_tol=tolerance, abs_tol=1e-12):
        raise Mismatch(f"{what}: the certificate says {said}, but it is {found}")


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of JSON values in one canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode())


def raw_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor, in row order."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.flatten().view(torch.uint8).numpy().tobytes()
