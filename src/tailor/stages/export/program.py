"""Programs: the computation of a network with its weights."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tailor.errors import UsageError
from tailor.stages.inputs.collect import evaluation
from tailor.stages.sparse import densified

LIMIT = 2**31 - 1  # bytes of one message of protocol buffers, and so of an ONNX file
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def program_bytes(model: nn.Module, example: Any, *, dynamic_batch: bool) -> bytes:
    """A file for ``torch.export.load``.

    Raises:
        UsageError: The model cannot be traced.
    """
    file = io.BytesIO()
    with _quietly():
        torch.export.save(_traced(model, example, dynamic_batch), file)
    return file.getvalue()


def onnx_bytes(model: nn.Module, example: Any, *, dynamic_batch: bool) -> bytes:
    """A file in ONNX.

    Raises:
        UsageError: The model cannot be traced or translated, is too large, or a package is missing.
    """
    absent = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(
            f"ONNX files are written with {' and '.join(absent)}; install with: "
            "pip install 'tailor[onnx]'"
        )
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > LIMIT:
        raise UsageError(
            f"the weights take {size:,} bytes, but an ONNX file holds {LIMIT:,}; export to .pt2"
        )
    with _quietly():
        traced = _traced(model, example, dynamic_batch)
        try:
            made = torch.onnx.export(traced, dynamo=True, verbose=False)
        except Exception as error:
            raise UsageError(
                f"{type(model).__name__} cannot be translated to ONNX ({_said(error)}); "
                "export to .pt2"
            ) from error
        assert made is not None  # it is so only where a path is given
        data: bytes = made.model_proto.SerializeToString()
    return data


def _traced(model: nn.Module, example: Any, dynamic_batch: bool) -> ExportedProgram:
    """What the model computes in evaluation mode, sparse layers being dense again."""
    args, kwargs = _arguments(example)
    first = next((one for one in (*args, *kwargs.values()) if _has_batch(one)), None)
    if first is None:
        raise UsageError("the example must be a tensor, or arguments of which one is a tensor")
    model = densified(model)
    length = len(first) if dynamic_batch else -1
    if length == 1:  # torch takes an axis of length 1 for a constant
        args = tuple(_twice(one) for one in args)
        kwargs = {name: _twice(one) for name, one in kwargs.items()}
        length = 2
    batch = Dim("batch")

    def shape(one: Any) -> dict[int, Any] | None:
        return {0: batch} if _has_batch(one) and len(one) == length else None

    shapes = tuple(map(shape, args)) if args else {name: shape(one) for name, one in kwargs.items()}
    try:
        with evaluation(model):
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:
        fixed = "; with dynamic_batch=False the number of examples is fixed" if length > 0 else ""
        raise UsageError(
            f"{type(model).__name__} cannot be traced as one program ({_said(error)}){fixed}"
        ) from error


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def _has_batch(one: Any) -> bool:
    return isinstance(one, Tensor) and one.ndim > 0


def _twice(one: Any) -> Any:
    return torch.cat([one, one]) if _has_batch(one) and len(one) == 1 else one


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what the exporters log and warn of; it does not concern the user's model."""
    loggers = [logging.getLogger(name) for name in (*NOISY, *_below(NOISY))]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _below(names: tuple[str, ...]) -> list[str]:
    """Loggers with a level of their own, which that of their parents does not silence."""
    known = logging.root.manager.loggerDict
    return [name for name in known if name.startswith(tuple(f"{one}." for one in names))]
