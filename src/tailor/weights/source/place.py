"""Where bytes lie: a file or folder of this machine, or one behind a URL (by fsspec)."""

import glob
import os
import posixpath
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tailor.errors import SourceError, TailorError


@runtime_checkable
class File(Protocol):
    """An open file, as far as readers need one."""

    def read(self, length: int = -1, /) -> bytes:
        """The next bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""

    def tell(self) -> int:
        """The present place."""

    def __enter__(self) -> "File": ...

    def __exit__(self, *told: Any) -> None: ...


class Place(ABC):
    """A file or folder; as text, what the user wrote. It travels to other processes."""

    name: str

    @abstractmethod
    def beside(self, name: str) -> "Place":
        """The file of this name in the same folder."""

    @abstractmethod
    def inside(self, name: str) -> "Place":
        """The file of this name in this folder."""

    def within(self, name: str) -> bool:
        """Whether a name that a file gives stays in the file's own folder."""
        parts = name.replace("\\", "/").split("/")
        odd = {"", ".", ".."} & set(parts) or "\0" in name or ":" in name
        return not odd

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file or folder."""

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether it is a folder."""

    @abstractmethod
    def names(self) -> list[str]:
        """What lies in the folder."""

    @abstractmethod
    def matches(self) -> list["Place"]:
        """The files that this place means when it is read as a pattern."""

    @abstractmethod
    def size(self) -> int:
        """Length of the file in bytes."""

    @abstractmethod
    def stamp(self) -> list[object]:
        """What tells one state of the file from another, without reading it."""

    @abstractmethod
    def open(self) -> File:
        """The file, for reading at any position."""

    @abstractmethod
    def piece(self, start: int, length: int) -> Tensor:
        """Some bytes of the file, as a tensor that may be written to."""

    @abstractmethod
    def copy(self) -> tuple[Path, object]:
        """A local file with these bytes, which lasts as long as the object beside it."""


def place(source: str | os.PathLike[str]) -> Place:
    """The place that a path or a URL names."""
    text = os.fspath(source)
    return Remote(text) if "://" in text else Local(Path(text))


@dataclass(frozen=True, slots=True)
class Local(Place):
    """A file or folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Last part of the path."""
        return self.path.name

    def beside(self, name: str) -> Place:
        """See ``Place.beside``."""
        return Local(self.path.parent / name)

    def inside(self, name: str) -> Place:
        """See ``Place.inside``."""
        return Local(self.path / name)

    def exists(self) -> bool:
        """See ``Place.exists``."""
        return self.path.exists()

    def is_folder(self) -> bool:
        """See ``Place.is_folder``."""
        return self.path.is_dir()

    def names(self) -> list[str]:
        """See ``Place.names``."""
        return sorted(one.name for one in self.path.iterdir())

    def matches(self) -> list[Place]:
        """See ``Place.matches``; ``**`` crosses folders."""
        found = sorted(glob.glob(str(self.path), recursive=True))
        return [Local(Path(one)) for one in found if Path(one).is_file()]

    def size(self) -> int:
        """See ``Place.size``."""
        return self.path.stat().st_size

    def stamp(self) -> list[object]:
        """See ``Place.stamp``: length and time of the last change."""
        status = self.path.stat()
        return [self.name, status.st_size, status.st_mtime_ns]

    def open(self) -> File:
        """See ``Place.open``."""
        return self.path.open("rb")

    def piece(self, start: int, length: int) -> Tensor:
        """See ``Place.piece``: mapped, so that nothing is copied; writing leaves the file alone."""
        return torch.from_numpy(np.memmap(self.path, np.uint8, "c", offset=start, shape=(length,)))

    def copy(self) -> tuple[Path, object]:
        """See ``Place.copy``: the file itself."""
        return self.path, None


@dataclass(frozen=True, slots=True)
class Remote(Place):
    """A file or folder behind a URL, such as ``s3://``, ``gs://``, ``hf://`` or ``https://``."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:  # type: ignore[override]
        """Last part of the path, without the query of a signed address."""
        return posixpath.basename(self._bare().rstrip("/"))

    def _bare(self) -> str:
        return self.url.split("?", 1)[0] if self.url.startswith("http") else self.url

    def beside(self, name: str) -> Place:
        """See ``Place.beside``."""
        return Remote(posixpath.join(posixpath.dirname(self._bare().rstrip("/")), name))

    def inside(self, name: str) -> Place:
        """See ``Place.inside``."""
        return Remote(posixpath.join(self._bare(), name))

    def exists(self) -> bool:
        """See ``Place.exists``."""
        with self._reached() as (system, path):
            return bool(system.exists(path))

    def is_folder(self) -> bool:
        """See ``Place.is_folder``."""
        with self._reached() as (system, path):
            return bool(system.isdir(path))

    def names(self) -> list[str]:
        """See ``Place.names``."""
        with self._reached() as (system, path):
            found = system.ls(path, detail=False)
            return sorted(posixpath.basename(str(one).rstrip("/")) for one in found)

    def matches(self) -> list[Place]:
        """See ``Place.matches``."""
        with self._reached() as (system, path):
            found = sorted(system.glob(path))
            return [Remote(system.unstrip_protocol(one)) for one in found if system.isfile(one)]

    def size(self) -> int:
        """See ``Place.size``."""
        with self._reached() as (system, path):
            length = system.info(path).get("size")
        if not isinstance(length, int):
            raise SourceError(f"{self} does not tell its length; download it first")
        return length

    def stamp(self) -> list[object]:
        """See ``Place.stamp``: what the server tells about the file."""
        with self._reached() as (system, path):
            info = system.info(path)
            told = {key: str(value) for key, value in info.items() if key != "name"}
            return [self.name, sorted(told.items())]

    def open(self) -> File:
        """See ``Place.open``."""
        with self._reached() as (system, path):
            return cast(File, system.open(path, "rb"))

    def piece(self, start: int, length: int) -> Tensor:
        """See ``Place.piece``: one request for a range of bytes."""
        with self._reached() as (system, path):
            read = bytearray(system.cat_file(path, start=start, end=start + length))
            if len(read) != length:
                raise OSError(f"{length} bytes were asked for, {len(read)} came")
            return torch.frombuffer(read, dtype=torch.uint8)

    def copy(self) -> tuple[Path, object]:
        """See ``Place.copy``: fetched to a temporary folder."""
        folder = _Folder()
        target = folder.path / (self.name or "file")
        with self._reached() as (system, path):
            system.get_file(path, str(target))
        return target, folder

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system behind the URL; whatever it raises becomes one sentence."""
        try:
            import fsspec
        except ImportError as error:
            raise SourceError(
                f"{self} is remote, which needs fsspec; install it with: "
                "pip install 'tailor[remote]'"
            ) from error
        try:
            yield fsspec.core.url_to_fs(self.url)
        except TailorError:
            raise
        except FileNotFoundError as error:
            raise SourceError(f"there is no file or folder {self}") from error
        except ImportError as error:  # "Install s3fs to access S3"
            raise SourceError(f"{self} cannot be reached yet: {error}") from error
        except Exception as error:  # each service has exceptions of its own
            said = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise SourceError(f"{self} cannot be reached: {said}") from error


class _Folder:
    """A temporary folder that goes away with this object, at the latest at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tailor-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
