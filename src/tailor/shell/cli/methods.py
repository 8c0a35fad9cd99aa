"""Method values on the command line: ``name`` or ``name:field=value,field=value``."""

import ast
import dataclasses
import json
import typing
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
    WeightWatcherCompat,
    XminPeak,
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
from tailor.weights.views import Circulant, Experts, Flattened, Grouped, Standard, Taps

Table: TypeAlias = dict[str, type[Any]]

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


def method(text: str, table: Table, option: str) -> Any:
    """The method value that a text names.

    Raises:
        UsageError: No such method or field, or a value that it does not take.
    """
    name, _, fields = text.partition(":")
    if name not in table:
        raise UsageError(f"{option} {name!r} is unknown; choose one of {', '.join(table)}")
    kind = table[name]
    given = dict(_pair(part, option, text) for part in fields.split(",") if part)
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for field in given:
        if field not in known:
            has = ", ".join(known) or "none"
            raise UsageError(f"{option} {name} has no field {field!r}; it has {has}")
    for one in dataclasses.fields(kind):
        free = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if free and one.name not in given:
            raise UsageError(f"{option} {name} needs {one.name}, as in {name}:{one.name}=...")
    try:
        return kind(**{f: records.read_value(known[f], v, f"{name}.{f}") for f, v in given.items()})
    except RecordError as error:
        raise UsageError(f"{option} {text!r}: {error}".replace("the file says", "it is")) from error


def _pair(part: str, option: str, text: str) -> tuple[str, records.Json]:
    field, equals, value = part.partition("=")
    if not equals:
        raise UsageError(f"{option} {text!r} needs field=value, but has {part!r}")
    return field.strip(), _value(value.strip())


def _value(text: str) -> records.Json:
    """A JSON value or Python literal; anything else is text."""
    for reads in (json.loads, ast.literal_eval):
        try:
            value = reads(text)
        except (ValueError, SyntaxError):
            continue
        return list(value) if isinstance(value, tuple) else typing.cast(records.Json, value)
    return text
