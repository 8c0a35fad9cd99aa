"""The check of a certificate, for records in memory."""

from collections.abc import Callable

from torch import nn

from tailor.records import to_json
from tailor.stages.certify.certificate import Certificate
from tailor.stages.certify.method import Method
from tailor.stages.compress import CompressedModel
from tailor.tasks import Data, ErrorCount
from tailor.verifier import Verification, recount


def verify(
    certificate: Certificate,
    small: CompressedModel | bytes,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    held_out: Data | None = None,
    error: ErrorCount | None = None,
    method: Method | None = None,
) -> Verification:
    """Recount everything that a certificate says from the bytes and the data.

    Args:
        certificate: What is claimed.
        small: The file, or its bytes as found (damaged bytes do not hold).
        build: As for ``certify``.
        data: As for ``certify``.
        held_out: The held-out examples, if the certificate speaks of any.
        error: As for ``certify``; errors of classification by default.
        method: As for ``certify``, where its text does not say everything: a learner, a prior
            that was learned, sizes of tokens.

    Returns:
        Whether everything agrees, each comparison, and what no recount can tell. The work is
        done by ``tailor.verifier``, which shares no code with ``certify``. Counts are compared
        exactly, bounds to one part in 10^9 (the logarithms of other machines may differ in the
        last digit); the seal covers every digit.
    """
    return recount(
        to_json(certificate),  # type: ignore[arg-type]
        small if isinstance(small, bytes) else small.payload,
        build=build,
        data=data,
        held_out=held_out,
        error=error,
        method=method,
        decode=lambda payload: CompressedModel(payload=payload).state_dict(),
    )
