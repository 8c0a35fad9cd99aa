"""Pruning a real language model block by block: stories260K, in one shot.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.stories \
        --model FOLDER --tokenizer tok512.bin --text FILE --work FOLDER
    python -m benchmarks.compress.stories --show

The model is stories260K (huggingface.co/karpathy/tinyllamas; five LLaMA blocks, 260,032 parameters,
512 tokens) as safetensors with a config.json; the first folder holds it, with the rotations in the
order of llama2.c or of transformers. FILE is tiny Shakespeare (github.com/karpathy/char-rnn), which
is far from what the model was trained on; so the model is also tested on stories of its own, drawn
from it with a seed. Calibration data come from the first quarter of the text, or are stories with
other seeds. What is measured so far is kept in the work folder. Writes
benchmarks/results/stories.json.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tailor as tl
from benchmarks.compress import charlm
from benchmarks.compress.case import METHODS, SCORES, UNIFORM, Case
from benchmarks.compress.tok512 import BOS, Tokenizer
from benchmarks.train.paired import paired
from tailor.integrations.causal_lm import prune_causal_lm
from tailor.stages.allocate import AlphaPruning
from tailor.stages.scores import SparseGPT, Wanda

RESULT = Path(__file__).parents[1] / "results" / "stories.json"
KNOWN = "Once upon a time, there was a little girl named Lily."  # what the model says first
SPARSITIES = (0.5, 0.6, 0.7, 0.8)
LENGTH, TESTED, CALIBRATED = 256, 64, 32  # tokens of a piece; pieces
SEEDS = range(1, 4)  # of calibration data
TEXTS = ("tiny Shakespeare", "own stories")


# The model


def loaded(folder: Path) -> Any:
    """The model in a folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def converted(source: Path, out: Path, tokenizer: Tokenizer) -> Path:
    """The model as a folder of transformers that says what it should."""
    if out.is_dir():
        return out
    model = loaded(source)
    if not greedy(model, tokenizer).startswith(KNOWN):
        _reorder(model)
    said = greedy(model, tokenizer)
    if not said.startswith(KNOWN):
        raise SystemExit(f"the model says {said!r}, and not {KNOWN!r}")
    aside = out.with_name(f".{out.name}")
    model.save_pretrained(aside, max_shard_size="400kB")
    aside.rename(out)
    return out


@torch.no_grad()
def _reorder(model: Any) -> None:
    """Rotate halves of a head, as transformers does it, and no longer neighbours."""
    config = model.config
    for block in model.model.layers:
        pairs = (
            (block.self_attn.q_proj.weight, config.num_attention_heads),
            (block.self_attn.k_proj.weight, config.num_key_value_heads),
        )
        for weight, heads in pairs:
            each = weight.reshape(heads, -1, 2, weight.shape[1])
            weight.copy_(each.transpose(1, 2).reshape(weight.shape).clone())


@torch.no_grad()
def greedy(model: Any, tokenizer: Tokenizer, length: int = 60) -> str:
    """The most probable text."""
    tokens = torch.tensor([[BOS]])
    for _ in range(length):
        following = model(tokens, use_cache=False).logits[0, -1].argmax()
        tokens = torch.cat([tokens, following.reshape(1, 1)], dim=1)
    return tokenizer.decode(tokens[0].tolist())


@torch.no_grad()
def stories(model: Any, count: int, seed: int) -> Tensor:
    """Texts drawn from the model; where a story ends the next one begins."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((count, 1), BOS)
    cache = None
    while tokens.shape[1] < LENGTH:
        out = model(tokens[:, -1:] if cache else tokens, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        law = out.logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(law, 1, generator=generator)], dim=1)
    return tokens


# The data


def shakespeare(path: Path, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Tokens of the first quarter and of the last tenth; each speech begins with BOS."""
    text = path.read_text(encoding="utf-8")
    cut = text.rindex("\n\n", 0, 9 * len(text) // 10)
    return _tokens(text[: cut // 4], tokenizer), _tokens(text[cut:], tokenizer)


def _tokens(text: str, tokenizer: Tokenizer) -> Tensor:
    speeches = filter(None, text.strip().split("\n\n"))
    return torch.tensor([one for speech in speeches for one in tokenizer.encode(speech)])


def data(model: Any, asked: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """For each text what is tested, and a function from a seed to calibration data."""
    first, rest = shakespeare(asked.text, tokenizer)
    count = len(rest) // LENGTH
    pieces = rest[: count * LENGTH].reshape(count, LENGTH)
    own = stories(model, TESTED, seed=0)
    return {
        TEXTS[0]: (
            pieces[torch.linspace(0, count - 1, TESTED).long()],
            lambda seed: charlm.windows(first, CALIBRATED, LENGTH, seed=seed),
        ),
        TEXTS[1]: (own, lambda seed: stories(model, CALIBRATED, seed=seed)),
    }


# The study


def measure(model: Any, told: dict[str, Any], done: dict, keep: Callable[[], None]) -> None:
    """Fill in what is not there yet; ``keep`` is called after each value."""
    for text, (tested, calibration) in told.items():
        done.setdefault(f"dense {text}", 2 ** charlm.bits(model, tested))
        for seed in SEEDS:
            case = Case(model, calibration(seed), tested)
            for key, score, method, sparsity in _cells(text, seed):
                if key not in done:
                    allocation = METHODS[method](case, sparsity)
                    done[key] = 2 ** case.pruned(SCORES[score], allocation, sparsity)
                    print(key, round(done[key], 3), flush=True)
                    keep()


def _cells(text: str, seed: int) -> list[tuple[str, str, str, float]]:
    """What to measure with one seed; magnitude knows of no data, but OWL and losses do."""
    return [
        (f"{text}, {sparsity:g} {score} {method}, {seed}", score, method, sparsity)
        for sparsity in SPARSITIES
        for score in SCORES
        for method in METHODS
        if seed == SEEDS[0] or score != "magnitude" or method in ("OWL", "measured loss")
    ]


def check(folder: Path, work: Path, told: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """The folder that is made block by block is the model that is pruned in memory."""
    tested, calibration = told[TEXTS[1]]
    model = loaded(folder)
    asked = {"score": SparseGPT(), "allocation": AlphaPruning(gate=False)}
    found = {}
    for sparsity in (0.5, 0.7):
        out = work / f"pruned{sparsity:g}"
        if not out.is_dir():
            prune_causal_lm(folder, [calibration(1)], sparsity, out=out, **asked)
        again = loaded(out)
        memory = prune_causal_lm(model, [calibration(1)], sparsity, **asked).model
        found[f"{sparsity:g}"] = {
            "folder": 2 ** charlm.bits(again, tested),
            "memory": 2 ** charlm.bits(memory, tested),
            "says": greedy(again, tokenizer),
        }
    wanda = prune_causal_lm(model, [calibration(1)], 0.5, score=Wanda(), allocation=AlphaPruning())
    return {"dense says": greedy(model, tokenizer), "gate": wanda.allocated.note, **found}


# What is shown


def show() -> None:
    """The recorded tables."""
    told = json.loads(RESULT.read_text())
    done = told["perplexity"]
    for text in TEXTS:
        print(f"\n{text}: dense {done[f'dense {text}']:.2f}")
        for score in SCORES:
            print(f"\n| {score} | " + " | ".join(f"{one:.0%}" for one in SPARSITIES) + " |")
            print("| --- " * (len(SPARSITIES) + 1) + "|")
            for method in METHODS:
                cells = [_cell(done, f"{text}, {one:g} {score}", method) for one in SPARSITIES]
                print(f"| {method} | " + " | ".join(cells) + " |")


def _cell(done: dict[str, float], start: str, method: str) -> str:
    """Mean over seeds, and the ratio to uniform with its paired interval in percent."""
    values, uniform = _seeds(done, start, method), _seeds(done, start, UNIFORM)
    mean = f"{statistics.fmean(values):.2f}"
    if method == UNIFORM:
        return mean
    if len(values) == 1:
        return f"{mean} ({100 * (values[0] / uniform[0] - 1):+.0f} %)"
    ratios = [100 * (a / b - 1) for a, b in zip(values, uniform * len(values), strict=False)]
    middle, half = paired(ratios, [0.0] * len(ratios))
    return f"{mean} ({middle:+.0f} ± {half:.0f} %)"


def _seeds(done: dict[str, float], start: str, method: str) -> list[float]:
    keys = (f"{start} {method}, {seed}" for seed in SEEDS)
    return [done[key] for key in keys if key in done]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--work", type=Path, help="for the models, and what is measured so far")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show and not (asked.model and asked.tokenizer and asked.text and asked.work):
        parser.error("--model, --tokenizer, --text and --work are needed")
    return asked


def main() -> None:
    """Convert, prune, record; or show."""
    asked = arguments()
    if asked.show:
        show()
        return
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(asked.tokenizer)
    folder = converted(asked.model, asked.work / "stories260K", tokenizer)
    model = loaded(folder)
    told = data(model, asked, tokenizer)
    checked = check(folder, asked.work, told, tokenizer)
    print(json.dumps(checked, indent=1), flush=True)
    file = asked.work / "perplexity.json"
    done = json.loads(file.read_text()) if file.exists() else {}
    measure(model, told, done, lambda: file.write_text(json.dumps(done, indent=1)))
    about = asdict(tl.Provenance.now(0)) | {"length": LENGTH, "tested": TESTED}
    record = {"about": about | {"calibrated": CALIBRATED}, "check": checked, "perplexity": done}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
