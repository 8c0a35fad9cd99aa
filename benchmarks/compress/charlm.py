"""Small language models of characters, trained from scratch on one text.

Six decoder blocks as in LLaMA (q, k, v, o, gate, up, down), from Hugging Face transformers, so
that a trained model is a folder that every part of tailor can read.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WINDOW, BATCH, RATE = 128, 32, 3e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """A text as numbers of characters; the last tenth is held out.

    Attributes:
        characters: What the numbers stand for.
        train: The first nine tenths.
        held_out: The rest.
    """

    characters: str
    train: Tensor
    held_out: Tensor


def load_text(path: Path) -> Text:
    """Read a text file."""
    whole = path.read_text(encoding="utf-8")
    characters = "".join(sorted(set(whole)))
    place = {one: i for i, one in enumerate(characters)}
    numbers = torch.tensor([place[one] for one in whole])
    cut = 9 * len(numbers) // 10
    return Text(characters=characters, train=numbers[:cut], held_out=numbers[cut:])


def windows(tokens: Tensor, count: int, length: int, seed: int) -> Tensor:
    """Pieces of a text that begin anywhere."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - length, (count,), generator=generator)
    return torch.stack([tokens[start : start + length] for start in starts.tolist()])


def network(vocabulary: int, *, width: int = 96, blocks: int = 6) -> Any:
    """An untrained model; its weights come from PyTorch's own generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=8 * width // 3,
            num_hidden_layers=blocks,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2 * WINDOW,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
    )


def train(text: Text, *, seed: int, steps: int) -> Any:
    """AdamW, a tenth of the steps to warm up, then a cosine down to a tenth of the rate."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(len(text.characters)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    for step in range(steps):
        batch = windows(text.train, BATCH, WINDOW, seed=1_000_000 * (seed + 1) + step)
        loss = cross_entropy(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"seed {seed}, step {step}, {loss.item() / math.log(2):.3f} bits", flush=True)
    return model.eval()


def _rate(step: int, steps: int) -> float:
    warm = steps // 10
    if step < warm:
        return (step + 1) / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / (steps - warm))


def cross_entropy(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean over all tokens but the first of each piece, in nats."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def bits(model: nn.Module, tokens: Tensor, size: int = 64) -> float:
    """Mean bits for each token but the first of each piece."""
    parts = [float(cross_entropy(model, part)) * len(part) for part in tokens.split(size)]
    return sum(parts) / len(tokens) / math.log(2)


def trained(folder: Path, text: Text, *, seed: int, steps: int) -> Any:
    """The model in a folder, trained and saved there if it is not yet."""
    from transformers import LlamaForCausalLM

    path = folder / f"seed{seed}"
    if not path.is_dir():
        aside = folder / f".seed{seed}"
        train(text, seed=seed, steps=steps).save_pretrained(aside)
        aside.rename(path)
    return LlamaForCausalLM.from_pretrained(path).eval()
