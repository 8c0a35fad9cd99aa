"""Random numbers of training: those of a step depend on the seed, the step and the process alone.

So nothing has to be stored to go on with a run, and what the caller draws between two steps
changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import torch


@contextmanager
def own_random(
    seed: int, step: int, rank: int, devices: Sequence[torch.device] = ()
) -> Iterator[None]:
    """The random state of this step, on the CPU and CUDA devices; then the caller's again."""
    theirs = torch.get_rng_state()
    beside = [torch.cuda.get_rng_state(device) for device in devices]
    key = int.from_bytes(blake2b(f"{seed} {rank} {step}".encode(), digest_size=8).digest())
    torch.default_generator.manual_seed(key)
    for device in devices:
        torch.cuda.default_generators[device.index or 0].manual_seed(key)
    try:
        yield
    finally:
        torch.set_rng_state(theirs)
        for device, state in zip(devices, beside, strict=True):
            torch.cuda.set_rng_state(state, device)
