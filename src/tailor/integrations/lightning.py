"""A callback for the ``Trainer`` of Lightning."""

from collections.abc import Sequence
from typing import Any

from tailor.errors import UsageError
from tailor.integrations.extras import AtWork, Extras, State, summary
from tailor.stages.regularize import Penalty
from tailor.stages.train import LayerTail, Monitor, Noise

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:  # said when a callback is made, so that this module can always be imported
        Callback = None


class TailorCallback(Callback or object):  # type: ignore[misc]
    """Adds penalties, noise and a monitor to a ``Trainer``.

    Penalties act apart from the loss, as weight decay does in AdamW; see ``Regularizer.attach``.
    A step that gradient scaling skips gets neither penalty nor noise, and batches that are
    accumulated count as one step. With several optimizers a weight belongs to the first that
    holds it. The state is part of each checkpoint, so that a resumed run ends with the same
    weights as one that was not broken off.

    Args:
        penalties: On the weights.
        noise: On the weights after each step, such as ``StableNoise``.
        monitor: Measures the spectra of the layers; its steps are batches after which an
            optimizer has moved. Means over the layers go to the trainer's loggers and
            ``callback_metrics``, everything into the monitor's own files.

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
        if Callback is None:
            raise UsageError(
                "this callback needs the package lightning; install it: "
                "pip install 'tailor[lightning]'"
            )
        self._extras = Extras(penalties=tuple(penalties), noise=noise, monitor=monitor)
        self._work: AtWork | None = None
        self._loaded: State | None = None
        self._step = self._moves = 0
        self.layers: tuple[LayerTail, ...] = ()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget a checkpoint that was loaded for a test; this one follows next."""
        self._loaded = None

    def load_state_dict(self, state_dict: State) -> None:
        """Keep the state of a checkpoint until the optimizers are there."""
        self._loaded = state_dict

    def state_dict(self) -> State:
        """Tensors and plain values; of a run that has ended, too."""
        return {} if self._work is None else self._work.state_dict() | {"step": self._step}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach everything to the optimizers, which have their own state already."""
        self._remove()
        state, self._loaded = self._loaded, None
        self._moves = trainer.global_step
        self._step = self._moves if state is None else state["step"]
        self._work = self._extras.attach(
            pl_module,
            trainer.optimizers,
            step=self._step,
            writes=trainer.is_global_zero,
            state=state,
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Look at the layers where the monitor is due."""
        if self._work is None or trainer.global_step == self._moves:
            return
        self._moves, self._step = trainer.global_step, self._step + 1
        found = self._work.look(self._step)
        if found:
            self.layers, means = found, summary(found)
            pl_module.log_dict(means, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(means, step=trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take everything out of the optimizers."""
        self._remove()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take everything out of the optimizers."""
        self._remove()

    def _remove(self) -> None:
        if self._work is not None:
            self._work.remove()
