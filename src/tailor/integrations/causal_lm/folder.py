"""A language model in a folder, of which one block at a time is in memory.

The result is a copy of the folder in which the pruned matrices are overwritten where they stand:
names, types and shapes do not change, so headers, shards and index stay as they were.
"""

import copy
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import OutputError, SourceError, UsageError
from tailor.integrations.causal_lm.blocks import Batch, enter, find_blocks, is_transposed
from tailor.integrations.causal_lm.home import Home, at_work, oriented
from tailor.integrations.causal_lm.record import RECORD, Progress
from tailor.records import digest, load, save
from tailor.weights.layer import Layer, Weights
from tailor.weights.source import fingerprint, read
from tailor.weights.source.entry import Entry
from tailor.weights.source.place import Local
from tailor.weights.source.safetensors import read_safetensors
from tailor.weights.source.span import Span

# Of these only the shards that are read are copied; what else is there describes the model.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot")


class Folder(Home):
    """A folder that ``save_pretrained`` wrote, with safetensors.

    Args:
        source: The folder.
        out: The folder that is made; until it is complete it has another name.
        device: Where blocks work.
        dtype: In which type they work; None for the stored one.

    Raises:
        UsageError: A package is missing, or the model is of no kind that can be pruned.
        SourceError: The folder is no such model.
    """

    def __init__(
        self, source: Path, out: Path, device: torch.device | None, dtype: torch.dtype | None
    ) -> None:
        self.model = None
        self.weights = read(source)
        self._source, self._out = source, out
        self._aside = out.parent / f".{out.name}.unfinished"
        self._device, self._dtype = device, dtype
        self._shards = _shards(self.weights)
        self._old = _entries(self._shards)
        self._new: dict[str, Entry] = {}
        skeleton = _skeleton(source)
        self._base = str(getattr(skeleton, "base_model_prefix", ""))
        self.blocks = find_blocks(skeleton)
        self._transposed: set[str] = set()
        self.layers = tuple(self._matrices({one.key: one for one in self.weights.layers}))
        for index, block in enumerate(self.blocks.members):  # before anything is done
            for name in _tensors(block):
                self._entry(block, name, f"{self.blocks.prefix}.{index}.{name}", self._old)

    def _matrices(self, stored: dict[str, Layer]) -> Iterator[Layer]:
        for index, block in enumerate(self.blocks.members):
            for name, part in self.owned(index, block).items():
                layer = stored.get(self._key(name))
                if layer is None:  # quantised, or empty
                    continue
                if is_transposed(part):
                    self._transposed.add(name)
                yield oriented(layer, name, part)

    def resume(self, key: str) -> Progress | None:
        """See ``Home.resume``.

        Raises:
            OutputError: The folder exists, or an unfinished run with other arguments is there.
        """
        if self._out.exists():
            raise OutputError(f"{self._out} exists already; choose another folder, or remove it")
        record = self._aside / RECORD
        if not record.exists():  # nothing yet, or broken off while files were copied
            return None
        done = load(Progress, record)
        if done.key != self._own(key):
            raise OutputError(
                f"{self._aside} is an unfinished run with other arguments or another source; "
                "remove it, or choose another folder"
            )
        return done

    def note(self, done: Progress) -> None:
        """See ``Home.note``: in ``tailor.json``; the first time the folder is copied."""
        if not (self._aside / RECORD).exists():
            self._copy()
        save(replace(done, key=self._own(done.key)), self._aside / RECORD)

    def _own(self, key: str) -> str:
        """The key together with what tells the source from another."""
        return digest([key, fingerprint(self.weights)])

    def _copy(self) -> None:
        """All files, still with the old weights."""
        try:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside.mkdir(parents=True)
            for file in _worth_copying(self._source, self._shards):
                shutil.copyfile(file, self._aside / file.name)
        except OSError as error:
            raise OutputError(
                f"{self._aside} cannot be written ({error.strerror}); choose another folder"
            ) from error

    def enter(self, tokens: Sequence[Tensor]) -> list[Batch]:
        """See ``Home.enter``; what stands before the blocks is in memory meanwhile."""
        model = _skeleton(self._source)
        blocks, head = find_blocks(model), model.get_output_embeddings()
        behind = next((n for n, part in model.named_modules() if part is head), "") or "?"
        for name in _tensors(model):
            if not name.startswith((f"{blocks.prefix}.", f"{behind}.")):
                self._fill(model, name, name, self._old)
        _move_buffers(model, self._device)
        found = [enter(model, blocks, one.to(self._device)) for one in tokens]
        return [at_work(batch, self._device, self._dtype) for batch in found]

    def block(self, index: int, *, stored: bool = False) -> nn.Module:
        """See ``Home.block``."""
        if stored and not self._new:
            self._new = _entries([self._aside / shard.name for shard in self._shards])
        block = copy.deepcopy(self.blocks.members[index])
        for name in _tensors(block):
            whole = f"{self.blocks.prefix}.{index}.{name}"
            self._fill(block, name, whole, self._new if stored else self._old)
        return block.to(self._device)

    def store(self, new: dict[str, Float[Tensor, "out in"]]) -> None:
        """See ``Home.store``: into the copy; on the disk when this returns."""
        for name, matrix in new.items():
            load = self._old[self._key(name)].load
            assert isinstance(load, Span)  # as read_safetensors gives them
            _overwrite(self._aside, load, matrix.T if name in self._transposed else matrix)

    def finish(self) -> Path:
        """See ``Home.finish``."""
        try:
            return self._aside.rename(self._out)
        except OSError as error:
            raise OutputError(f"{self._out} cannot be written ({error.strerror})") from error

    def _key(self, name: str) -> str:
        """Under which name the folder has a tensor of the model.

        Raises:
            SourceError: Under none.
        """
        base = f"{self._base}."
        for key in (name, name.removeprefix(base), base + name):
            if key in self._old:
                return key
        raise SourceError(
            f"{self._source} does not hold {name} under this name; load the model with "
            "from_pretrained and give prune_causal_lm the model itself"
        )

    def _entry(
        self, part: nn.Module, name: str, whole: str, entries: dict[str, Entry]
    ) -> Entry | None:
        """What is stored for a tensor; None for a buffer that the model computes itself.

        Raises:
            SourceError: It is missing, or of another shape.
        """
        path, _, attribute = name.rpartition(".")
        old = getattr(part.get_submodule(path), attribute)
        if old.device.type != "meta" and self._key_or_none(whole) is None:
            return None
        entry = entries[self._key(whole)]
        if entry.shape != tuple(old.shape):
            raise SourceError(
                f"{whole} is {list(entry.shape)} in {self._source}, but its config.json says "
                f"{list(old.shape)}"
            )
        return entry

    def _fill(self, part: nn.Module, name: str, whole: str, entries: dict[str, Entry]) -> None:
        """Give a tensor of a part without weights its stored numbers."""
        entry = self._entry(part, name, whole, entries)
        if entry is None:
            return
        path, _, attribute = name.rpartition(".")
        owner, tensor = part.get_submodule(path), entry.load()
        tensor = tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
        trained = isinstance(getattr(owner, attribute), nn.Parameter)
        setattr(owner, attribute, nn.Parameter(tensor, requires_grad=False) if trained else tensor)

    def _key_or_none(self, name: str) -> str | None:
        try:
            return self._key(name)
        except SourceError:
            return None


def _skeleton(source: Path) -> Any:
    """The model without weights; only what it computes from its configuration is there.

    Raises:
        UsageError: A package is missing.
        SourceError: The configuration cannot be used.
    """
    try:
        from accelerate import init_empty_weights
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise UsageError(
            "a language model in a folder needs the packages transformers and accelerate; install "
            "them: pip install 'tailor[transformers]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise SourceError(
            f"{source} is no causal language model of transformers: {said}"
        ) from error
    if getattr(config, "quantization_config", None):
        raise SourceError(
            f"the weights in {source} are quantised; prune the model before it is quantised"
        )
    return model.eval()


def _shards(weights: Weights) -> tuple[Path, ...]:
    found = tuple(Path(name) for name in weights.files if name.endswith(".safetensors"))
    if not found:
        raise SourceError(
            f"{weights.source} holds no safetensors; load the model and call save_pretrained"
        )
    return found


def _entries(shards: Iterable[Path]) -> dict[str, Entry]:
    return {one.name: one for shard in shards for one in read_safetensors(Local(shard))}


def _worth_copying(source: Path, shards: Sequence[Path]) -> Iterator[Path]:
    """The shards, and everything beside them that is no weights: configuration, tokenizer."""
    for file in sorted(source.iterdir()):
        bare = file.name.removesuffix(".index.json")
        ours = bare.endswith(".safetensors") if bare != file.name else file in shards
        if (
            file.is_file()
            and not file.name.startswith(".")
            and (ours or not bare.endswith(WEIGHTS))
        ):
            yield file


def _tensors(part: nn.Module) -> list[str]:
    """Names of what a state dict of this part would hold."""
    hidden = {
        f"{prefix}.{name}" if prefix else name
        for prefix, inner in part.named_modules()
        for name in inner._non_persistent_buffers_set
    }
    named = [name for name, _ in part.named_parameters(remove_duplicate=False)]
    return named + [name for name, _ in part.named_buffers() if name not in hidden]


def _move_buffers(model: nn.Module, device: torch.device | None) -> None:
    """Only what is there; weights that are not needed have no place."""
    for part in model.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.device.type != "meta":
                part._buffers[name] = buffer.to(device)


def _overwrite(folder: Path, span: Span, matrix: Tensor) -> None:
    """Put a matrix where the copy has the old one."""
    assert isinstance(span.place, Local)
    path = folder / span.place.path.name
    data = matrix.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    if len(data) != span.length():
        raise AssertionError(f"{span.name} would change its length")
    try:
        with path.open("r+b") as file:
            file.seek(span.start)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error
