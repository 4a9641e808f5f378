"""Writing files so that a reader never sees half of one, and where caches live."""

import errno
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from ovseg.errors import UsageError

_log = logging.getLogger(__name__)

_WINDOWS = os.name == "nt"
_MARK = ".ovseg-"  # in the name of every temporary file, and in no other's
_TEMPORARY = re.compile(rf"\.(.+){re.escape(_MARK)}[a-z0-9_]{{8}}(\.[^.]*|)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `s3://bucket`, also as a path spells it
_STEM = 40  # characters of a name that its temporary file has, too


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place in one step.

    The temporary name keeps the suffix, since writers such as Pillow choose the format by it.
    The data is on disk before the rename, so a crash leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_beside(path) as temporary:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """A new file, locked while someone is at work on it."""
    mark = f".{path.stem[:_STEM]}{_MARK}"
    handle, name = tempfile.mkstemp(prefix=mark, suffix=path.suffix, dir=path.parent)
    try:
        try_lock(handle)
        if _WINDOWS:  # where an open file cannot be renamed
            os.close(handle)
        yield Path(name)
    finally:
        if not _WINDOWS:
            os.close(handle)
        Path(name).unlink(missing_ok=True)


def remove_leftovers(folder: Path, is_ours: Callable[[str], bool] = lambda _: True) -> None:
    """Remove what a killed `replacing` left in a folder that is known to be ours.

    Nothing else is touched, whatever it looks like: a temporary file has our mark in its name, and
    is locked as long as it is written.

    Args:
        folder: searched itself, not its folders.
        is_ours: whether a file of this name would be ours; of a long one, the beginning.
    """
    for path in folder.glob(f".*{_MARK}*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and is_ours(match[1] + match[2]) and _is_abandoned(path):
            path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Whether a temporary file is nobody's any more; on Windows nobody could tell."""
    if _WINDOWS or path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return try_lock(stream.fileno())
    except OSError:
        return False


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed; False if it is locked where else it is open.

    True also where there are no such locks: on Windows, and on file systems that have none.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def local_path(name: Path | str) -> Path:
    """A path of this machine that something is to be written to.

    Raises:
        UsageError: it is an address such as s3://bucket, or no path at all.
    """
    text = str(name)
    if _ADDRESS.match(text):
        raise UsageError(f"{text} is an address: only folders of this machine can be written here")
    if "\0" in text:
        raise UsageError(f"{text!r} is no path: it has a NUL character in it")
    return Path(name)


def _umask() -> int:
    """The process's file mode mask; reading it means setting it for a moment."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; bytes in it that are no text are escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where downloads and cached embeddings live: `OVSEG_CACHE`, else the platform's folder."""
    override = os.environ.get("OVSEG_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("ovseg"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file; remembered for as long as the file stays as it is."""
    return remembered(path, "sha256", sha256)


def remembered(path: Path, what: str, compute: Callable[[Path], str]) -> str:
    """A digest of a file, computed again only where the file is another or has changed.

    That is told by its size, its number and both times of change, one of which nobody can set.

    Args:
        path: the file.
        what: the kind of digest.
        compute: gives it, 64 hexadecimal digits.
    """
    path = path.resolve()
    status = path.stat()
    name = hashlib.sha256(f"{what} {path}".encode(errors="surrogateescape")).hexdigest()[:32]
    note = cache_folder() / "digests" / name
    stamp = f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
    try:
        digest, known = note.read_text(encoding="utf-8").strip().split(" ", 1)
        if known == stamp and re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    except (OSError, ValueError):
        pass  # no note, or not one of ours
    digest = compute(path)
    try:
        write_text(note, f"{digest} {stamp}\n")
    except OSError as error:
        _log.info("digest of %s cannot be kept: %s", path, error)
    return digest
