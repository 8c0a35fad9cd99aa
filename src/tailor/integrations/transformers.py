"""A callback for the ``Trainer`` of Hugging Face transformers."""

import io
import os
import pickle
import secrets
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tailor import records
from tailor.errors import RecordError, UsageError
from tailor.integrations.extras import AtWork, Extras, State, summary
from tailor.stages.regularize import Penalty
from tailor.stages.train import LayerTail, Monitor, Noise

try:
    from transformers.trainer_callback import TrainerCallback
except ImportError:  # said when a callback is made, so that this module can always be imported
    TrainerCallback = None

NAME = "tailor.pt"
MARK = "tailor"  # in trainer_state.json: which tailor.pt belongs to the checkpoint


class TailorCallback(TrainerCallback or object):  # type: ignore[misc]
    """Adds penalties, noise and a monitor to a ``Trainer``; one for each trainer.

    Penalties act apart from the loss, as weight decay does in AdamW; see ``Regularizer.attach``.
    A step that gradient scaling skips gets neither penalty nor noise, and batches that are
    accumulated count as one step. Their state is ``tailor.pt`` in each checkpoint, so that a
    resumed run ends with the same weights as one that was not broken off.

    Args:
        penalties: On the weights.
        noise: On the weights after each step, such as ``StableNoise``.
        monitor: Measures the spectra of the layers. Means over them come into
            ``trainer.state.log_history``, everything into the monitor's own files.

    Attributes:
        layers: What the monitor saw at its last look.

    Raises:
        UsageError: The package is missing, or there is nothing to add.
    """

    def __init__(
        self,
        *,
        penalties: Sequence[Penalty] = (),
        noise: Noise | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        if TrainerCallback is None:
            raise UsageError(
                "this callback needs the package transformers; install it: "
                "pip install 'tailor[transformers]'"
            )
        self._extras = Extras(penalties=tuple(penalties), noise=noise, monitor=monitor)
        self._work: AtWork | None = None
        self._run = ""
        self.layers: tuple[LayerTail, ...] = ()

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **_: Any
    ) -> None:
        """Attach everything to the optimizer; take up the state of a checkpoint."""
        self.on_train_end(args, state, control)  # what a run that failed has left
        self._work = self._extras.attach(
            model,
            [optimizer],
            step=state.global_step,
            writes=state.is_world_process_zero,
            state=_stored(args, state),
        )
        self._run = secrets.token_hex(8)
        state.stateful_callbacks[MARK] = {"run": self._run}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the layers where the monitor is due."""
        found = () if self._work is None else self._work.look(state.global_step)
        if found:
            self.layers = found
            place = {"epoch": state.epoch, "step": state.global_step}
            state.log_history.append(summary(found) | place)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the state into the checkpoint that was just made."""
        folder = _usual(args, state)
        # a search of hyperparameters has folders of its own, and does not resume
        if self._work is None or not args.should_save or not folder.is_dir():
            return
        data = io.BytesIO()
        stored = {"run": self._run, "step": state.global_step, "state": self._work.state_dict()}
        torch.save(stored, data)
        records.write(folder / NAME, data.getvalue())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take everything out of the optimizer."""
        if self._work is not None:
            self._work.remove()
            self._work = None


def _usual(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _stored(args: Any, state: Any) -> State | None:
    """The state in the checkpoint that the trainer resumes from; None if it has none.

    The trainer does not tell its callbacks from where it resumes, so a ``tailor.pt`` has to
    name the same run and step as the trainer's own state.

    Raises:
        UsageError: The checkpoint was written with this callback, but its file is not found.
    """
    mark = state.stateful_callbacks.get(MARK)
    if mark is None or state.global_step == 0:
        return None
    given = args.resume_from_checkpoint
    folders = [_usual(args, state)]
    if isinstance(given, (str, os.PathLike)):
        folders.insert(0, Path(given))
    for path in (folder / NAME for folder in folders):
        found = _load(path) if path.is_file() else {}
        if found.get("run") == mark["run"] and found.get("step") == state.global_step:
            own: State = found["state"]
            return own
    raise UsageError(
        f"the {NAME} of this checkpoint is not in {' or '.join(map(str, folders))}; say where it "
        "is with TrainingArguments(resume_from_checkpoint=...)"
    )


def _load(path: Path) -> State:
    try:
        found: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise RecordError(f"{path} cannot be read; resume from another checkpoint") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged; resume from another checkpoint") from error
    return found
