"""The callback in a real Trainer: what it does is what a loop written by hand does."""

import csv
import json
import shutil

import pytest
import torch

import tailor as tl
from tailor.errors import RecordError, UsageError
from tailor.stages.noise import StableNoise
from tailor.stages.train import Monitor

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, PartialState
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from tailor.integrations.extras import Extras
from tailor.integrations.transformers import TailorCallback

STEPS, SIZE = 6, 4
NOISE = StableNoise(alpha=1.8, scale=1e-2, seed=3)
PENALTIES = (
    tl.StableRank(1.0, skip=("lm_head.*",), schedule=tl.PowerDecay(period=2)),
    tl.L2(0.5),
)


def network(*, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(
                n_layer=2,
                n_embd=32,
                n_head=2,
                vocab_size=40,
                n_positions=16,
                bos_token_id=0,
                eos_token_id=0,
                loss_type="ForCausalLM",
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
            )
        )


def examples(count):
    tokens = torch.randint(0, 40, (count, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": one, "labels": one} for one in tokens]


def mean_loss(outputs, labels, parts):
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten()) / parts


def trainer(model, folder, callback, *, accumulate=1, optimizer=None, **options):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    return Trainer(
        model,
        TrainingArguments(
            str(folder),
            use_cpu=True,
            max_steps=options.pop("max_steps", STEPS),
            per_device_train_batch_size=SIZE,
            gradient_accumulation_steps=accumulate,
            train_sampling_strategy="sequential",
            max_grad_norm=0.0,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="steps" if "save_steps" in options else "no",
            **options,
        ),
        train_dataset=examples(STEPS * SIZE * accumulate),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, decay)),
        callbacks=[] if callback is None else [callback],
        compute_loss_func=lambda outputs, labels, **_: mean_loss(outputs, labels, accumulate),
    )


def decay(step):
    return 1 / (1 + step)


def callback(**options):
    return TailorCallback(penalties=PENALTIES, noise=NOISE, **options)


@pytest.fixture(scope="module")
def first_half(tmp_path_factory):
    """A run of three steps that left a checkpoint."""
    folder = tmp_path_factory.mktemp("first_half")
    trainer(network(), folder, callback(), max_steps=3, save_steps=3).train()
    return folder


def by_hand(model, *, accumulate):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
    tl.Regularizer(model, PENALTIES).attach(optimizer)
    NOISE.attach(model, optimizer)
    tokens = torch.stack([one["input_ids"] for one in examples(STEPS * SIZE * accumulate)])
    for group in tokens.split(SIZE * accumulate):
        for batch in group.split(SIZE):
            mean_loss(model(batch), batch, accumulate).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_weights_are_those_of_a_loop_written_by_hand(tmp_path, accumulate):
    model, plain, expected = network(), network(), network()
    trainer(model, tmp_path, callback(), accumulate=accumulate).train()
    by_hand(expected, accumulate=accumulate)
    assert same(model, expected)
    trainer(plain, tmp_path, None, accumulate=accumulate).train()
    assert not same(plain, expected)


def test_tied_embeddings_and_convolutions_of_gpt2_are_each_one_weight(tmp_path):
    made = callback()
    model = network()
    one = trainer(model, tmp_path, made, save_steps=STEPS)
    one.train()
    stored = torch.load(tmp_path / f"checkpoint-{STEPS}" / "tailor.pt", weights_only=True)
    (state,) = stored["state"]["penalties"]
    inner = {
        f"transformer.h.{block}.{layer}.weight"
        for block in (0, 1)
        for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert state["step"] == STEPS
    assert set(state["solver"]) == inner | {"transformer.wpe.weight", "lm_head.weight"}
    assert model.lm_head.weight is model.transformer.wte.weight


def test_afterwards_the_optimizer_is_as_before_also_when_training_failed(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    one = trainer(model, tmp_path, callback(), optimizer=optimizer)
    one.train()
    assert (
        len(optimizer._optimizer_step_pre_hooks),
        len(optimizer._optimizer_step_post_hooks),
    ) == (
        0,
        0,
    )
    one.compute_loss_func = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        one.train()
    left = len(optimizer._optimizer_step_post_hooks)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        one.train()
    assert len(optimizer._optimizer_step_post_hooks) == left == 1


# Resuming


@pytest.mark.parametrize("moved", [False, True])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, moved):
    straight, resumed = network(dropout=0.2), network(dropout=0.2)
    table, folder = tmp_path / "rows.csv", tmp_path / "run"
    given = callback(monitor=Monitor(every=2, csv=table))
    trainer(straight, folder, given, save_steps=3).train()
    rows = table.read_text(encoding="utf-8")
    start, options = folder / "checkpoint-3", {}
    if moved:
        start = shutil.move(start, tmp_path / "elsewhere")
        options = {"resume_from_checkpoint": str(start)}
    given = callback(monitor=Monitor(every=2, csv=table))
    trainer(resumed, folder, given, **options).train(resume_from_checkpoint=str(start))
    assert same(resumed, straight)
    assert table.read_text(encoding="utf-8") == rows


def test_without_its_state_a_resumed_run_would_end_otherwise(tmp_path, first_half):
    straight, resumed = network(), network()
    by_hand(straight, accumulate=1)
    shutil.copytree(first_half, tmp_path, dirs_exist_ok=True)
    mark = tmp_path / "checkpoint-3" / "trainer_state.json"
    state = json.loads(mark.read_text(encoding="utf-8"))
    del state["stateful_callbacks"]["tailor"]  # now it is of a run without the callback
    mark.write_text(json.dumps(state), encoding="utf-8")
    trainer(resumed, tmp_path, callback()).train(resume_from_checkpoint=str(mark.parent))
    assert not same(resumed, straight)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda path: path.unlink(), UsageError, r"is not in .*checkpoint-3; say where it is with"),
        (lambda path: path.write_bytes(b"no"), RecordError, "is damaged; resume from another"),
        (
            lambda path: torch.save({"run": "another", "step": 3, "state": {}}, path),
            UsageError,
            "is not in .*checkpoint-3; say where",
        ),
    ],
)
def test_a_state_that_is_lost_damaged_or_of_another_run_is_refused(
    tmp_path, first_half, damage, error, message
):
    shutil.copytree(first_half, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoint-3" / "tailor.pt")
    with pytest.raises(error, match=message):
        trainer(network(), tmp_path, callback()).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: TailorCallback(penalties=PENALTIES), "written with noise on 1 of 1 optimizers"),
        (
            lambda: TailorCallback(penalties=PENALTIES[:1], noise=NOISE),
            "but this regularizer has",
        ),
    ],
)
def test_a_resumed_run_needs_the_same_penalties_and_noise(tmp_path, first_half, given, message):
    shutil.copytree(first_half, tmp_path, dirs_exist_ok=True)
    with pytest.raises(UsageError, match=message):
        trainer(network(), tmp_path, given()).train(resume_from_checkpoint=True)


# Gradient scaling and other optimizers


def test_a_step_that_gradient_scaling_skips_moves_nothing():
    model = network()
    AcceleratorState(cpu=True)
    try:
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        optimizer = AcceleratedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), scaler=scaler)
        extras = Extras(penalties=PENALTIES, noise=NOISE)
        work = extras.attach(model, [optimizer], step=0, writes=True)
        before = [one.detach().clone() for one in model.parameters()]
        for value in (torch.inf, 0.0):
            loss = sum(one.sum() for one in model.parameters()) * 0.0
            scaler.scale(loss).backward()
            model.lm_head.weight.grad[0, 0] = value
            optimizer.step()
            optimizer.zero_grad()
            moved = not all(map(torch.equal, before, model.parameters()))
            assert optimizer.step_was_skipped == (value != 0)
            assert moved == (value == 0)
        assert work.state_dict()["noise"] == [{"step": 1, "seed": 3}]
        assert work.state_dict()["penalties"][0]["step"] == 1
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


# The monitor


def test_the_monitor_writes_its_table_and_means_into_the_history(tmp_path):
    made = TailorCallback(monitor=Monitor(every=4, csv=tmp_path / "rows.csv"))
    model = network()
    one = trainer(model, tmp_path / "run", made)
    one.train()
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"0", "4"}
    (logged,) = [entry for entry in one.state.log_history if "mean_alpha" in entry]
    last = [row for row in rows if row["step"] == "4"]
    assert [row["layer"] for row in last] == [layer.name for layer in made.layers]
    alphas = [float(row["alpha"]) for row in last if row["alpha"]]
    ranks = [float(row["stable_rank"]) for row in last]
    assert logged["step"] == 4
    assert logged["mean_alpha"] == pytest.approx(sum(alphas) / len(alphas), rel=1e-12)
    assert logged["mean_stable_rank"] == pytest.approx(sum(ranks) / len(ranks), rel=1e-12)
