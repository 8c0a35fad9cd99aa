"""Method values on the command line: ``name`` or ``name:field=value,field=value``.

A value that is a method itself is written ``name(field=value,...)``, as in
``stable-rank:weight=1e-3,schedule=power-decay(period=100)``. Names may have underscores, and
fields hyphens.
"""

import ast
import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeAlias

from tailor import records
from tailor.errors import RecordError, UsageError
from tailor.numerics.powerlaw import (
    FARMS,
    Clauset,
    DekkersEinmahlDeHaan,
    Hill,
    HillMid,
    Pickands,
    RobustClauset,
    TailFit,
    WeightWatcherCompat,
    XminPeak,
)
from tailor.shell.training.choices import SGD, Adam, AdamW, Balance, HeldOutPatience
from tailor.stages.allocate import (
    ERK,
    LAMP,
    AlphaPruning,
    ByDeviation,
    ByError,
    ByTailIndex,
    GlobalMagnitude,
    LqPerNeuron,
    PQIndex,
    Ramp,
    UniformAllocation,
)
from tailor.stages.analyze import (
    Compressible,
    MarchenkoPastur,
    PValue,
    Rivals,
    RowsAndColumns,
    Shuffled,
    StableIndex,
)
from tailor.stages.certify import HeldOut, Occam
from tailor.stages.compress import KMeans, Shortest, Uniform, UniformStep
from tailor.stages.noise import StableNoise
from tailor.stages.regularize import (
    L1,
    L2,
    FrechetPrior,
    GroupLasso,
    HorseshoeNodes,
    LogSpectralNorm,
    PowerLawPrior,
    SpectralNorm,
    StableRank,
    StudentPrior,
    TailExponent,
    WeightedAlpha,
)
from tailor.stages.schedule import (
    Constant,
    CosineDecay,
    ExpDecay,
    LinearDecay,
    PowerDecay,
    Schedule,
    Window,
)
from tailor.stages.scores import Magnitude
from tailor.stages.train import SpectrumSettles
from tailor.weights.views import Circulant, Experts, Flattened, Grouped, Standard, Taps, View

Table: TypeAlias = dict[str, type[Any]]
Fields: TypeAlias = dict[str, records.Json]

# Analyze

TAILS: Table = {
    "clauset": Clauset,
    "robust": RobustClauset,
    "hill": Hill,
    "hill-mid": HillMid,
    "xmin-peak": XminPeak,
    "dekkers": DekkersEinmahlDeHaan,
    "pickands": Pickands,
    "weightwatcher": WeightWatcherCompat,
}
SPECTRA: Table = TAILS | {"farms": FARMS}
VIEWS: Table = {
    "standard": Standard,
    "flattened": Flattened,
    "taps": Taps,
    "circulant": Circulant,
    "grouped": Grouped,
    "experts": Experts,
}
MEASURES: Table = {
    "bulk": MarchenkoPastur,
    "shuffled": Shuffled,
    "p-value": PValue,
    "rivals": Rivals,
    "compressible": Compressible,
    "stable": StableIndex,
    "rows-and-columns": RowsAndColumns,
}

# Train

PENALTIES: Table = {
    "l1": L1,
    "l2": L2,
    "student-prior": StudentPrior,
    "group-lasso": GroupLasso,
    "horseshoe-nodes": HorseshoeNodes,
    "spectral-norm": SpectralNorm,
    "log-spectral-norm": LogSpectralNorm,
    "stable-rank": StableRank,
    "frechet-prior": FrechetPrior,
    "tail-exponent": TailExponent,
    "weighted-alpha": WeightedAlpha,
    "power-law-prior": PowerLawPrior,
}
NOISES: Table = {"stable": StableNoise}
SCHEDULES: Table = {
    "constant": Constant,
    "cosine-decay": CosineDecay,
    "linear-decay": LinearDecay,
    "power-decay": PowerDecay,
    "exp-decay": ExpDecay,
    "window": Window,
}
OPTIMIZERS: Table = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
BALANCES: Table = {"temp-balance": Balance}
STOPS: Table = {"patience": HeldOutPatience, "settles": SpectrumSettles}

# Compress

SCORES: Table = {"magnitude": Magnitude}
ALLOCATIONS: Table = {
    "uniform": UniformAllocation,
    "alpha": AlphaPruning,
    "global": GlobalMagnitude,
    "lamp": LAMP,
    "erk": ERK,
    "ramp": Ramp,
    "error": ByError,
    "deviation": ByDeviation,
    "tail-index": ByTailIndex,
    "lq": LqPerNeuron,
    "pq-index": PQIndex,
}
QUANTIZERS: Table = {
    "shortest": Shortest,
    "uniform-step": UniformStep,
    "uniform": Uniform,
    "kmeans": KMeans,
}

# Certify

BOUNDS: Table = {"occam": Occam, "held-out": HeldOut}

# A field of such a type holds a method of such a table.
NESTED: tuple[tuple[type[Any], Table], ...] = (
    (Schedule, SCHEDULES),
    (View, VIEWS),
    (TailFit, SPECTRA),
)


def named(table: Table) -> str:
    """The names of a table, and how settings are written, for ``--help``."""
    return f"one of {', '.join(table)}; with settings: name:field=value,field=value"


def method(
    text: str, table: Table, option: str, fill: Mapping[str, records.Json] | None = None
) -> Any:
    """The method value that a text names.

    Args:
        text: ``name`` or ``name:field=value,field=value``.
        table: The methods there are.
        option: What the text was given for, as errors name it.
        fill: Values of fields that the text leaves open, for methods that have such fields.

    Raises:
        UsageError: No such method or field, or a value that it does not take.
    """
    name, _, inside = text.partition(":")
    return _built(name, _fields(inside, option, text), table, _Asked(option, text, fill or {}))


def as_text(value: object, option: str) -> str:
    """The text of a method that a file has as a text or as a table with its ``name``.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(value, str):
        return value
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str):
        raise UsageError(
            f"{option} must be a text such as name:field=value, or a table with a name, but is "
            f"{str(value)[:60]}"
        )
    fields = ",".join(_said(f, one, option) for f, one in value.items() if f != "name")
    return f"{name}:{fields}" if fields else name


def _said(field: str, value: object, option: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        name, _, inside = as_text(value, option).partition(":")
        return f"{field}={name}({inside})"
    try:
        return f"{field}={json.dumps(value, ensure_ascii=False, allow_nan=False)}"
    except (TypeError, ValueError) as error:  # TOML has dates, inf and nan
        raise UsageError(f"{option}: {field} cannot be {value}") from error


# From names and fields to a value


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What sentences of a refusal name, and what open fields are filled with."""

    option: str
    text: str
    fill: Mapping[str, records.Json]


def _built(name: str, given: Fields, table: Table, asked: _Asked) -> Any:
    option, name = asked.option, name.strip().replace("_", "-")
    if name not in table:
        raise UsageError(f"{option} {name!r} is unknown; choose one of {', '.join(table)}")
    kind = table[name]
    known = _known(kind)
    for field in given:
        if field not in known:
            has = ", ".join(known) or "none"
            raise UsageError(f"{option} {name} has no field {field!r}; it has {has}")
    given = {field: value for field, value in asked.fill.items() if field in known} | given
    for field in _needed(kind):
        if field not in given:
            raise UsageError(f"{option} {name} needs {field}, as in {name}:{field}=...")
    return kind(**{f: _read(name, f, known[f], value, asked) for f, value in given.items()})


def _read(name: str, field: str, hint: Any, value: records.Json, asked: _Asked) -> Any:
    """The value of one field, which may be a method itself."""
    inner = next((table for kind, table in NESTED if _holds(hint, kind)), None)
    if inner is not None and isinstance(value, str):
        within = dataclasses.replace(asked, option=f"{asked.option} {name}: {field}")
        return _built(*_inside(value, asked), inner, within)
    try:
        return records.read_value(hint, value, f"{name}.{field}")
    except RecordError as error:
        said = str(error).replace("the file says", "it is")
        raise UsageError(f"{asked.option} {asked.text!r}: {said}") from error


def _known(kind: type[Any]) -> dict[str, Any]:
    """Fields that can be given, and their types."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _needed(kind: type[Any]) -> list[str]:
    return [
        one.name
        for one in dataclasses.fields(kind)
        if one.init
        and one.default is dataclasses.MISSING
        and one.default_factory is dataclasses.MISSING
    ]


def _holds(hint: Any, kind: type[Any]) -> bool:
    return hint is kind or kind in typing.get_args(hint)


# From text to names and fields

# A quoted text, or one sign.
_ATOM = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|.', re.DOTALL)


def _inside(text: str, asked: _Asked) -> tuple[str, Fields]:
    """Name and fields of ``name(field=value,...)``, or of a name alone."""
    found = re.fullmatch(r"([\w -]+)(?:\((.*)\))?", text.strip(), re.DOTALL)
    if found is None:
        raise UsageError(
            f"{asked.option} {asked.text!r} needs name(field=value,...), but has {text!r}"
        )
    return found[1], _fields(found[2] or "", asked.option, asked.text)


def _fields(text: str, option: str, whole: str) -> Fields:
    """Values by field of ``field=value,field=value``."""
    found: Fields = {}
    for part in filter(str.strip, _parts(text)):
        field, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{option} {whole!r} needs field=value, but has {part!r}")
        field = field.strip().replace("-", "_")
        if field in found:
            raise UsageError(f"{option} {whole!r} gives {field} twice")
        found[field] = _value(value.strip())
    return found


def _parts(text: str) -> list[str]:
    """What stands between commas, but not those in brackets or quotes."""
    depth, parts = 0, [""]
    for atom in _ATOM.findall(text):
        depth += (atom in "([{") - (atom in ")]}")
        if atom == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += atom
    return parts


def _value(text: str) -> records.Json:
    """A JSON value or Python literal; anything else is text."""
    for reads in (json.loads, ast.literal_eval):
        try:
            value = reads(text)
            json.dumps(value)
        except (ValueError, SyntaxError, TypeError):
            continue
        return list(value) if isinstance(value, tuple) else typing.cast(records.Json, value)
    return text
