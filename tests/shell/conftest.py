"""Commands run in this process or in one of their own, and a small model to run them on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tailor import Analysis, records
from tailor.shell.cli import main


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path) -> Run:
    """Runs a command in this process, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse leaves in this way
            code = stop.code
        return Answer(code, *capsys.readouterr())

    return run


def process(*arguments: str | Path, folder: Path, **changes: str) -> Answer:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tailor", *arguments],
        cwd=folder,
        env=os.environ | changes,
        capture_output=True,
        text=True,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def refused(answer: Answer) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, no traceback."""
    assert answer.code == 2
    assert answer.out == ""
    (line,) = answer.err.strip().splitlines()
    assert line.startswith("tailor: ")
    assert "defect" not in line
    return line.removeprefix("tailor: ")


def analyzed(answer: Answer) -> Analysis:
    """The record that ``--json`` printed."""
    assert (answer.code, answer.err) == (0, "")
    return records.from_json(Analysis, json.loads(answer.out))


def names(analysis: Analysis) -> list[str]:
    return [layer.name for layer in analysis.layers]


def singular_values(matrix: torch.Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


@pytest.fixture(scope="module")
def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "first.weight": torch.randn(30, 40, generator=generator),
        "second.weight": torch.randn(25, 30, generator=generator),
        "first.bias": torch.zeros(30),
    }


@pytest.fixture
def model(tmp_path: Path, matrices: dict[str, torch.Tensor]) -> Path:
    save_file(matrices, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"
