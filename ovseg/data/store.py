"""Where a data set is, or will be: a folder, or any address that fsspec can write (s3://...).

Both keep one promise: under its name a file is whole or absent. A folder's files are renamed into
place. Object stores show a file when its upload is complete; on other remote file systems it is
sent under another name first.

Names come from files that others may have written, so every one is checked here: it is a plain
name, and leads nowhere else.
"""

import errno
import logging
import os
import re
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import fsspec

from ovseg.errors import DataError, OvsegError
from ovseg.files import local_path, remove_leftovers, replacing
from ovseg.locks import holding

_log = logging.getLogger(__name__)

# Stores where a file appears when its upload is complete, and renaming means copying it.
_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_FEW = 8  # files looked at one by one; beyond, one listing of the place is quicker
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MOST_BYTES = 64 << 20  # of a file that is read as a whole


def checked_name(name: str) -> str:
    """A name that any file of a data set could have: letters and digits, and no way out.

    Raises:
        DataError: it is another.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"{str(name)[:100]!r} is no name of a file in a data set")
    return name


class Store(ABC):
    """A flat collection of files, each with a `checked_name`.

    Missing files raise `FileNotFoundError`, other trouble `DataError`. Objects can be pickled:
    other processes and machines write to the same place.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address

    @abstractmethod
    def names(self) -> dict[str, int]:
        """Every file here with its size in bytes; temporary ones are not."""

    @abstractmethod
    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """The sizes of those of `names` that are here."""

    def read_many(self, names: Collection[str], limit: int | None = MOST_BYTES) -> dict[str, bytes]:
        """The content of those of `names` that are here.

        Raises:
            DataError: one has more than `limit` bytes.
        """
        sizes = self.sizes(names)
        for name, size in sizes.items():
            if limit is not None and (size or 0) > limit:  # not every server tells it
                raise DataError(f"{self}/{name} has {size:,} bytes: at most {limit:,} are read")
        return self._contents(sizes)

    @abstractmethod
    def _contents(self, names: Collection[str]) -> dict[str, bytes]:
        """The content of files."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file to read from, at any offset."""

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes of a file from `start` on; fewer where it ends."""
        with self.open(name) as stream:
            stream.seek(start)
            return stream.read(size)

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write to; on success it becomes the file `name`, in one step."""

    @abstractmethod
    def local_path(self, name: str) -> AbstractContextManager[Path]:
        """A local path to read the file from."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is here."""

    def begin(self) -> AbstractContextManager[None]:
        """Hold the place for one run; where it cannot be held, say so."""
        _log.warning(
            "%s: nothing can be locked here: let one command at a time write this data set", self
        )
        return nullcontext()

    @abstractmethod
    def remove_leftovers(self, is_ours: Callable[[str], bool]) -> None:
        """Remove what killed builders left of files with such names; the place must be ours."""

    def has(self, *names: str) -> bool:
        """Whether all of these files are here."""
        return len(self.sizes(names)) == len(names)

    def read(self, name: str) -> bytes:
        """The content of a file of at most `MOST_BYTES`."""
        try:
            return self.read_many([name])[name]
        except KeyError:
            raise FileNotFoundError(f"{self}/{name}") from None

    def write_text(self, name: str, text: str) -> None:
        """Write a file of UTF-8."""
        with self.writing(name) as path:
            path.write_text(text, encoding="utf-8")

    def sha256(self, name: str) -> str:
        """Hexadecimal SHA-256 of a file, read once through."""
        digest = sha256()
        with self.open(name) as stream:
            while data := stream.read(1 << 20):
                digest.update(data)
        return digest.hexdigest()


class FolderStore(Store):
    """A folder of this machine, or one that several see under the same path."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder.absolute()

    def names(self) -> dict[str, int]:
        if not self.folder.is_dir():
            return {}
        files = (entry for entry in os.scandir(self.folder) if entry.is_file())
        return {file.name: file.stat().st_size for file in files if file.name[0] != "."}

    def path(self, name: str) -> Path:
        """Where the file is, or would be."""
        return self.folder / checked_name(name)

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        files = {name: self.path(name) for name in names}
        return {name: path.stat().st_size for name, path in files.items() if path.is_file()}

    def _contents(self, names: Collection[str]) -> dict[str, bytes]:
        try:
            return {name: self.path(name).read_bytes() for name in names}
        except OSError as error:
            raise DataError(f"cannot read from {self}: {error.strerror or error}") from error

    def open(self, name: str) -> BinaryIO:
        path = self.path(name)
        if not path.is_file():  # nor a pipe, which one could wait for for ever
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path.open("rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        self._make()
        try:
            with replacing(self.path(name)) as path:
                yield path
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise DataError(f"cannot write to {self}: {error.strerror}") from error

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write to {self}: {error.strerror}") from error

    def local_path(self, name: str) -> AbstractContextManager[Path]:
        if not self.path(name).is_file():
            raise FileNotFoundError(f"{self}/{name}")
        return nullcontext(self.path(name))

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Keep other runs out; the lock goes when the process does."""
        with holding(self.folder):
            yield

    def remove_leftovers(self, is_ours: Callable[[str], bool]) -> None:
        remove_leftovers(self.folder, is_ours)


class RemoteStore(Store):
    """A folder at an fsspec address. Nobody can lock it: builders there write the same bytes."""

    def names(self) -> dict[str, int]:
        with self._told("read") as (filesystem, root):
            filesystem.invalidate_cache()  # other machines write here, too
            try:
                found = filesystem.ls(root, detail=True)
            except FileNotFoundError:
                return {}
            files = {_last(entry["name"]): entry for entry in found if entry["type"] == "file"}
        return {name: entry["size"] for name, entry in files.items() if name[:1] not in ("", ".")}

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        if len(names) > _FEW:
            present = self.names()
            return {name: present[name] for name in names if name in present}
        found = {}
        with self._told("read") as (filesystem, root):
            filesystem.invalidate_cache()
            for name in names:
                try:
                    found[name] = filesystem.info(f"{root}/{checked_name(name)}")["size"]
                except FileNotFoundError:
                    continue
        return found

    def _contents(self, names: Collection[str]) -> dict[str, bytes]:
        with self._told("read") as (filesystem, root):
            paths = [f"{root}/{checked_name(name)}" for name in names]
            found = filesystem.cat(paths, on_error="return") if paths else {}
        for content in found.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise DataError(f"cannot read from {self}: {content}") from content
        return {_last(path): data for path, data in found.items() if isinstance(data, bytes)}

    def open(self, name: str) -> BinaryIO:
        with self._told("read") as (filesystem, root):
            return filesystem.open(f"{root}/{checked_name(name)}", "rb")

    def read_range(self, name: str, start: int, size: int) -> bytes:
        with self._told("read") as (filesystem, root):
            path = f"{root}/{checked_name(name)}"
            return bytes(filesystem.cat_file(path, start=start, end=start + size))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="ovseg-") as folder:
            path = Path(folder) / checked_name(name)
            yield path
            with self._told("write") as (filesystem, root):
                _send(filesystem, path, root, name)

    @contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="ovseg-") as folder:
            path = Path(folder) / checked_name(name)
            with self._told("read") as (filesystem, root):
                filesystem.get_file(f"{root}/{name}", str(path))
            yield path

    def remove(self, name: str) -> None:
        with self._told("write") as (filesystem, root):
            _remove(filesystem, f"{root}/{checked_name(name)}")

    def remove_leftovers(self, is_ours: Callable[[str], bool]) -> None:
        del is_ours  # names of what is being sent say nothing else
        with self._told("write") as (filesystem, root):
            for path in filesystem.ls(root, detail=False):
                if _SENT.fullmatch(_last(path)):
                    _remove(filesystem, path)

    @contextmanager
    def _told(self, verb: str) -> Iterator[tuple[Any, str]]:
        """The file system and our folder in it; its many kinds of errors become one of ours."""
        try:
            filesystem, root = fsspec.core.url_to_fs(self.address)
            yield filesystem, root.rstrip("/")
        except OvsegError:
            raise
        except Exception as error:  # each file system has its own, from credentials to quotas
            if verb == "read" and isinstance(error, FileNotFoundError):
                raise
            detail = str(error) or type(error).__name__
            raise DataError(f"cannot {verb} {_FROM[verb]} {self}: {detail}") from error


_FROM = {"read": "from", "write": "to"}
_SENT = re.compile(r"\.ovseg-[0-9a-f]{16}")


Address: TypeAlias = Store | Path | str


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _send(filesystem: Any, path: Path, root: str, name: str) -> None:
    """Upload a file so that nobody ever sees a part of it under its name."""
    protocol = filesystem.protocol
    kinds = {protocol} if isinstance(protocol, str) else set(protocol)
    if kinds & _WHOLE_UPLOADS:  # no folders to make; making one could make a bucket
        filesystem.put_file(str(path), f"{root}/{name}")
        return
    filesystem.makedirs(root, exist_ok=True)
    temporary = f"{root}/.ovseg-{secrets.token_hex(8)}"
    filesystem.put_file(str(path), temporary)
    _remove(filesystem, f"{root}/{name}")  # not every file system renames onto a file
    filesystem.mv(temporary, f"{root}/{name}")


def _remove(filesystem: Any, path: str) -> None:
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return


def open_store(address: Address) -> Store:
    """The place of a path, or of an address with `://` in it."""
    if isinstance(address, Store):
        return address
    if isinstance(address, str) and "://" in address:
        if address.startswith("file://"):
            return FolderStore(Path(fsspec.core.url_to_fs(address)[1]))
        return RemoteStore(address.rstrip("/"))
    return FolderStore(local_path(address))
