"""Hooks that add up what each layer sees."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.inputs.seen import Inputs
from tailor.stages.inputs.vectors import columns, geometry, vectors
from tailor.weights.source import read, select

Patterns = str | Sequence[str]


@contextmanager
def watch(
    model: nn.Module, *, layers: Patterns = "*", skip: Patterns = (), gram: Patterns = ()
) -> Iterator["Watch"]:
    """Add up the inputs of layers for as long as the context lasts, whoever calls the model.

    Args:
        model: Any module; only its hooks change, and not for longer than that.
        layers: Patterns of the names of weights. Those that cannot be seen are left out.
        skip: Patterns of names to leave out all the same.
        gram: Patterns of names for which the Gram matrix is added up, too.

    Raises:
        UsageError: No layer that fits can be seen; in a call of the model, a layer gets values
            that are NaN or infinite.
    """
    found = Watch(_places(model, layers, skip, gram))
    handles = [
        place.module.register_forward_pre_hook(found._hook(place), with_kwargs=True)
        for place in found._places
    ]
    try:
        yield found
    finally:
        found._flush()
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """A module whose inputs are added up, and the name of its weight; tied ones share a name."""

    name: str
    module: nn.Module
    gram: bool


def _places(model: nn.Module, layers: Patterns, skip: Patterns, gram: Patterns) -> list[_Place]:
    chosen = select(read(model), *(_several(one) for one in (layers, skip))).layers
    names = {id(layer.load()): layer.name for layer in chosen}
    wanted = _several(gram)
    places = [
        _Place(name=name, module=module, gram=any(fnmatchcase(name, one) for one in wanted))
        for module in model.modules()
        if (name := names.get(id(module._parameters.get("weight")))) and columns(module) is not None
    ]
    if not places:
        kinds = ", ".join(f"{layer.name} ({layer.kind})" for layer in chosen[:8])
        raise UsageError(
            "the inputs of none of the layers can be seen, only those of linear layers and of "
            f"convolutions without groups; there are: {kinds}"
        )
    return places


def _several(given: Patterns) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(slots=True, kw_only=True)
class _Held:
    """The last tensor that came, its sums, and the layers that got it."""

    tensor: Tensor
    version: int | None
    how: tuple[object, ...]
    sums: Inputs
    names: list[str]

    def same(self, how: tuple[object, ...], version: int | None) -> bool:
        """Whether it has come again, and nothing was written to it in between."""
        return version is not None and (how, version) == (self.how, self.version)


class Watch:
    """What was seen so far; made by ``watch``.

    Layers that get the very same tensors (queries, keys and values) share their sums.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = tuple(places)
        self._sums: dict[tuple[str, ...], Inputs] = {}  # by the layers that got them together
        self._held: _Held | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The weights whose inputs are watched."""
        return tuple(dict.fromkeys(place.name for place in self._places))

    def inputs(self) -> dict[str, Inputs]:
        """The sums of each layer that got at least one vector, by the name of its weight.

        To be asked at the end: what is watched later is added to the same tensors.
        """
        self._flush()
        found: dict[str, Inputs] = {}
        for together, sums in self._sums.items():
            for name in together if sums.count else ():
                found[name] = found[name].plus(sums) if name in found else sums
        return {name: found[name] for name in self.names if name in found}

    def _hook(self, place: _Place) -> Any:
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(x, Tensor):
                self._add(place, x.detach())

        return before

    @torch.no_grad()
    def _add(self, place: _Place, x: Tensor) -> None:
        # A detached tensor is a new object over the same memory: memory, view and version tell.
        held, how = self._held, (place.gram, *_view(x), *geometry(place.module))
        version = None if x.is_inference() else x._version  # which such tensors do not count
        if held is not None and held.same(how, version):
            held.names.append(place.name)
            return
        self._flush()
        sums = _sums(place, x)
        self._held = _Held(tensor=x, version=version, how=how, sums=sums, names=[place.name])

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            key = tuple(held.names)
            before = self._sums.get(key)
            self._sums[key] = held.sums if before is None else _added(before, held.sums)


def _view(x: Tensor) -> tuple[object, ...]:
    return (x.data_ptr(), x.shape, x.stride(), x.dtype, x.device)


def _sums(place: _Place, x: Tensor) -> Inputs:
    width = columns(place.module)
    _check(place.name, x)
    count, squares, gram = 0, torch.zeros(width or 0, dtype=torch.float64), None
    for piece in vectors(place.module, x):
        count += len(piece)
        squares = squares.to(piece.device)
        if place.gram:
            gram = _outer(piece) if gram is None else gram.addmm_(piece.T, piece)
        else:
            squares += piece.square().sum(dim=0)
    if place.gram and gram is None:
        gram = torch.zeros(len(squares), len(squares), dtype=torch.float64, device=x.device)
    return Inputs(
        count=count, squares=squares if gram is None else gram.diagonal().clone(), gram=gram
    )


def _outer(piece: Float[Tensor, "count inputs"]) -> Float[Tensor, "inputs inputs"]:
    return piece.T @ piece


def _added(total: Inputs, more: Inputs) -> Inputs:
    """In place; the total belongs to the watch."""
    total.squares.add_(more.squares)
    if total.gram is not None and more.gram is not None:
        total.gram.add_(more.gram)
    return Inputs(count=total.count + more.count, squares=total.squares, gram=total.gram)


def _check(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise UsageError(f"the inputs of {name} are {x.dtype}, but real numbers are needed")
    wrong = x.numel() - int(torch.isfinite(x).sum())
    if wrong:
        raise UsageError(
            f"{wrong} of {x.numel()} inputs of {name} are NaN or infinite; check the data, and "
            "the weights of the layers before it"
        )
