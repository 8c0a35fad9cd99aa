"""Damaged streams: does the reader of the packed stream ever do anything but decode or refuse?

    OMP_NUM_THREADS=1 python -m benchmarks.compress.fuzz
    python -m benchmarks.compress.fuzz --show

Small streams, one for each way in which tensors are sent, are damaged at random: bytes exchanged
(anywhere, or among the first ones, which say what follows), bits flipped, a piece left out, put in
or put elsewhere, the end cut off or lengthened. No checksum stands in the way. Counted are refusals
(PayloadError), streams that decode to something, and all else, of which there must be none. The
longest CPU time of a call is kept, and the largest memory of every fiftieth (to trace it is
slow); both have limits. Whole files of both coders are damaged likewise, header and all, and their
checksum is made right again. Writes benchmarks/results/fuzz.json.
"""

import argparse
import json
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch

import tailor as tl
from tailor.errors import PayloadError
from tailor.numerics.coding import (
    Codebook,
    Coded,
    Grid,
    Raw,
    Spec,
    decode_packed,
    encode_packed,
)

RESULT = Path(__file__).parents[1] / "results" / "fuzz.json"
SECONDS, MEMORY = 2.0, 128 << 20  # of one call
TRACED = 50
FIRST = 24  # bytes where lengths and side information stand

Item = tuple[Coded, Spec]
Damaged = tuple[str, bytes, Callable[[bytes], object]]  # name, bytes, and what reads them


def grid(levels: np.ndarray, step: float = 1.0) -> Item:
    """Levels with a shape of their own."""
    return Grid(levels=levels, step=step), Spec(shape=levels.shape, dtype="float32")


def raw(values: np.ndarray) -> Item:
    """A tensor byte by byte."""
    return Raw(data=values.tobytes()), Spec(shape=values.shape, dtype=str(values.dtype))


def messages() -> dict[str, list[Item]]:
    """One list of tensors for each way in which they are sent."""
    rng = np.random.default_rng(0)
    alive = np.repeat([0, 1], 32)[:, None]
    book = np.sort(rng.standard_normal(5)).astype("f4")
    codes = Codebook(codes=rng.integers(0, 5, (6, 9)), values=book)
    return {
        "grid": [grid(np.rint(2 * rng.standard_normal((9, 12))).astype(int), 0.5)],
        "classes": [grid(rng.integers(-1, 2, (64, 16)) * alive)],
        "outliers": [grid(np.array([[1 << 20, -(1 << 20), 0, 5, 99, -7000]] * 7))],
        "codebook": [(codes, Spec(shape=(6, 9), dtype="float16"))],
        "floats": [raw(rng.standard_normal(60).astype(t)) for t in ("<f4", "<f2", "<f8")],
        "bytes": [raw(np.arange(3).repeat(25)), raw(rng.random(90) < 0.3), raw(np.array(7))],
        "empty": [grid(np.zeros((0, 3), dtype=int)), raw(np.zeros(0)), grid(np.zeros((4, 9), int))],
    }


def damages(rng: random.Random) -> list[Callable[[bytearray], bytes]]:
    """Ways to damage a stream."""

    def place(data: bytearray, first: bool = False) -> int:
        return rng.randrange(min(len(data), FIRST) if first else len(data))

    def exchange(data: bytearray, first: bool = False) -> bytes:
        for _ in range(rng.choice((1, 1, 2, 5))):
            data[place(data, first)] = rng.randrange(256)
        return bytes(data)

    def flip(data: bytearray) -> bytes:
        data[place(data)] ^= 1 << rng.randrange(8)
        return bytes(data)

    def leave_out(data: bytearray) -> bytes:
        start = place(data)
        return bytes(data[:start] + data[start + rng.randrange(1, 9) :])

    def put_in(data: bytearray) -> bytes:
        start = place(data)
        return bytes(data[:start] + rng.randbytes(rng.randrange(1, 9)) + data[start:])

    def move(data: bytearray) -> bytes:
        a, b = sorted((place(data), place(data)))
        return bytes(data[:a] + data[b:] + data[a:b])

    return [
        exchange,
        lambda data: exchange(data, first=True),
        flip,
        leave_out,
        put_in,
        move,
        lambda data: bytes(data[: place(data)]),
        lambda data: bytes(data + rng.randbytes(rng.randrange(1, 5))),
        lambda data: rng.randbytes(len(data)),
    ]


def streams(number: int, seed: int) -> Iterator[Damaged]:
    """So many damaged streams."""
    rng = random.Random(seed)
    ways = damages(rng)
    whole = [
        (name, b"".join(encode_packed(items)), [spec for _, spec in items])
        for name, items in messages().items()
    ]
    for turn in range(number):
        name, data, specs = whole[turn % len(whole)]
        damage = rng.choice(ways)(bytearray(data))
        yield name, damage, lambda data, specs=specs: list(decode_packed(data, specs))


def files(number: int, seed: int) -> Iterator[Damaged]:
    """So many damaged files, whose checksums are right."""
    rng = random.Random(seed)
    ways = damages(rng)
    levels = np.rint(np.random.default_rng(0).standard_normal((6, 8))).astype(int)
    state = {"a": torch.as_tensor(levels * 0.5, dtype=torch.float32), "b": torch.ones(3)}
    state["tied"] = state["b"]
    coded = {"a": Grid(levels=levels, step=0.5)}
    whole = [tl.pack(state, coded, coder=coder) for coder in (tl.RANS(), tl.Adaptive())]
    for turn in range(number):
        file = whole[turn % len(whole)]
        name = f"file of {type(file.coder).__name__}"
        body = file.payload[:-4]
        (length,) = struct.unpack("<I", body[8:12])
        if turn // 2 % 2:  # the header, as it is before it is shortened
            text = file.coder.restore(body[12 : 12 + length])
            short = file.coder.shorten(rng.choice(ways)(bytearray(text)))
            damage = body[:8] + struct.pack("<I", len(short)) + short + body[12 + length :]
        else:
            start = 8 if rng.random() < 0.9 else 0  # behind the signature, mostly
            damage = body[:start] + rng.choice(ways)(bytearray(body[start:]))
        yield name, damage + struct.pack("<I", zlib.crc32(damage)), _decoded


def _decoded(payload: bytes) -> object:
    return tl.CompressedModel(payload=payload).state_dict()


def measure(damaged: Iterable[Damaged]) -> dict[str, object]:
    """Read what is damaged."""
    counts: dict[str, dict[str, int]] = {}
    others: dict[str, int] = {}
    number = 0
    slowest = largest = 0.0
    for number, (name, data, read) in enumerate(damaged, start=1):
        counts.setdefault(name, {"refused": 0, "decoded": 0})
        turn = number - 1
        if turn % TRACED == 0:
            tracemalloc.start()
        begun = time.process_time()
        try:
            read(data)
            counts[name]["decoded"] += 1
        except PayloadError:
            counts[name]["refused"] += 1
        except Exception as error:  # whatever it is, it should not be
            others[repr(error)] = others.get(repr(error), 0) + 1
        if turn % TRACED:
            slowest = max(slowest, time.process_time() - begun)
        else:
            largest = max(largest, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    return {
        "streams": number,
        "counts": counts,
        "other_errors": others,
        "longest_cpu_seconds": slowest,
        "largest_memory_bytes": largest,
        "passed": not others and slowest < SECONDS and largest < MEMORY,
    }


def show(result: dict) -> None:
    """The results as Markdown."""
    print("| sent as | refused | decoded |\n| --- | --: | --: |")
    for name, one in result["counts"].items():
        print(f"| {name} | {one['refused']:,} | {one['decoded']:,} |")
    print(
        f"\n{result['streams']:,} damaged streams, {sum(result['other_errors'].values())} other "
        f"errors; at most {result['longest_cpu_seconds']:.2f} CPU seconds and "
        f"{result['largest_memory_bytes'] / 2**20:.1f} MiB for one."
    )


def main() -> None:
    """Damage, read and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=105_000)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        every = chain(streams(chosen.number, 0), files(chosen.number // 5, 0))
        result = {"about": asdict(tl.Provenance.now(0)), **measure(every)}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    show(json.loads(RESULT.read_text()))


if __name__ == "__main__":
    main()
