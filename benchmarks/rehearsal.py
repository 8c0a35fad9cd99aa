"""A simulated language model of 200 layers, analyzed from its shards: time and memory.

    OMP_NUM_THREADS=1 python benchmarks/rehearsal.py
    OMP_NUM_THREADS=1 python benchmarks/rehearsal.py --quick

Writes a decoder of width 512 with 1400 matrices of 16-bit noise (1.1 GB, in ten shards of
safetensors with an index) into a temporary folder, and analyzes it with one worker and with two,
each in a fresh process. What is to be seen: whether two workers halve the time, and whether
memory depends on the largest matrix and not on the model.

Writes benchmarks/results/rehearsal.json. A quick run has 10 layers and writes nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import tailor as tl
from tailor.records import Provenance

RESULT = Path(__file__).parent / "results" / "rehearsal.json"

LAYERS, SHARDS = 200, 10
WIDTH, KEY, HIDDEN = 512, 128, 1408  # the proportions of a 70 B decoder
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KEY, WIDTH),
    "self_attn.v_proj": (KEY, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
WORKERS = (1, 2)


def write_model(folder: Path, layers: int) -> int:
    """The shards and their index; returns the number of bytes."""
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        held = {}
        for layer in range(shard * layers // SHARDS, (shard + 1) * layers // SHARDS):
            for part, shape in SHAPES.items():
                noise = torch.randn(shape, generator=generator).to(torch.bfloat16)
                held[f"model.layers.{layer}.{part}.weight"] = noise
        _write_shard(folder / name, held)
        weight_map |= dict.fromkeys(held, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())


def _write_shard(path: Path, held: dict[str, torch.Tensor]) -> None:
    """The format of safetensors: length of the head, the head, the bytes."""
    head, at = {}, 0
    for name, tensor in held.items():
        end = at + 2 * tensor.numel()
        head[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    told = json.dumps(head).encode()
    with path.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for tensor in held.values():
            file.write(tensor.view(torch.int16).numpy().tobytes())


def child(folder: Path, workers: int) -> None:
    """Analyze the folder and print the numbers."""
    torch.set_num_threads(1)
    tl.analyze({"warm": torch.randn(150, 150)})  # loads what comes late
    before = _peak()
    began = time.perf_counter()
    found = tl.analyze(folder, engine=tl.Local(workers=workers))
    told = {
        "workers": workers,
        "matrices": len(found.layers),
        "seconds": time.perf_counter() - began,
        "seconds_in_matrices": sum(one.seconds for one in found.layers),
        "megabytes_before": before,
        "megabytes": _peak(),
    }
    if workers > 1:
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told["megabytes_of_the_largest_worker"] = largest / 1024
    print(json.dumps(told))


def _peak() -> float:
    """Most memory that this process has held (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (one for one in status if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Write the model, analyze it, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 layers; writes nothing")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.child:
        child(parsed.folder, parsed.child)
        return
    layers = 10 if parsed.quick else LAYERS
    with tempfile.TemporaryDirectory(prefix="tailor-rehearsal-") as folder:
        size = write_model(Path(folder), layers)
        runs = [_in_a_fresh_process(folder, workers) for workers in WORKERS]
    for run in runs:
        print(run)
    if parsed.quick:
        return
    about = Provenance.now()
    result = {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "machine": f"{about.machine}, {os.cpu_count()} processors",
        "layers": layers,
        "shards": SHARDS,
        "megabytes_on_disk": size / 1e6,
        "megabytes_of_the_largest_matrix": 2e-6 * HIDDEN * WIDTH,
        "runs": runs,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULT}")


def _in_a_fresh_process(folder: str, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", folder, "--child", str(workers)]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    told = subprocess.run(
        command, env=os.environ | single, stdout=subprocess.PIPE, check=True, text=True
    )
    return dict(json.loads(told.stdout))


if __name__ == "__main__":
    main()
