"""The part of numpy's OpenBLAS that numpy does not offer: for large real symmetric matrices.

The usual reduction to tridiagonal form reads the whole remaining matrix for every column, so
half of it runs at the speed of memory. The two-stage reduction (Bischof, Lang & Sun 2000;
Haidar, Ltaief & Dongarra 2011) goes to a band first, by matrix products, and then chases the
band away inside the cache. For large sides it takes half to four fifths of the time, and its
workspace is a few columns. LAPACK has it since 3.7 (``sytrd_sy2sb``, ``sytrd_sb2st``, ``sterf``).
For smaller ones the usual reduction (``sytrd``) is called directly: in float32 numpy and torch
take one and a half times as long for the same.
``syrk`` adds to a triangle in place, where numpy makes a new matrix and fills both triangles.

Neither numpy nor torch offers these, but the OpenBLAS in numpy's wheels contains them. They are
looked up there by name. Where one is missing (another BLAS, another build, Windows), or they
fail a comparison with numpy on first use, ``available()`` is False and callers go another way.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Width of the band: wider makes the first stage faster and the second slower. Tuned by us at
# side 4096, with one thread.
BAND = {"d": 48, "s": 64}
TWO_STAGE_FROM = {"d": 2304, "s": 3072}  # sides; tuned by us, with one thread
LETTERS = {np.dtype(np.float64): "d", np.dtype(np.float32): "s"}
PROBE = 150  # side of the matrix of the self-check, some bands wide


def add_square(total: Float[ndarray, "n n"], block: Float[ndarray, "rows n"]) -> None:
    """Add block^T block to the upper triangle of ``total``, in place.

    Both have one type; ``total`` is C-contiguous, and one axis of ``block`` has stride one.
    """
    letter, size = LETTERS[total.dtype], total.itemsize
    rows, side = block.shape
    by_rows = block.strides[1] == size or side == 1
    leading = max(1, block.strides[0 if by_rows else 1] // size, side if by_rows else rows)
    alpha = np.ones(1, total.dtype)  # C's upper triangle is Fortran's lower one
    turn = b"N" if by_rows else b"T"
    _call(f"{letter}syrk", b"L", turn, side, rows, alpha, block, leading, alpha, total, side)


def eigenvalues(symmetric: Float[ndarray, "n n"]) -> Float[ndarray, "n"]:
    """All eigenvalues, rising, in the type of the matrix; only its upper triangle is read.

    The matrix is C-contiguous, of side above 64, and is overwritten.

    Raises:
        numpy.linalg.LinAlgError: LAPACK reports a failure.
    """
    large = len(symmetric) >= TWO_STAGE_FROM[LETTERS[symmetric.dtype]]
    return by_two_stages(symmetric) if large else by_one_stage(symmetric)


def by_one_stage(symmetric: Float[ndarray, "n n"]) -> Float[ndarray, "n"]:
    """``eigenvalues`` by the usual reduction."""
    letter, side = LETTERS[symmetric.dtype], len(symmetric)
    diagonal, beside, scales = (np.zeros(side, symmetric.dtype) for _ in range(3))
    parts = (diagonal, beside, scales)
    _call_lapack(f"{letter}sytrd", b"L", side, symmetric, side, *parts, spaces=1)
    _call_lapack(f"{letter}sterf", side, diagonal, beside)
    return diagonal


def by_two_stages(symmetric: Float[ndarray, "n n"]) -> Float[ndarray, "n"]:
    """``eigenvalues`` by way of a band."""
    letter = LETTERS[symmetric.dtype]
    side, width = len(symmetric), BAND[letter]
    band = np.zeros((side, width + 1), symmetric.dtype)
    diagonal, beside, scales = (np.zeros(side, symmetric.dtype) for _ in range(3))
    shape = (b"L", side, width)
    _call_lapack(f"{letter}sytrd_sy2sb", *shape, symmetric, side, band, width + 1, scales, spaces=1)
    _call_lapack(
        f"{letter}sytrd_sb2st", b"Y", b"N", *shape, band, width + 1, diagonal, beside, spaces=2
    )
    _call_lapack(f"{letter}sterf", side, diagonal, beside)
    return diagonal


@cache
def available() -> bool:
    """Whether numpy's OpenBLAS has the routines, and they agree with numpy's own results."""
    names = ("syrk", "sytrd", "sytrd_sy2sb", "sytrd_sb2st", "sterf")
    if any(_routine(letter + name) is None for letter in BAND for name in names):
        return False
    block = np.random.default_rng(0).standard_normal((PROBE, PROBE))
    try:
        return all(_agrees(block.astype(dtype)) for dtype in (np.float64, np.float32))
    except np.linalg.LinAlgError:
        return False


def _agrees(block: Float[ndarray, "n n"]) -> bool:
    expected = np.linalg.eigvalsh(block.T @ block + block @ block.T)
    total = np.zeros_like(block)
    add_square(total, block)
    add_square(total, block.T)
    allowed = len(block) * np.finfo(block.dtype).eps * expected[-1]
    found = (by_one_stage(total.copy()), by_two_stages(total))
    return all(bool(np.abs(values - expected).max() <= allowed) for values in found)


def _call_lapack(name: str, *arguments: bytes | int | ndarray, spaces: int = 0) -> None:
    """Call a routine that ends in ``spaces`` pairs of a workspace and its length, and a report."""
    dtype = next(one.dtype for one in arguments if isinstance(one, ndarray))
    asked = [np.zeros(1, dtype) for _ in range(spaces)]
    report = np.zeros(1, np.int64)
    if spaces > 0:  # a length of -1 asks for the length, which comes in the workspace
        _call(name, *arguments, *(part for one in asked for part in (one, -1)), report)
    given = [np.empty(_length(one), dtype) for one in asked]
    _call(name, *arguments, *(part for one in given for part in (one, len(one))), report)
    if report[0] != 0:
        raise np.linalg.LinAlgError(f"{name} of LAPACK failed with code {report[0]}")


def _length(answer: Float[ndarray, "1"]) -> int:
    """The length asked for, rounded up: float32 cannot hold every integer above 2^24."""
    return max(1, int(np.nextafter(answer[0], np.inf)) + 1)


def _call(name: str, *arguments: bytes | int | ndarray) -> None:
    """Call a Fortran routine: everything by reference, then the length of every string."""
    routine = _routine(name)
    if routine is None:
        raise np.linalg.LinAlgError(f"numpy's OpenBLAS has no {name}")
    lengths = [ctypes.c_size_t(1) for one in arguments if isinstance(one, bytes)]
    routine(*map(_reference, arguments), *lengths)


def _reference(value: bytes | int | ndarray) -> object:
    if isinstance(value, ndarray):
        return value.ctypes.data_as(ctypes.c_void_p)
    return value if isinstance(value, bytes) else ctypes.byref(ctypes.c_int64(value))


@cache
def _routine(name: str) -> Callable[..., object] | None:
    """A routine of the OpenBLAS of numpy's wheels (64-bit integers); None if there is none.

    Asked for a name, the handle of an extension module also searches the libraries that it is
    linked with.
    """
    try:
        from numpy.linalg import _umath_linalg

        found: Callable[..., object] = ctypes.CDLL(_umath_linalg.__file__)[f"scipy_{name}_64_"]
    except (ImportError, OSError, AttributeError):
        return None
    return found
