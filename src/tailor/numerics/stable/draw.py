"""Independent alpha-stable values as tensors, from a ``torch.Generator``."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Generator, Tensor

from tailor.errors import UsageError
from tailor.numerics.stable.transform import Standard, positive

Parametrization = Literal["S0", "S1"]
Words = Callable[[int], Int64[Tensor, "n"]]

BLOCK = 2**16  # values of one thread at a time; what they are made of stays in the cache
LARGE_BLOCK = 2**22  # on an accelerator, which needs many at once


def sample_stable(
    shape: int | tuple[int, ...],
    alpha: float,
    beta: float = 0.0,
    *,
    scale: float = 1.0,
    loc: float = 0.0,
    parametrization: Parametrization = "S1",
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Float[Tensor, "*shape"]:
    """Independent values of an alpha-stable law, always finite.

    Chambers, Mallows & Stuck (1976); the parametrisations are those of Nolan (2020, section 1.3)
    and of ``scipy.stats.levy_stable``. A symmetric law (``beta`` 0) of scale s has the
    characteristic function exp(-|s t|^alpha), at ``alpha`` 2 that is the normal law of variance
    2 s^2. Values that the type cannot hold become its largest finite number.

    Args:
        shape: Of the tensor.
        alpha: Tail index, in (0, 2]: P(|X| > x) falls like x^-alpha below 2. (Elsewhere alpha is
            the exponent of a density, which is larger by one.)
        beta: Skewness, from -1 to 1; without effect at ``alpha`` 2.
        scale: Scale, positive.
        loc: Location.
        parametrization: "S1", or "S0", which is continuous in ``alpha`` at 1 also when ``beta``
            is not 0.
        generator: Source of randomness, on the same device; the global one of torch if None.
        dtype: torch.float32 or torch.float64.
        device: Where the values are drawn.

    Raises:
        UsageError: A setting is outside its range.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sample_stable((2, 3), 1.8, generator=generator).shape
        torch.Size([2, 3])
    """
    law = Standard(index=alpha, skew=beta, shifted=parametrization == "S0")
    _check(scale, loc, parametrization, dtype)
    if alpha == 1 and parametrization == "S1":
        loc += 2 / math.pi * beta * scale * math.log(scale)
    largest = torch.finfo(dtype).max

    def values(angle: Int[Tensor, "n"], waiting: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        found = law.values(angle, waiting)
        if scale == 1 and loc == 0:
            return found
        return found.mul_(scale).add_(loc).clamp_(-largest, largest)

    return _filled(torch.empty(shape, dtype=dtype, device=device), values, generator)


def sample_positive_stable(
    shape: int | tuple[int, ...],
    index: float,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> Float[Tensor, "*shape"]:
    """Independent values A > 0 of the one-sided stable law, E exp(-s A) = exp(-s^index).

    Kanter (1975). With index a / 2 and a normal vector G, sqrt(2 A) G is a vector with the
    characteristic function exp(-|u|^a).

    Raises:
        UsageError: The index is not in (0, 1), or the type is neither float32 nor float64.
    """
    _check(1.0, 0.0, "S1", dtype)
    out = torch.empty(shape, dtype=dtype, device=device)
    return _filled(out, lambda angle, waiting: positive(index, angle, waiting), generator)


def block_size(device: torch.device) -> int:
    """How many values are best drawn at once."""
    return BLOCK * torch.get_num_threads() if device.type == "cpu" else LARGE_BLOCK


def _check(scale: float, loc: float, parametrization: str, dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise UsageError(
            f"stable values are drawn as torch.float32 or torch.float64, but dtype is {dtype}"
        )
    if parametrization not in ("S0", "S1"):
        raise UsageError(f"the parametrization must be S0 or S1, but is {parametrization!r}")
    largest = torch.finfo(dtype).max
    if not 0 < scale <= largest or not abs(loc) <= largest:
        raise UsageError(
            f"a stable law needs a positive finite scale and a finite location, but got {scale} "
            f"and {loc}"
        )


def _filled(
    out: Float[Tensor, "*shape"],
    values: Callable[[Int[Tensor, "n"], Int[Tensor, "n"]], Float[Tensor, "n"]],
    generator: Generator | None,
) -> Float[Tensor, "*shape"]:
    """Block by block, so that no more than one block of bits is held."""
    if out.numel() == 0:
        return out
    words = _source(generator, out.device)
    width = torch.int32 if out.dtype == torch.float32 else torch.int64
    for part in torch.split(out.view(-1), block_size(out.device)):
        n = len(part)
        bits = words(n * out.element_size() // 4).view(width)
        part.copy_(values(bits[:n], bits[n:]))
    return out


def _source(generator: Generator | None, device: torch.device) -> Words:
    """What draws so many times 64 random bits."""
    if device.type != "cpu":
        empty = torch.empty(0, dtype=torch.int64, device=device)
        return lambda n: empty.new_empty(n).random_(-(2**63), None, generator=generator)
    # Bits of numpy cost half as much as those of torch on a processor; its seed is torch's.
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    drawn = np.random.Generator(np.random.SFC64(seed))
    ends = np.iinfo(np.int64)
    return lambda n: torch.from_numpy(
        drawn.integers(ends.min, ends.max, n, np.int64, endpoint=True)
    )
