"""Pruning block by block, each on what the pruned ones before it make of the data."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.integrations.causal_lm.blocks import Batch, advance
from tailor.integrations.causal_lm.folder import Folder
from tailor.integrations.causal_lm.home import Home, InMemory, write
from tailor.integrations.causal_lm.record import Progress, PrunedCausalLM, PrunedMatrix
from tailor.integrations.causal_lm.seen import collect
from tailor.records import Provenance, digest
from tailor.stages.allocate import Allocated, Allocation, Sensitivity, UniformAllocation
from tailor.stages.inputs import Inputs
from tailor.stages.modules import check_finite
from tailor.stages.scores import Needs, NofM, Score, Wanda
from tailor.stages.targets import patterns
from tailor.weights.layer import Layer

Told: TypeAlias = Callable[[int, int], None]


def prune_causal_lm(
    source: str | os.PathLike[str] | nn.Module,
    tokens: Iterable[Tensor],
    sparsity: float | None,
    *,
    score: Score | None = None,
    allocation: Allocation | None = None,
    pattern: NofM | None = None,
    out: str | os.PathLike[str] | None = None,
    layers: str | Sequence[str] = "*",
    skip: str | Sequence[str] = (),
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: Told | None = None,
) -> PrunedCausalLM:
    """Prune the linear layers in the decoder blocks of a causal language model.

    The blocks are pruned in their order, as Wanda (Sun et al. 2024) and SparseGPT (Frantar &
    Alistarh 2023) do it: the hidden states of the calibration data are kept; all matrices of a
    block are pruned on what they see when the blocks before are pruned already; then the hidden
    states go through the pruned block. Embeddings, norms, biases and the head stay as they are.

    Of a model in a folder one block at a time is in memory, and the embeddings at the beginning.
    Beside it stand the hidden states (tokens x width numbers in main memory), and for a score
    that needs them the Gram matrices of one block (inputs x inputs numbers of 8 bytes for each
    different input). The result is a copy of the folder with other numbers in the same places.
    A run that was broken off goes on where it was when it is started again with the same
    arguments: blocks that are done are not pruned again.

    An allocation that needs to know the layers' inputs (OWL) costs a second pass through the
    whole dense model before the first block is pruned.

    Args:
        source: A folder that ``save_pretrained`` wrote, with safetensors; or a model of
            transformers in memory, of which a copy is pruned.
        tokens: Calibration data: numbers of tokens, (batch, length) each, without padding. What
            is at work at once is one batch. Nothing is needed by ``Magnitude``.
        sparsity: Share of the entries of all pruned matrices that goes, in [0, 1). None with a
            pattern, or with an allocation that finds its own.
        score: Which entries of a matrix go; ``Wanda()`` by default.
        allocation: How many entries each matrix loses; ``UniformAllocation()`` by default.
        pattern: Such as ``NofM(n=2, m=4)``; it fixes how many entries each matrix loses.
        out: The folder to make, for a model in a folder. It must not exist.
        layers: Patterns of the names of the matrices to prune, such as ``"*.mlp.*"``.
        skip: Patterns of names to leave out all the same.
        device: Where a block works; by default where the model is, or the CPU.
        dtype: In which type a block works; by default the stored one. Matrices are always
            pruned and stored in their own type.
        progress: Is called after each block with the number of blocks done and of all.

    Raises:
        UsageError: An argument cannot be honoured, or the model is of no kind that can be pruned.
        SourceError: The folder is no language model with safetensors.
        NonFinite: A weight, or what a block makes of the data, is NaN or infinite.
        OutputError: The folder cannot be made.
    """
    score = Wanda() if score is None else score
    allocation = UniformAllocation() if allocation is None and pattern is None else allocation
    batches = _tokens(tokens, needed=_needs(score, allocation) != "nothing")
    home = _home(source, out, torch.device(device) if device else None, dtype)
    work = _Work(
        home=home,
        layers=_chosen(home, patterns(layers), patterns(skip)),
        score=score,
        pattern=pattern,
        progress=progress,
    )
    settings: dict[str, object] = {"sparsity": sparsity, "score": score}
    settings |= {"allocation": allocation, "pattern": pattern, "dtype": dtype}
    key = _key(batches, settings, work.layers)
    done = home.resume(key)
    if done is None:
        allocated = work.allocate(allocation, sparsity, batches)
        done = Progress(about=Provenance.now(seed=None, **settings), key=key, allocated=allocated)
    done = work.all(done, batches)
    return PrunedCausalLM(
        model=home.model,
        folder=home.finish(),
        allocated=done.allocated,
        matrices=done.matrices,
        left=home.left(),
        tokens=sum(one.numel() for one in batches),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """What is done to a model, block by block."""

    home: Home
    layers: dict[str, Layer]
    score: Score
    pattern: NofM | None
    progress: Told | None

    def allocate(
        self, allocation: Allocation | None, sparsity: float | None, batches: Sequence[Tensor]
    ) -> Allocated:
        """How many entries each matrix loses."""
        if self.pattern is not None:
            return self._by_pattern(self.pattern, allocation, sparsity)
        assert allocation is not None
        needs = _needs(self.score, allocation, own=False)
        inputs = None if needs == "nothing" else self._dense(needs, batches)
        layers = tuple(self.layers.values())
        return allocation.allocate(
            layers, sparsity, score=self.score, inputs=inputs, model=self.home.model
        )

    def _by_pattern(
        self, pattern: NofM, allocation: Allocation | None, sparsity: float | None
    ) -> Allocated:
        if allocation is not None or sparsity not in (None, pattern.sparsity):
            raise UsageError(
                f"the pattern {pattern} fixes how many entries each matrix loses; leave out the "
                f"allocation, and give sparsity None or {pattern.sparsity:g}"
            )
        sizes = {name: layer.shape[0] * layer.shape[1] for name, layer in self.layers.items()}
        for layer in self.layers.values():
            pattern.check(layer.shape[1])
        drop: dict[str, int | tuple[int, ...]] = {
            name: size // pattern.m * (pattern.m - pattern.n) for name, size in sizes.items()
        }
        return Allocated(method=str(pattern), drop=drop, sizes=sizes)

    def _dense(self, needs: Needs, batches: Sequence[Tensor]) -> dict[str, Inputs]:
        """What each matrix sees in the dense model: a pass of its own through all blocks."""
        found: dict[str, Inputs] = {}
        states = self.home.enter(batches)
        for index in range(len(self.home.blocks.members)):
            found |= self._passed(index, states, needs)
        return found

    def _passed(self, index: int, states: Sequence[Batch], needs: Needs) -> dict[str, Inputs]:
        """Take the data through a block as it is; what its matrices saw."""
        block = self.home.block(index)
        found = collect(block, index, states, self._watched(index, block), needs)
        advance(block, index, states)
        return found

    def all(self, done: Progress, batches: Sequence[Tensor]) -> Progress:
        """Every block that is not done yet; without data where the score needs none."""
        self.home.note(done)
        states = [] if self.score.needs == "nothing" else self.home.enter(batches)
        count = len(self.home.blocks.members)
        for index in range(count):
            if index < done.blocks:
                advance(self.home.block(index, stored=True), index, states)
                continue
            matrices = self._block(index, states, done.allocated)
            done = replace(done, blocks=index + 1, matrices=(*done.matrices, *matrices))
            self.home.note(done)
            if self.progress is not None:
                self.progress(index + 1, count)
        return done

    def _block(
        self, index: int, states: Sequence[Batch], allocated: Allocated
    ) -> list[PrunedMatrix]:
        """Prune one block, and take the data through it."""
        block = self.home.block(index)
        watched = self._watched(index, block)
        inputs = collect(block, index, states, watched, self.score.needs) if watched else {}
        new: dict[str, Tensor] = {}
        told: list[PrunedMatrix] = []
        for name, part in watched.items():
            new[name], row = self._matrix(name, part, allocated, inputs.get(name))
            told.append(row)
        self.home.store(new)
        advance(block, index, states)
        return told

    def _matrix(
        self, name: str, part: nn.Module, allocated: Allocated, inputs: Inputs | None
    ) -> tuple[Tensor, PrunedMatrix]:
        """Prune one matrix in its stored type, and put it into the block at work."""
        weight = part.weight
        assert isinstance(weight, Tensor)
        old = self.layers[name].load().detach().to(weight.device)
        check_finite(name, old)
        drop = allocated.drop[name]
        new = self.score.prune(old, drop, inputs=inputs, pattern=self.pattern).matrix
        write(part, new)
        norm = float(old.double().norm())
        row = PrunedMatrix(
            name=name,
            shape=tuple(new.shape),
            drop=allocated.dropped(name),
            zeros=int((new == 0).sum()),
            error=float((new.double() - old.double()).norm()) / norm if norm else 0.0,
        )
        return new, row

    def _watched(self, index: int, block: nn.Module) -> dict[str, nn.Module]:
        """The matrices of a block that are to be pruned."""
        owned = self.home.owned(index, block)
        return {name: part for name, part in owned.items() if name in self.layers}


# What is asked for


def _needs(score: Score, allocation: Allocation | None, *, own: bool = True) -> Needs:
    """What has to be known of the layers' inputs: by the allocation, and by the score itself."""
    # a measured allocation prunes with the score
    first = score.needs if isinstance(allocation, Sensitivity) else None
    asked = {first or (allocation.needs if allocation else "nothing"), score.needs if own else None}
    return "gram" if "gram" in asked else "norms" if "norms" in asked else "nothing"


def _tokens(given: Iterable[Tensor], *, needed: bool) -> list[Tensor]:
    """The calibration data in memory.

    Raises:
        UsageError: It is empty, or not numbers of tokens.
    """
    batches = [given] if isinstance(given, Tensor) else list(given)
    for one in batches:
        _check(one)
    if needed and not sum(one.numel() for one in batches):
        raise UsageError("there are no calibration data; give tensors (batch, length) of tokens")
    return [one for one in batches if one.numel()]


def _check(one: object) -> None:
    if not isinstance(one, Tensor):
        came = f"a {type(one).__name__}"
    elif one.ndim != 2 or one.is_floating_point():
        came = f"{one.dtype} of shape {tuple(one.shape)}"
    else:
        return
    raise UsageError(
        f"calibration data are tensors (batch, length) of whole numbers, but one is {came}"
    )


def _home(
    source: str | os.PathLike[str] | nn.Module,
    out: str | os.PathLike[str] | None,
    device: torch.device | None,
    dtype: torch.dtype | None,
) -> Home:
    if isinstance(source, nn.Module):
        if out is not None:
            raise UsageError(
                "a model in memory stays there; leave out `out`, and save the result with "
                ".model.save_pretrained(folder)"
            )
        return InMemory(source, device, dtype)
    path = Path(source)
    if not path.is_dir():
        raise UsageError(
            f"{source} is no folder; give one that save_pretrained wrote, such as what "
            "huggingface_hub.snapshot_download returns, or the model itself"
        )
    if out is None:
        raise UsageError("a model in a folder is pruned into another one; say which with out=...")
    return Folder(path, Path(out), device, dtype)


def _chosen(home: Home, layers: Sequence[str], skip: Sequence[str]) -> dict[str, Layer]:
    """The matrices whose names fit, in the order of the model.

    Raises:
        UsageError: There is none.
    """
    found = {
        one.name: one
        for one in home.layers
        if any(fnmatchcase(one.name, each) for each in layers)
        and not any(fnmatchcase(one.name, each) for each in skip)
    }
    if not found:
        names = ", ".join(one.name for one in home.layers[:8]) or "no linear layer"
        raise UsageError(f"no matrix in the blocks fits {', '.join(layers)}; there are: {names}")
    return found


def _key(batches: Sequence[Tensor], settings: dict[str, object], layers: dict[str, Layer]) -> str:
    """Equal for runs with the same data, settings and matrices."""
    data = hashlib.sha256()
    for one in batches:
        data.update(f"{tuple(one.shape)}{one.dtype}".encode())
        data.update(one.cpu().contiguous().numpy().tobytes())
    told = {name: repr(value) for name, value in settings.items()}
    return digest({"data": data.hexdigest(), "settings": told, "layers": list(layers)})
