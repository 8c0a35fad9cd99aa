"""What is done to a network, step by step, as values that can be written down."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tailor import records
from tailor.errors import RecordError, UsageError
from tailor.numerics.powerlaw import FARMS, HillMid, MatrixFit, TailFit, XminPeak
from tailor.records import Json
from tailor.stages.allocate import (
    ERK,
    LAMP,
    OWL,
    Allocation,
    AlphaPruning,
    ByDeviation,
    ByError,
    ByTailIndex,
    FixedAllocation,
    GlobalMagnitude,
    LqPerNeuron,
    PQIndex,
    Ramp,
    UniformAllocation,
)
from tailor.stages.compress.quantize import KMeans, Quantizer, Shortest, Uniform, UniformStep
from tailor.stages.scores import Magnitude, NofM, Score, SparseGPT, Wanda
from tailor.stages.shrink import (
    ActivationScore,
    ColumnNorm,
    Importance,
    PathScore,
    RowNorm,
)
from tailor.weights.views import Flattened, Standard, Taps, View

Patterns: TypeAlias = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prune:
    """Set weights to zero; see ``tailor.prune``.

    Attributes:
        sparsity: Share of all weights of the matrices that become zero, in [0, 1). None for an
            allocation that finds its own, and for a pattern.
        score: Which entries of a matrix go.
        allocation: How many entries each matrix loses.
        pattern: Such as ``NofM(n=2, m=4)`` instead of a number of entries.
        rounds: In how many rounds, with retraining after each where ``compress`` is given one:
            after round r of R the sparsity is 1 - (1 - sparsity)^(r/R) (Frankle & Carbin 2019).
        layers: Patterns of canonical names.
        skip: Patterns of names to leave alone all the same.
    """

    sparsity: float | None = None
    score: Score = field(default_factory=Magnitude, kw_only=True)
    allocation: Allocation = field(default_factory=UniformAllocation, kw_only=True)
    pattern: NofM | None = field(default=None, kw_only=True)
    rounds: int = field(default=1, kw_only=True)
    layers: Patterns = field(default="*", kw_only=True)
    skip: Patterns = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds must be at least 1, but is {self.rounds}")
        if self.rounds > 1 and self.sparsity is None:
            raise UsageError("rounds need a sparsity to come to; give one, or leave out rounds")


@dataclass(frozen=True, slots=True)
class Shrink:
    """Really remove hidden units and channels; see ``tailor.shrink``.

    Attributes:
        ratio: Share of the units of each chain that goes; 0 removes those that do nothing.
        importance: Which units go first.
        compensate: What the next layer is given for them: "none", "mean" or "lstsq".
        align: The number of units that stay is a multiple of it.
        layers: Patterns of canonical names.
        skip: Patterns of names to leave alone all the same.
    """

    ratio: float
    importance: Importance = field(default_factory=PathScore, kw_only=True)
    compensate: Literal["none", "mean", "lstsq"] = field(default="none", kw_only=True)
    align: int = field(default=1, kw_only=True)
    layers: Patterns = field(default="*", kw_only=True)
    skip: Patterns = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorize:
    """Replace matrices by two of lower rank; see ``tailor.factorize``.

    Attributes:
        rank: Rank of each.
        energy: Share of the squared norm that stays.
        params: Share of the parameters that stays.
        error: Largest relative error.
        layers: Patterns of canonical names.
        skip: Patterns of names to leave alone all the same.
    """

    rank: int | None = None
    energy: float | None = None
    params: float | None = None
    error: float | None = None
    layers: Patterns = "*"
    skip: Patterns = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain:
    """Call the function ``retrain`` of ``compress``; zeros stay zero meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Give every hidden unit of a ReLU chain without biases incoming weights of size 1.

    This changes nothing that the network computes, and one grid fits all rows; units that do
    nothing are set to zero, and live ones come first. Chains are those of ``nn.Sequential``.
    """


@dataclass(frozen=True, slots=True)
class Quantize:
    """Round weights to few values; see ``tailor.quantize``.

    Attributes:
        quantizer: The values.
        retrain: Step by step where ``compress`` is given a ``retrain``: the best fitting half of
            the weights is rounded and held, the rest retrained, and so on (Zhou et al. 2017).
        layers: Patterns of canonical names.
        skip: Patterns of names to leave alone all the same.
    """

    quantizer: Quantizer = field(default_factory=lambda: Shortest(tolerance=0.01))
    retrain: bool = field(default=True, kw_only=True)
    layers: Patterns = field(default="*", kw_only=True)
    skip: Patterns = field(default=(), kw_only=True)


Step: TypeAlias = Prune | Shrink | Factorize | Retrain | Rescale | Quantize
STEPS = (Prune, Shrink, Factorize, Retrain, Rescale, Quantize)
KINDS: dict[type[Any], tuple[type[Any], ...]] = {
    Score: (Magnitude, Wanda, SparseGPT),
    Allocation: (
        *(UniformAllocation, AlphaPruning, OWL, LAMP, ERK, Ramp, GlobalMagnitude),
        *(ByError, ByDeviation, ByTailIndex, LqPerNeuron, PQIndex, FixedAllocation),
    ),
    Quantizer: (Uniform, UniformStep, KMeans, Shortest),
    Importance: (PathScore, ActivationScore, ColumnNorm, RowNorm),
    TailFit: (HillMid, XminPeak),
    MatrixFit: (FARMS,),
    View: (Standard, Flattened, Taps),
    NofM: (NofM,),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in their order.

    Attributes:
        steps: ``Prune``, ``Shrink``, ``Factorize``, ``Retrain``, ``Rescale``, ``Quantize``.
    """

    steps: Sequence[Step]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        odd = [step for step in self.steps if type(step) not in STEPS]
        if odd:
            known = ", ".join(kind.__name__ for kind in STEPS)
            raise UsageError(f"{odd[0]!r} is no step of a recipe; take {known}")
        if not self.steps:
            raise UsageError("a recipe needs a step, such as Prune(0.9) or Quantize()")

    def to_json(self) -> list[Json]:
        """The steps as JSON values.

        Raises:
            UsageError: A step has a method of your own, or a function, in it.
        """
        return [_said(step, type(step).__name__) for step in self.steps]

    @classmethod
    def from_json(cls, value: Json) -> "Recipe":
        """The recipe that ``to_json`` wrote.

        Raises:
            RecordError: It is no recipe.
        """
        if not isinstance(value, list):
            raise RecordError("a recipe must be a list of steps")
        return cls(tuple(_read(one, STEPS, f"step {i + 1}") for i, one in enumerate(value)))

    def __str__(self) -> str:
        return ", then ".join(map(brief, self.steps))

    def with_uniform(self) -> "Recipe":
        """The same with uniform shares wherever an allocation shares out a sparsity."""
        return Recipe(tuple(_with_uniform(step) for step in self.steps))

    def written(self) -> str:
        """All of it as one line of JSON, for a file; what people read if it cannot be so."""
        try:
            return json.dumps(self.to_json(), separators=(",", ":"))
        except UsageError:
            return str(self)


def _with_uniform(step: Step) -> Step:
    if not isinstance(step, Prune) or isinstance(step.allocation, UniformAllocation):
        return step
    shares = step.allocation.takes_sparsity and step.pattern is None
    return dataclasses.replace(step, allocation=UniformAllocation()) if shares else step


def brief(value: Any) -> str:
    """A method value as its call, without the fields that are as by default.

    >>> brief(Prune(0.5))
    'Prune(sparsity=0.5)'
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    said = [
        f"{one.name}={brief(getattr(value, one.name))}"
        for one in dataclasses.fields(value)
        if one.init and one.repr and getattr(value, one.name) != _default(one)
    ]
    return f"{type(value).__name__}({', '.join(said)})"


def _default(one: "dataclasses.Field[Any]") -> Any:
    if one.default_factory is not dataclasses.MISSING:
        return one.default_factory()
    return one.default


def _said(value: Any, where: str) -> Json:
    """A method value as JSON: its type, and the fields that are not as by default."""
    known = {kind for kinds in KINDS.values() for kind in kinds} | set(STEPS)
    if type(value) not in known:
        try:
            return records.to_json(value)
        except RecordError:
            kind = type(value).__name__
            raise UsageError(f"{where} is of your own type {kind}, which a file lacks") from None
    fields = {
        one.name: getattr(value, one.name)
        for one in dataclasses.fields(value)
        if one.init and getattr(value, one.name) != _default(one)
    }
    return {"type": type(value).__name__} | {
        name: _said(one, f"{where}.{name}") for name, one in fields.items()
    }


def _read(value: Json, kinds: Sequence[type[Any]], where: str) -> Any:
    """A method value of one of those types."""
    tag = value.get("type") if isinstance(value, dict) else None
    kind = next((kind for kind in kinds if kind.__name__ == tag), None)
    if kind is None or not isinstance(value, dict):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise RecordError(f"{where} must be one of {names}, but is {json.dumps(value)[:60]}")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in known | {"type"}:
            raise RecordError(f"{where} has no field {name!r}")
    given = {
        name: _field(one, hints[name], f"{where}.{name}")
        for name, one in value.items()
        if name != "type"
    }
    try:
        return kind(**given)
    except (TypeError, UsageError) as error:
        raise RecordError(f"{where} cannot be: {error}") from error


def _field(value: Json, hint: Any, where: str) -> Any:
    parts = typing.get_args(hint) or (hint,)
    kinds = [kind for part in parts for kind in KINDS.get(part, ())]
    if kinds and isinstance(value, dict):
        return _read(value, kinds, where)
    return records.read_value(hint, value, where)
