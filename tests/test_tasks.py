"""Tasks: how they are found, what identifies data, and what counts as an error."""

import copy
import hashlib
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from tailor import DIGITS, Data, Task, TaskError, UsageError, zero_one
from tailor.tasks import find


class Fixed(nn.Module):
    """A classifier whose scores are given, whatever the inputs."""

    def __init__(self, scores: object) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: Tensor) -> object:
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


def data(*labels: int) -> Data:
    return Data(x=torch.zeros(len(labels), 2), y=torch.tensor(labels, dtype=torch.int64))


def errors(scores: object, *labels: int) -> list[bool]:
    return zero_one(Fixed(scores), data(*labels)).tolist()


# Errors

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 4))


def scores_of(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Tensor]:
    return arrays.arrays("float64", SHAPES, elements=elements).map(torch.as_tensor)


@given(scores_of(st.integers(-2, 2).map(float)), st.data())
def test_an_example_is_right_only_if_its_class_alone_is_first(scores, drawn):
    label = st.integers(0, scores.shape[1] - 1)
    labels = drawn.draw(st.lists(label, min_size=len(scores), max_size=len(scores)))
    for row, label, wrong in zip(scores, labels, errors(scores, *labels), strict=True):
        rivals = [value for k, value in enumerate(row.tolist()) if k != label]
        assert wrong == any(rival >= row[label] for rival in rivals)


@given(scores_of(st.floats(-10, 10)), st.data())
def test_without_ties_it_is_argmax(scores, drawn):
    ranks = scores.argsort(dim=1).argsort(dim=1).double()  # the same order, all different
    label = st.integers(0, scores.shape[1] - 1)
    labels = drawn.draw(st.lists(label, min_size=len(scores), max_size=len(scores)))
    assert errors(ranks, *labels) == (ranks.argmax(dim=1) != torch.tensor(labels)).tolist()


def test_ties_count_as_errors():
    assert errors(torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), 0, 1, 1) == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_anywhere_counts_as_an_error(place):
    scores = torch.tensor([[9.0, 1.0, 2.0]])
    assert errors(scores, 0) == [False]
    scores[0, place] = torch.nan
    assert errors(scores, 0) == [True]


def test_infinities_are_compared_like_numbers():
    top = torch.inf
    assert errors(torch.tensor([[top, 1.0], [top, top], [0.0, -top]]), 0, 0, 0) == [
        *(False, True, False)
    ]


def test_one_class_is_always_right():
    assert errors(torch.tensor([[-5.0]]), 0) == [False]


def test_the_model_is_evaluated_in_float64_without_training_or_gradients():
    class Nosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, self.inner.weight.dtype, self.training, torch.is_grad_enabled()))
            return self.inner(x)

    seen, model = [], Nosy()
    before = copy.deepcopy(model.state_dict())
    zero_one(model, data(0, 1))
    assert seen == [(torch.float64, torch.float64, False, False)]
    assert model.training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype is torch.float32
        assert torch.equal(tensor, before[name])


def test_whole_number_inputs_stay_whole():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(8, 2))
    words = Data(x=torch.tensor([[0, 1], [2, 0]]), y=torch.tensor([0, 1]))
    assert zero_one(model, words).shape == (2,)


def test_without_examples_there_is_nothing_to_count():
    with pytest.raises(UsageError, match="there are no examples to count errors on"):
        errors(torch.zeros(0, 2))


def test_a_label_that_the_network_does_not_score_is_refused():
    with pytest.raises(TaskError, match="the data hold class 2, but the network scores 2"):
        errors(torch.zeros(2, 2), 0, 2)


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(3, 2), torch.zeros(2), torch.zeros(2, 2, 1), [[1.0, 0.0]] * 2, None],
    ids=["rows", "vector", "deep", "list", "nothing"],
)
def test_other_scores_than_a_row_for_each_example_are_refused(scores):
    with pytest.raises(TaskError, match="must return one row of class scores for each example"):
        errors(scores, 0, 1)


def test_a_network_that_does_not_fit_the_data_is_refused():
    with pytest.raises(
        TaskError, match=r"cannot be run on the data: RuntimeError: mat1 and mat2 shapes"
    ):
        zero_one(nn.Linear(3, 2), data(0, 1))


@pytest.mark.parametrize("failure", [RuntimeError, TypeError, ValueError, IndexError])
def test_a_network_that_fails_is_refused(failure):
    with pytest.raises(
        TaskError, match=rf"cannot be run on the data: {failure.__name__}: not today"
    ):
        errors(failure("not today"), 0)


@pytest.mark.parametrize("failure", [KeyError, AttributeError, AssertionError])
def test_a_network_that_fails_in_another_way_is_refused(failure):
    with pytest.raises(TaskError, match="not today"):
        errors(failure("not today"), 0)


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.int32, torch.int16, torch.int8],
)
def test_labels_may_have_any_whole_type(dtype):
    labelled = Data(x=torch.zeros(2, 2), y=torch.tensor([0, 1], dtype=dtype))
    assert zero_one(Fixed(torch.eye(2)), labelled).tolist() == [False, False]


# Data


@pytest.mark.parametrize("labels", [1, 3])
def test_data_need_one_label_for_each_input(labels):
    with pytest.raises(UsageError, match=r"one label for each input, .* \(2, 5\) .* \(\d,\)"):
        # replace() would check the shapes in the signature before tailor does
        _unchecked(x=torch.zeros(2, 5), y=torch.zeros(labels, dtype=torch.int64))


def test_labels_have_one_axis():
    with pytest.raises(UsageError, match=r"labels of shape \(2, 1\)"):
        _unchecked(x=torch.zeros(2, 5), y=torch.zeros(2, 1, dtype=torch.int64))


@pytest.mark.parametrize("y", [torch.tensor([0, -1]), torch.tensor([0.0, 1.0])])
def test_labels_are_whole_numbers_from_0_up(y):
    with pytest.raises(UsageError, match="labels must be whole numbers from 0 up"):
        _unchecked(x=torch.zeros(2, 5), y=y)


def _unchecked(x: Tensor, y: Tensor) -> None:
    """Run Data's own checks; in the tests beartype would refuse wrong shapes before them."""
    made = object.__new__(Data)
    object.__setattr__(made, "x", x)
    object.__setattr__(made, "y", y)
    made.__post_init__()


def test_the_digest_changes_with_any_label_pixel_type_or_shape():
    base = Data(x=torch.rand(4, 3), y=torch.tensor([0, 1, 1, 2]))
    changed = [base]
    for i in range(base.x.numel()):
        x = base.x.clone()
        x.view(-1)[i] = torch.nextafter(x.view(-1)[i], torch.tensor(2.0))
        changed.append(replace(base, x=x))
    for i in range(len(base)):
        y = base.y.clone()
        y[i] += 1
        changed.append(replace(base, y=y))
    changed.append(replace(base, x=base.x.double()))
    changed.append(replace(base, y=base.y.int()))
    changed.append(replace(base, x=base.x.reshape(4, 3, 1)))
    changed.append(replace(base, x=base.x.flip(0), y=base.y.flip(0)))
    digests = [one.digest() for one in changed]
    assert len(set(digests)) == len(changed)
    assert all(len(digest) == 64 for digest in digests)


def test_the_digest_depends_on_values_only_not_on_memory():
    x = torch.rand(3, 4)
    one = Data(x=x, y=torch.tensor([0, 1, 2]))
    turned = Data(x=x.T.contiguous().T, y=torch.tensor([0, 9, 1, 9, 2, 9])[::2])
    assert one.digest() == turned.digest()


def test_the_digest_is_what_its_description_says():
    found = Data(x=torch.tensor([[1.0, 2.0]]), y=torch.tensor([3])).digest()
    x = b"torch.float32 (1, 2);" + bytes.fromhex("0000803f00000040")
    y = b"torch.int64 (1,);" + (3).to_bytes(8, "little")
    assert found == hashlib.sha256(x + y).hexdigest()


def test_the_majority_error_is_that_of_the_best_constant():
    assert data(0, 1, 1, 3).majority_error() == 0.5
    assert data(2, 2).majority_error() == 0.0


# Finding tasks


def test_the_embedded_task_is_found():
    assert find("digits") is DIGITS


@pytest.mark.parametrize("name", ["digit", "", "Digits", "math"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(TaskError, match=f"there is no task '{name}'; use digits, or module:name"):
        find(name)


@pytest.mark.parametrize("name", ["no_such_module_at_all:t", ":t", ".:t", "a b:t"])
def test_a_module_that_is_not_there_is_refused(name):
    with pytest.raises(TaskError, match="of the task does not import: "):
        find(name)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what is imported from it is forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("body", ["1 / 0", "import no_such_module_at_all", "def", "raise OSError"])
def test_a_module_that_fails_is_refused(here, body):
    (here / "broken_task.py").write_text(body)
    with pytest.raises(TaskError, match="the module broken_task of the task does not import: "):
        find("broken_task:task")


@pytest.mark.parametrize("name", ["other", "", "number"])
def test_a_name_that_is_no_task_is_refused(here, name):
    (here / "taskless.py").write_text("number = 3")
    with pytest.raises(TaskError, match=f"taskless has no tailor.Task named '{name}'; write"):
        find(f"taskless:{name}")


def test_a_task_in_the_current_folder_is_found(here):
    (here / "my_task.py").write_text(
        "import tailor, torch\n"
        "data = tailor.Data(x=torch.zeros(1, 2), y=torch.tensor([0]))\n"
        "mine = tailor.Task(name='mine', build=lambda: torch.nn.Linear(2, 2), train=lambda: data)\n"
    )
    task = find("my_task:mine")
    assert isinstance(task, Task)
    assert (task.name, len(task.train()), task.test()) == ("mine", 1, None)
    assert task.error is zero_one


# The digits

# Of the training examples. Certificates carry it: another value makes every old one fail.
SPLIT = "afa3f44919737906282946c7f20794f1c0f4df22df5fe522929aea82f40d7500"


def test_the_digits_are_split_once_and_for_all():
    train, test = DIGITS.train(), DIGITS.test()
    assert (len(train), len(test)) == (1437, 360)
    assert train.digest() == DIGITS.train().digest() == SPLIT
    assert test.digest() == DIGITS.test().digest()
    assert (train.x.shape[1:], train.x.dtype, train.y.dtype) == ((64,), torch.float32, torch.int64)
    assert (float(train.x.min()), float(train.x.max())) == (0.0, 1.0)
    assert set(train.y.tolist()) == set(test.y.tolist()) == set(range(10))


def test_the_digits_lose_no_image_and_repeat_none():
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    rows = sorted((*row, label) for row, label in zip((pixels / 16).tolist(), labels, strict=True))
    both = [DIGITS.train(), DIGITS.test()]
    found = [
        (*x, y) for part in both for x, y in zip(part.x.tolist(), part.y.tolist(), strict=True)
    ]
    assert sorted(found) == rows
    assert len(set(rows)) == len(rows)  # no image stands twice, so the parts share none


def test_the_network_of_the_digits_ignores_the_scale_of_its_layers():
    torch.manual_seed(0)
    model, data = DIGITS.build(), DIGITS.test()
    wrong = zero_one(model, data)
    with torch.no_grad():
        model[0].weight.mul_(3.7)
        model[2].weight.mul_(0.01)
    assert torch.equal(zero_one(model, data), wrong)


def test_without_scikit_learn_the_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(TaskError, match=r"needs scikit-learn; install it: pip install"):
        DIGITS.train()
