"""Everything that tailor refuses, as one tree.

::

    TailorError
    ├── UsageError       an argument that cannot be honoured
    ├── SourceError      weights that cannot be read
    │   ├── NoMatrices       readable, but nothing in it is a matrix
    │   └── NonFinite        a weight is NaN or infinite
    ├── PayloadError     a compressed file that is damaged, foreign or too large
    ├── RecordError      a record (JSON) that does not say what its type demands
    ├── TaskError        a task that cannot be found, built or evaluated
    ├── EngineError      work that cannot be run where it was asked for
    └── OutputError      a place that cannot be written

Each message is one sentence: what came, what is needed, what to do.
"""


class TailorError(Exception):
    """Base of every error that tailor raises on purpose."""


class UsageError(TailorError, ValueError):
    """An argument is outside what the function can honour."""


class SourceError(TailorError):
    """Weights cannot be read from the given source."""


class NoMatrices(SourceError):
    """The source was read, but it holds no matrix to work on."""


class NonFinite(SourceError):
    """A weight tensor holds NaN or infinite values."""


class PayloadError(TailorError):
    """A compressed model is damaged, foreign, or claims more than allowed."""


class RecordError(TailorError):
    """A stored record does not match its schema."""


class TaskError(TailorError):
    """A task cannot be found, built or evaluated."""


class EngineError(TailorError):
    """Work cannot be run where it was asked for: workers die, or cannot be had."""


class OutputError(TailorError):
    """A result cannot be written where it was asked for."""
