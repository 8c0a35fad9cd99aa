"""A file to which results are appended as they come, so that a killed run can go on.

One line of JSON each: first what the run is about, then the results. A last line that a crash
cut short is left out.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tailor import records
from tailor.errors import OutputError, RecordError
from tailor.stages.analyze.record import Failed, LayerAnalysis
from tailor.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    index: int
    rows: tuple[LayerAnalysis | Failed, ...]


class Journal:
    """Results on disk, for one source and one set of settings.

    Args:
        path: The file; None keeps nothing.
        fingerprint: What the source is; None if it cannot be recognised in another run, and
            then the journal begins anew.
        settings: All that decides about the numbers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        fingerprint: str | None,
        settings: Mapping[str, object],
    ) -> None:
        self._path = None if path is None else Path(path)
        self._known = fingerprint is not None
        said = {name: str(value) for name, value in settings.items()}
        self._head = {"tailor": __version__, "source": fingerprint, "settings": said}

    def found(self, tasks: int) -> Iterator[tuple[int, tuple[LayerAnalysis | Failed, ...]]]:
        """Results of an equal run; the file is then ready to be appended to.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._path is None:
            return
        lines = self._lines()
        kept = [json.dumps(self._head)]
        for line in lines:
            with suppress(RecordError, ValueError):
                one = records.from_json(_Line, json.loads(line))
                if 0 <= one.index < tasks:
                    kept.append(line)
                    yield one.index, one.rows
        records.write(self._path, ("\n".join(kept) + "\n").encode())

    def _lines(self) -> list[str]:
        """Lines after the head, if the head is that of this run."""
        if self._path is None or not self._known:
            return []
        try:
            head, *lines = self._path.read_text(encoding="utf-8").splitlines()
            return lines if json.loads(head) == self._head else []
        except (OSError, ValueError):
            return []

    def append(self, index: int, rows: tuple[LayerAnalysis | Failed, ...]) -> None:
        """Write one result down, to the disk.

        Raises:
            OutputError: The disk is full or the file has gone.
        """
        if self._path is None:
            return
        line = json.dumps(records.to_json(_Line(index=index, rows=rows)), allow_nan=False)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror})") from error
