"""Records on disk: what is written is read back equal, and nothing else is accepted."""

import errno
import hashlib
import json
import os
import stat
import types
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor import (
    Analyses,
    Analysis,
    Certificate,
    LayerAnalysis,
    NoFit,
    OccamBound,
    OutputError,
    PowerLawFit,
    Provenance,
    RecordError,
    Verification,
    load,
    records,
    save,
)
from tailor.shell import demo
from tailor.stages.analyze import Histogram, Skipped, Survival
from tailor.stages.certify import CodeBits, HeldOutErrors
from tailor.verifier import Check

# Strategies build records, and beartype draws at random which items of a tuple it checks.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

STAGES = [Analyses, Analysis, LayerAnalysis, Histogram, Survival, Skipped, Certificate, CodeBits]
STAGES += [HeldOutErrors, Verification, Check, OccamBound, PowerLawFit, NoFit, Provenance]
KINDS = [*STAGES, demo.Compression, demo.Stage, demo.Point, demo.Epoch]

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates and control characters included
PLAIN = {
    float: st.floats(allow_nan=False, allow_infinity=False),
    int: st.integers(),
    str: TEXT,
    bool: st.booleans(),
    types.NoneType: st.none(),
}


def some(kind: object) -> st.SearchStrategy[object]:
    """Any value that an annotation of a record allows."""
    arguments = typing.get_args(kind)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{field.name: some(hints[field.name]) for field in fields(kind)})
    if typing.get_origin(kind) is tuple:
        assert arguments[1:] == (Ellipsis,)
        return st.lists(some(arguments[0]), max_size=2).map(tuple)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(TEXT, some(arguments[1]), max_size=2)
    if arguments:  # a union
        return st.one_of([some(argument) for argument in arguments])
    return PLAIN[kind]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | PLAIN[float] | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NOFIT = NoFit(reason="too few", n=3)
BOUND = OccamBound(binomial=0.4, kl=0.5, hoeffding=0.6, empirical=0.1)


def stored(kind: type, text: str | bytes, folder: Path) -> object:
    """Load a record from a file with this content."""
    path = folder / "record.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(kind, path)


# There and back


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(drawn=st.data())
def test_every_record_survives_its_json(kind, drawn):
    record = drawn.draw(some(kind))
    text = json.dumps(records.to_json(record), allow_nan=False)
    back = records.from_json(kind, json.loads(text))
    assert back == record
    assert repr(back) == repr(record)  # -0.0 and the types of numbers, too


@pytest.mark.parametrize("value", [3, 3.0, -0.0, 10**17 + 1, "3", None])
def test_a_number_in_a_union_keeps_its_type(value):
    kind = float | int | str | None
    back = records.read_value(kind, json.loads(json.dumps(value)), "x")
    assert repr(back) == repr(value)


@settings(max_examples=20)
@given(drawn=st.data())
def test_every_record_survives_its_file(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("records") / "certificate.json"
    record = drawn.draw(some(Certificate))
    assert save(record, path) == path
    assert load(Certificate, path) == record


@given(JSON)
def test_pretty_text_means_the_same(value):
    text = records._pretty(value)
    assert json.loads(text) == value
    assert text.isascii()


def test_pretty_text_keeps_a_row_of_numbers_on_one_line():
    text = records._pretty({"a": [1, 2], "b": [[1], {}], "c": {"d": []}})
    lines = ["{", ' "a": [1, 2],', ' "b": [', "  [1],", "  {}", " ],", ' "c": {', '  "d": []']
    assert text.splitlines() == [*lines, " }", "}"]


def test_provenance_describes_this_process():
    about = Provenance.now(3, rate=0.5, method=NOFIT)
    assert about.torch == str(torch.__version__)
    assert about.seed == 3
    assert about.settings == {"rate": "0.5", "method": str(NOFIT)}


# What has no place in a record


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value, tmp_path):
    with pytest.raises(RecordError, match=f"must hold finite numbers, but one is {value}"):
        save(replace(BOUND, kl=value), tmp_path / "bound.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [torch.ones(2), {1, 2}, b"bytes", 1j, NoFit, object()])
def test_other_values_are_not_written(value):
    with pytest.raises(RecordError, match=f"a {type(value).__name__} has no place in a record"):
        records.to_json({"deep": [value]})


# What is not read


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=5)
@given(drawn=st.data())
def test_missing_and_unknown_fields_are_refused(kind, drawn):
    whole = records.to_json(drawn.draw(some(kind)))
    name = drawn.draw(st.sampled_from(sorted(set(whole) - {"type"})))
    missing = {key: value for key, value in whole.items() if key != name}
    with pytest.raises(RecordError, match=f"{kind.__name__} has unknown or missing fields: {name}"):
        records.from_json(kind, missing)
    with pytest.raises(RecordError, match="has unknown or missing fields: odd"):
        records.from_json(kind, whole | {"odd": 1})
    with pytest.raises(RecordError, match=f'must be an object with "type": "{kind.__name__}"'):
        records.from_json(kind, {k: v for k, v in whole.items() if k != "type"})


@pytest.mark.parametrize(
    ("field", "value", "needed"),
    [
        ("n", "3", "int"),
        ("n", 3.0, "int"),
        ("n", True, "int"),
        ("n", None, "int"),
        ("reason", 3, "str"),
        ("reason", ["too few"], "str"),
    ],
)
def test_wrong_types_are_refused(field, value, needed):
    said = json.dumps(value).replace("[", r"\[")
    with pytest.raises(RecordError, match=rf"NoFit\.{field} must be {needed}, .* says {said}"):
        records.from_json(NoFit, records.to_json(NOFIT) | {field: value})


@pytest.mark.parametrize("value", [True, "0.5", None, [], float("nan"), float("inf"), 10**400])
def test_what_is_no_float_is_refused(value):
    with pytest.raises(RecordError, match=r"OccamBound\.kl must be float, but the file says"):
        records.from_json(OccamBound, records.to_json(BOUND) | {"kl": value})


def test_a_whole_number_is_a_float():
    read = records.from_json(OccamBound, records.to_json(BOUND) | {"kl": 1})
    assert (read.kl, type(read.kl)) == (1.0, float)


def test_the_tag_chooses_among_records():
    union = {"type": "Verification", "holds": True, "checks": []}
    with pytest.raises(RecordError, match='Check must be an object with "type": "Check"'):
        records.from_json(Check, union)
    layer = _layer()
    with pytest.raises(RecordError, match=r"spectrum must be PowerLawFit \| NoFit, but .* says"):
        records.from_json(LayerAnalysis, layer | {"spectrum": records.to_json(BOUND)})
    with pytest.raises(RecordError, match=r"spectrum must be PowerLawFit \| NoFit, but .* null"):
        records.from_json(LayerAnalysis, layer | {"spectrum": None})


def test_a_record_with_the_right_tag_is_refused_for_its_own_fault():
    fit = records.to_json(NOFIT) | {"n": "3"}
    with pytest.raises(RecordError, match=r"LayerAnalysis\.spectrum\.n must be int"):
        records.from_json(LayerAnalysis, _layer() | {"spectrum": fit})
    with pytest.raises(RecordError, match=r"LayerAnalysis\.shape\[1\] must be int"):
        records.from_json(LayerAnalysis, _layer() | {"shape": [3, "4"]})
    with pytest.raises(RecordError, match=r"LayerAnalysis\.shape must be tuple\[int, \.\.\.\]"):
        records.from_json(LayerAnalysis, _layer() | {"shape": 3})


def _layer() -> dict[str, object]:
    numbers = dict.fromkeys(("zeros", "frobenius_norm", "spectral_norm", "stable_rank"), 1.0)
    layer = LayerAnalysis(
        name="w",
        tensor="w",
        kind="matrix",
        shape=(3, 4),
        dtype="float32",
        aliases=(),
        rows=3,
        columns=4,
        matrices=1,
        singular_values=(1.0,),
        entropy=None,
        matrix_rank=1,
        sv_min=None,
        spectrum=NOFIT,
        verdict="undecided",
        log_alpha_norm=None,
        detX_num=0,
        entries=NOFIT,
        measures={"num_spikes": 3, "sigma_mp": 1.0, "reason": None},
        histogram=Histogram(low=-1.0, high=1.0, counts=(1,)),
        survival=Survival(x=(), share=()),
        seconds=0.1,
        **numbers,
    )
    return records.to_json(layer)


def only_reads_or_refuses(kind: type, value: object) -> None:
    try:
        record = records.from_json(kind, value)
    except RecordError as refused:
        assert kind.__name__ in str(refused)  # noqa: PT017 - both ends are good
    else:
        assert isinstance(record, kind)


@pytest.mark.parametrize("tag", [[], {}, 3, None, "HeldOutErrors"])
def test_an_odd_tag_in_a_union_is_refused(tag):
    with pytest.raises(
        RecordError, match=r"^x must be HeldOutErrors|^x has unknown or missing fields"
    ):
        records.read_value(HeldOutErrors | None, {"type": tag}, "x")


@given(JSON)
def test_any_json_is_read_or_refused(value):
    only_reads_or_refuses(Certificate, value)


@settings(max_examples=50)
@given(st.data())
def test_a_record_with_one_value_changed_is_read_or_refused(drawn):
    value = whole = records.to_json(drawn.draw(some(Certificate)))
    while True:
        key = drawn.draw(st.sampled_from(sorted(value)))
        if not (isinstance(value[key], dict) and value[key] and drawn.draw(st.booleans())):
            break
        value = value[key]
    value[key] = drawn.draw(JSON)
    only_reads_or_refuses(Certificate, whole)


@pytest.mark.parametrize("text", ["", "{", "nope", "\x00", '{"type": "NoFit"} x', b"\xff\xfe\xfd"])
def test_what_is_no_json_is_refused(tmp_path, text):
    with pytest.raises(RecordError, match=r"record\.json is not valid JSON: "):
        stored(NoFit, text, tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_lacks_are_refused(tmp_path, number):
    with pytest.raises(RecordError, match=f"{number} is not a JSON number"):
        stored(NoFit, f'{{"type": "NoFit", "reason": "", "n": {number}}}', tmp_path)


@pytest.mark.parametrize("number", ["1e999", "9" * 400])
def test_numbers_beyond_the_floats_are_refused(tmp_path, number):
    text = json.dumps(records.to_json(BOUND)).replace("0.5", number)
    with pytest.raises(RecordError, match=r"OccamBound\.kl must be float"):
        stored(OccamBound, text, tmp_path)


def test_numbers_too_long_for_python_are_refused(tmp_path):
    with pytest.raises(RecordError, match=r"is not valid JSON: Exceeds the limit"):
        stored(NoFit, f'{{"type": "NoFit", "reason": "", "n": {"9" * 5000}}}', tmp_path)


@pytest.mark.parametrize("depth", [100, *range(900, 1001, 5), 10**5])
def test_deep_nesting_is_refused(tmp_path, depth):
    # Near the limit it is not the parser that fails, but the message that shows the value.
    deep = "[" * depth + "]" * depth
    with pytest.raises(RecordError, match=r"must be str|not valid JSON"):
        stored(NoFit, f'{{"type": "NoFit", "reason": {deep}, "n": 1}}', tmp_path)


def test_a_field_that_stands_twice_is_refused(tmp_path):
    # A reader would see the first value, and tailor would check the last.
    with pytest.raises(RecordError, match="n stands twice"):
        stored(NoFit, '{"type": "NoFit", "reason": "", "n": 1, "n": 2}', tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"there is no file .*none\.json"):
        load(NoFit, tmp_path / "none.json")
    with pytest.raises(RecordError, match="cannot be read: Is a directory"):
        load(NoFit, tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(RecordError, match="is larger than 10 bytes: not a tailor record"):
        stored(NoFit, "{          }", tmp_path)


# Writing


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = save(NOFIT, tmp_path / "record.json")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError, match=r"record\.json cannot be written \(No space left"):
        save(BOUND, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_stopped_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        save(NOFIT, tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_before_all_bytes_are_safe(tmp_path, monkeypatch):
    path, order = save(NOFIT, tmp_path / "record.json"), []
    for step in ("fsync", "replace"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *a, s=step, r=real: (order.append(s), r(*a)))
    save(BOUND, path)
    assert order == ["fsync", "replace"]
    assert load(OccamBound, path) == BOUND


def test_folders_are_made_on_the_way(tmp_path):
    path = tmp_path / "new" / "er" / "record.json"
    assert load(NoFit, save(NOFIT, path)) == NOFIT


@pytest.mark.parametrize("place", ["file/record.json", "folder", "x" * 300])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written \(.+\); choose another folder"):
        save(NOFIT, tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o000])
def test_the_file_has_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = save(NOFIT, tmp_path / "record.json")
        assert os.umask(mask) == mask  # and the mask itself is what it was
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


# Digests


def test_a_digest_is_the_hash_of_the_canonical_text():
    text = b'{"a":[1,2.5],"b":"\\u00e9"}'
    assert records.digest({"b": "é", "a": [1, 2.5]}) == hashlib.sha256(text).hexdigest()


@given(JSON, JSON)
def test_digests_are_equal_only_for_equal_json(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (records.digest(one) == records.digest(other)) == same
