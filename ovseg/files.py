"""Writing files so that a reader never sees half of one, and where caches live."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

_log = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place in one step.

    The temporary name keeps the suffix, since writers such as Pillow choose the format by it.
    The data is on disk before the rename, so a crash leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
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
