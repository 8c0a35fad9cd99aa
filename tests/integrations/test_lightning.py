"""The callback in a real Trainer: what it does is what a loop written by hand does."""

import csv
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tailor as tl
from tailor.errors import UsageError
from tailor.stages.noise import StableNoise
from tailor.stages.train import Monitor

pytest.importorskip("lightning")

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from tailor.integrations.lightning import TailorCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]

STEPS, SIZE = 6, 4
NOISE = StableNoise(alpha=1.8, scale=1e-2, seed=3)
PENALTIES = (
    tl.StableRank(1.0, skip=("layers.4.*",), schedule=tl.PowerDecay(period=2)),
    tl.L2(0.5),
)


class Network(pl.LightningModule):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(12, 20),
                nn.ReLU(),
                nn.Linear(20, 16),
                nn.ReLU(),
                nn.Linear(16, 3),
            )

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def training_step(self, batch, index):
        return self.loss(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class TwoOptimizers(Network):
    """The second one steps on each other batch only."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()
        if index % 2:
            second.step()

    def configure_optimizers(self):
        head = list(self.layers[4].parameters())
        body = [*self.layers[0].parameters(), *self.layers[2].parameters()]
        # the head is in both: it belongs to the first
        return [
            torch.optim.SGD([*self.layers[0].parameters(), *head], lr=0.1),
            torch.optim.SGD([*body[2:], *head], lr=0.05),
        ]


def decay(step):
    return 1 / (1 + step)


def batches(steps=STEPS):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE * steps, 12, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(dim=1)), batch_size=SIZE)


def trainer(folder, *callbacks, package=pl, **options):
    return package.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "callbacks": list(callbacks),
            "enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        | options
    )


def keep(folder):
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=3, save_top_k=-1)


def callback(**options):
    return TailorCallback(penalties=PENALTIES, noise=NOISE, **options)


def by_hand(model, *, accumulate=1, steps=STEPS):
    ([optimizer], [scheduler]) = model.configure_optimizers()
    tl.Regularizer(model, PENALTIES).attach(optimizer)
    NOISE.attach(model, optimizer)
    for index, batch in enumerate(batches(steps)):
        (model.loss(batch) / accumulate).backward()
        if (index + 1) % accumulate == 0:
            optimizer.step()
            scheduler["scheduler"].step()
            optimizer.zero_grad()


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_weights_are_those_of_a_loop_written_by_hand(tmp_path, accumulate):
    model, plain, expected = Network(), Network(), Network()
    options = {"accumulate_grad_batches": accumulate}
    trainer(tmp_path, callback(), **options).fit(model, batches())
    by_hand(expected, accumulate=accumulate)
    assert same(model, expected)
    trainer(tmp_path, **options).fit(plain, batches())
    assert not same(plain, expected)


def test_the_package_of_the_other_name_takes_the_callback_too(tmp_path):
    other = pytest.importorskip("pytorch_lightning")

    class Borrowed(other.LightningModule):
        loss, training_step = Network.loss, Network.training_step
        configure_optimizers = Network.configure_optimizers

        def __init__(self):
            super().__init__()
            self.layers = Network().layers

    model, expected = Borrowed(), Network()
    trainer(tmp_path, callback(), package=other).fit(model, batches())
    by_hand(expected)
    assert same(model, expected)


def test_with_two_optimizers_each_weight_belongs_to_the_first_that_holds_it(tmp_path):
    model, expected = TwoOptimizers(), TwoOptimizers()
    noise = StableNoise(alpha=1.8, scale=1e-2, targets="all", seed=3)
    trainer(tmp_path, TailorCallback(penalties=PENALTIES, noise=noise)).fit(model, batches())

    first, second = expected.configure_optimizers()
    outer, inner = ("layers.0.*", "layers.4.*"), "layers.2.*"
    for optimizer, layers in ((first, outer), (second, inner)):
        own = [
            tl.StableRank(1.0, layers=layers, skip="layers.4.*", schedule=PENALTIES[0].schedule),
            tl.L2(0.5, layers=layers),
        ]
        tl.Regularizer(expected, own).attach(optimizer)
        StableNoise(alpha=1.8, scale=1e-2, targets="all", seed=3, layers=layers).attach(
            expected, optimizer
        )
    for index, batch in enumerate(batches()):
        first.zero_grad()
        second.zero_grad()
        expected.loss(batch).backward()
        first.step()
        if index % 2:
            second.step()
    assert same(model, expected)


def test_afterwards_the_optimizer_is_as_before_also_when_training_failed(tmp_path):
    class Fails(Network):
        def training_step(self, batch, index):
            if index == 2:
                raise ZeroDivisionError("division by zero")
            return super().training_step(batch, index)

    one = trainer(tmp_path, callback())
    one.fit(Network(), batches())
    other = trainer(tmp_path, callback())
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        other.fit(Fails(), batches())
    for optimizer in (one.optimizers[0], other.optimizers[0]):
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks


# Resuming


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    straight, resumed = Network(), Network()
    table = tmp_path / "rows.csv"
    monitor = Monitor(every=2, csv=table)
    given = callback(monitor=monitor)
    trainer(tmp_path, given, keep(tmp_path), max_epochs=2).fit(straight, batches(3))
    rows = table.read_text(encoding="utf-8")
    one = trainer(tmp_path, callback(monitor=monitor), keep(tmp_path), max_epochs=2)
    one.fit(resumed, batches(3), ckpt_path=tmp_path / "step=3.ckpt", weights_only=True)
    assert one.global_step == 6
    assert same(resumed, straight)
    assert table.read_text(encoding="utf-8") == rows


def test_without_its_state_a_resumed_run_would_end_otherwise(tmp_path):
    straight, resumed = Network(), Network()
    trainer(tmp_path, callback(), keep(tmp_path), max_epochs=2).fit(straight, batches(3))
    path = tmp_path / "step=3.ckpt"
    stored = torch.load(path, weights_only=True)
    del stored["callbacks"]["TailorCallback"]
    torch.save(stored, path)
    one = trainer(tmp_path, callback(), keep(tmp_path), max_epochs=2)
    one.fit(resumed, batches(3), ckpt_path=path)
    assert not same(resumed, straight)


def test_a_checkpoint_loaded_for_a_test_is_none_to_resume_from(tmp_path):
    class Tested(Network):
        def test_step(self, batch, index):
            self.loss(batch)

    expected = Network()
    given = callback()
    one = trainer(tmp_path, given, keep(tmp_path))
    one.fit(Tested(), batches())
    one.test(Tested(), batches(), ckpt_path=tmp_path / "step=3.ckpt", verbose=False)
    model = Network()
    trainer(tmp_path, given).fit(model, batches())
    by_hand(expected)
    assert same(model, expected)


def test_a_resumed_run_needs_the_same_penalties_and_noise(tmp_path):
    one = trainer(tmp_path, callback())
    one.fit(Network(), batches())
    one.save_checkpoint(tmp_path / "last.ckpt")
    for given, message in (
        (TailorCallback(penalties=PENALTIES), "written with noise on 1 of 1 optimizers, but now"),
        (TailorCallback(penalties=PENALTIES[:1], noise=NOISE), "but this regularizer has"),
    ):
        other = trainer(tmp_path, given, max_epochs=2)
        with pytest.raises(UsageError, match=message):
            other.fit(Network(), batches(), ckpt_path=tmp_path / "last.ckpt")


# Gradient scaling


def test_a_step_that_gradient_scaling_skips_moves_nothing(tmp_path):
    class Overflows(Network):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            return loss * torch.inf if index % 2 else loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Weights(pl.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, model, *_):
            self.seen += ([one.detach().clone() for one in model.parameters()],)

    given, weights = callback(), Weights()
    scaling = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1.0))
    trainer(tmp_path, given, weights, plugins=[scaling]).fit(Overflows(), batches())
    still = [all(map(torch.equal, *pair)) for pair in pairwise(weights.seen)]
    assert still == [True, False, True, False, True]
    assert given.state_dict()["noise"] == [{"step": STEPS // 2, "seed": 3}]
    assert given.state_dict()["penalties"][0]["step"] == STEPS // 2


# The monitor


def test_the_monitor_writes_its_table_and_tells_loggers_and_other_callbacks(tmp_path):
    given = TailorCallback(monitor=Monitor(every=2, csv=tmp_path / "rows.csv"))
    options = {"logger": CSVLogger(tmp_path / "log"), "accumulate_grad_batches": 2}
    options |= {"log_every_n_steps": 1}
    one = trainer(tmp_path, given, **options)
    one.fit(Network(), batches(10))
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted({row["step"] for row in rows}) == ["0", "2", "4"]
    last = [row for row in rows if row["step"] == "4"]
    assert [row["layer"] for row in last] == [layer.name for layer in given.layers]
    mean = sum(float(row["stable_rank"]) for row in last) / len(last)
    assert float(one.callback_metrics["mean_stable_rank"]) == pytest.approx(mean, rel=1e-6)
    with (tmp_path / "log/lightning_logs/version_0/metrics.csv").open(newline="") as file:
        logged = {row["step"]: row for row in csv.DictReader(file)}
    assert logged.keys() == {"2", "4"}
    assert float(logged["4"]["mean_stable_rank"]) == pytest.approx(mean, rel=1e-12)
