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
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem[:_STEM]}{_MARK}", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove what a killed `replacing` left in a folder that is known to be ours.

    Nothing else is touched, whatever it looks like: a temporary file has our mark in its name.

    Args:
        folder: searched itself, not its folders.
        is_ours: whether a file of this name would be ours; of a long one, the beginning.
    """
    for path in folder.glob(f".*{_MARK}*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and is_ours(match[1] + match[2]) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock on a file, made if it is not there; it goes when the process does.

    Where there are no such locks (Windows, some network folders), nobody is kept out.

    Raises:
        UsageError: with `refusal`; another process holds it.
    """
    with path.open("ab") as stream:  # which changes nothing in a file of somebody else's
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UsageError(refusal) from error
        yield


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
    """SHA-256 of a file; remembered for as long as its size and time of change stay."""
    path = path.resolve()
    status = path.stat()
    note = cache_folder() / "digests" / hashlib.sha256(str(path).encode()).hexdigest()[:32]
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    try:
        digest, known = note.read_text(encoding="utf-8").strip().split(" ", 1)
        if known == stamp and len(digest) == 64:
            return digest
    except (OSError, ValueError):
        pass  # no note, or not one of ours
    digest = sha256(path)
    try:
        write_text(note, f"{digest} {stamp}\n")
    except OSError as error:
        _log.info("digest of %s cannot be kept: %s", path, error)
    return digest
