"""From random bits to alpha-stable and normal values: the method of Chambers, Mallows & Stuck.

Pure functions of integers, so that the same integers give the same values whoever drew them.
Each value takes two integers, both of 32 bits for float32 or both of 64 bits for float64.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.errors import UsageError

NEAREST_TO_ONE = 2.0**-60  # at index 1 with a skew, 1 - index; the limit, to all digits
CLOSE = 1 / 16  # so near to index 1, S0 is not found by subtracting b
STEEPEST = 1e30  # most that (1 - index) / index may be, so that float32 holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """A standard stable law in the parametrisation S1 or S0 of Nolan (2020, section 1.3).

    With b = skew tan(pi index / 2), S1 has the characteristic function
    exp(-|t|^index (1 - i b sign t)); S0 is S1 less b, and is continuous in the index at 1. At
    index 1 both have exp(-|t| (1 + (2i/pi) skew sign(t) log|t|)). At index 2 the law is the
    normal one of variance 2.

    Attributes:
        index: Tail index, in (0, 2].
        skew: From -1 to 1; without effect at index 2.
        shifted: Whether it is S0.
    """

    index: float
    skew: float = 0.0
    shifted: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.index <= 2 or not -1 <= self.skew <= 1:
            raise UsageError(
                "a stable law needs a tail index in (0, 2] and a skewness in [-1, 1], but got "
                f"{self.index} and {self.skew}"
            )

    def values(self, angle: Int[Tensor, "*n"], waiting: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """One value for each pair of integers; always finite.

        Chambers, Mallows & Stuck (1976), rearranged. With V = pi (1/2 - |x|) sign(x) uniform on
        (-pi/2, pi/2), W exponential, e = 1 - index, z = (cos eV + b sin eV) / (W cos V) and
        N = (sin(index V) + b cos(index V)) / cos V, the value is S1 = N z^(e/index). Everything
        is written in |x|, the distance of V from the edge over pi: the tails come from there.

        Args:
            angle: Gives x, evenly from -1/2 to 1/2 and never 0.
            waiting: Gives W.
        """
        if self.index == 2:
            return normals(waiting, angle)[1].mul_(math.sqrt(2))
        x = _evenly(angle, 0.5)
        if self.index == 1 and self.skew == 0:
            return _bounded(x.mul_(math.pi).tan_().reciprocal_())  # tan V: the Cauchy law
        wait = _evenly(waiting, 1.0).abs_().neg_().log1p_()  # -W
        if self.skew == 0:
            return self._symmetric(x, wait)
        if abs(1 - self.index) <= 0.5:
            return self._near_one(x, wait)
        return self._far_from_one(x, wait)

    @property
    def _e(self) -> float:
        """1 - index; not 0 where there is a skew, so that b is finite."""
        return 1 - self.index or (NEAREST_TO_ONE if self.skew else 0.0)

    def _symmetric(self, x: Float[Tensor, "*n"], wait: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """N = sin(index V) / cos V and z = cos(eV) / (W cos V)."""
        index, far = self.index, abs(1 - self.index)
        d, edge = x.abs(), torch.sin(math.pi * x)  # cos V, with the sign of V
        log = self._power(_sine((1 - far) / 2, far, d), wait.mul_(edge))
        # The angle whose sine is taken is small at the edge where the result is small there.
        rise = _sine(min(index, 2 - index) / 2, math.copysign(index, index - 1), d)
        return _product(rise.div_(edge), log)

    def _near_one(self, x: Float[Tensor, "*n"], wait: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Index from 1/2 to 3/2, where b may be huge: N - b is found without subtracting b.

        With A = cos eV + b sin eV it is tan V A - sin eV - b (1 - cos eV). Near index 1,
        S0 = N (z^(e/index) - 1) + (N - b).
        """
        e = self._e
        far, half, lean = abs(e), math.pi * abs(e) / 2, self.skew / math.tan(math.pi * e / 2)
        d, sign = x.abs(), x.sign()
        tangent = torch.mul(x, math.pi / 2).tan_()
        inverse = tangent.reciprocal()
        secant = inverse + tangent  # 2 / cos V
        rest = inverse.sub_(tangent)  # 2 tan V
        upper, lower = _sine(far, -far, d), _sine(0, far, d)
        sine = (upper - lower).mul_(0.5 / math.cos(half))  # of |eV|
        cosine_and_one = _line(1.0, 0.5 / math.sin(half), upper + lower)
        opening = self._weighted(lower, upper, sign).mul_(0.5 / math.sin(half))  # A / 2
        rest.mul_(opening).sub_(sign.mul_(sine), alpha=math.copysign(1, e))
        rest.sub_(sine.square_().div_(cosine_and_one), alpha=lean)
        log = self._power(opening.mul_(secant), wait)
        if far < CLOSE and (self.shifted or self.index == 1):
            return _bounded((rest + lean).mul_(log.expm1_()).add_(rest))
        value = _product(rest.add_(lean), log)
        return _bounded(value.sub_(lean)) if self.shifted else value

    def _far_from_one(
        self, x: Float[Tensor, "*n"], wait: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """All terms have one sign, so that a law on a half-line stays there (Kanter 1975)."""
        index, far = self.index, abs(1 - self.index)
        side, slope = (index, -index) if index < 1 else (2 - index, index)
        d, sign, edge = x.abs(), x.sign(), torch.sin(math.pi * x)
        opening = self._weighted(_sine(0, far, d), _sine(1 - far, far, d), sign)
        opening.mul_(1 / math.sin(math.pi * far / 2))
        log = self._power(opening, wait.mul_(edge))
        rise = self._weighted(_sine(0, slope, d), _sine(side, slope, d), sign)
        value = _product(rise.div_(edge).mul_(1 / math.cos(math.pi * side / 2)), log)
        if not self.shifted:
            return value
        return _bounded(value.sub_(self.skew * math.tan(math.pi * index / 2)))

    def _weighted(
        self, lower: Float[Tensor, "*n"], upper: Float[Tensor, "*n"], sign: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """Lower times (1 - s skew) / 2 plus upper times (1 + s skew) / 2, s the sign of V."""
        return torch.lerp(lower, upper, _line(0.5, self.skew / 2, sign))

    def _power(
        self, opening: Float[Tensor, "*n"], lost: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """Logarithm of |opening / lost|^(e / index), at most that of the largest number."""
        power = min(self._e / self.index, STEEPEST)
        top = math.log(torch.finfo(lost.dtype).max) - 0.5
        return opening.div_(lost).abs_().log_().mul_(power).clamp_(max=top)


def positive(
    index: float, angle: Int[Tensor, "*n"], waiting: Int[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Positive stable values A with E exp(-s A) = exp(-s^index), 0 < index < 1 (Kanter 1975)."""
    if not 0 < index < 1:
        raise UsageError(f"a positive stable law needs a tail index in (0, 1), but got {index}")
    factor = math.sin(math.pi * (1 - index) / 2) ** (1 / index)
    return Standard(index=index, skew=1.0).values(angle, waiting).mul_(factor)


def normals(
    radius: Int[Tensor, "*n"], angle: Int[Tensor, "*n"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Two independent standard normal values for each pair of integers (Box & Muller 1958)."""
    length = _evenly(radius, 1.0).abs_().log_().mul_(-2).sqrt_()
    turn = _evenly(angle, math.pi)
    return torch.cos(turn).mul_(length), turn.sin_().mul_(length)


def _evenly(bits: Int[Tensor, "*n"], reach: float) -> Float[Tensor, "*n"]:
    """(k + 1/2) times a step, from -reach to reach; never 0, and never 1 for ``reach`` 1.

    Near 0 all digits are right: a number of 24 digits at 2^-33 is told from its neighbours.
    """
    width = 8 * bits.element_size()
    dtype = torch.float32 if width == 32 else torch.float64
    step = reach * 2.0 ** (1 - width)
    if reach == 1:
        step *= 1 - torch.finfo(dtype).eps / 2
    return _line(step / 2, step, bits.to(dtype))


def _line(start: float, slope: float, d: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Start + slope d, in one pass."""
    return torch.add(torch.scalar_tensor(start, dtype=d.dtype), d, alpha=slope)


def _sine(start: float, slope: float, d: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Sine of pi (start + slope d)."""
    return _line(math.pi * start, math.pi * slope, d).sin_()


def _product(rise: Float[Tensor, "*n"], log: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return _bounded(rise.mul_(log.exp_()))


def _bounded(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In place; the largest finite number instead of infinity."""
    largest = torch.finfo(values.dtype).max
    return values.clamp_(-largest, largest)
