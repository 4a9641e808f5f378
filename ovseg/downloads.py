"""Files we know from elsewhere: what they are, where they go, and that they are what they claim."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovseg import files
from ovseg.errors import DownloadError
from ovseg.transfer import Part, Progress, UnavailableError, require_web_address, transfer

_HEX_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Remote:
    """A file somewhere else, and what it must be when it is here.

    Attributes:
        name: what people call it.
        url: http or https.
        checksum: `sha256:...` or, for sources that publish no better, `md5:...`; hexadecimal.
            None where the publisher states none: then only the size is compared.
        path: where it goes, relative to the cache folder.
        size: bytes; None where the source does not say beforehand.
        licence: SPDX expression, or the terms in a few words.
    """

    name: str
    url: str
    checksum: str | None
    path: str
    size: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        require_web_address(self.url)
        if self.checksum is not None and not _is_checksum(self.checksum):
            raise ValueError(f"{self.name}: {self.checksum!r} is no checksum")
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts or not parts.name:
            raise ValueError(f"{self.name}: {self.path!r} leaves the cache folder")


def target(remote: Remote, folder: Path | None = None) -> Path:
    """Where the file is, or will be: under `folder`, or else the cache folder."""
    return (folder or files.cache_folder()) / remote.path


def is_here(remote: Remote, folder: Path | None = None) -> bool:
    """Whether the file is in its place with its size; its bytes are not read."""
    path = target(remote, folder)
    return path.is_file() and remote.size in (None, path.stat().st_size)


def bytes_missing(remote: Remote, folder: Path | None = None) -> int | None:
    """Bytes that `fetch` would transfer, for an announcement; None if the size is not known."""
    path = target(remote, folder)
    if path.is_file():
        return 0
    part = _part_path(path)
    here = part.stat().st_size if part.is_file() else 0
    return None if remote.size is None else max(remote.size - here, 0)


def fetch(
    remote: Remote,
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    timeout: float = 30.0,
    first_wait: float = 1.0,
) -> Path:
    """Return the file's path, downloading what is missing of it.

    A broken transfer leaves `NAME.part`, which the next call goes on with. A file that is already
    in place, put there by hand or by us, is compared once with the checksum and then remembered.

    Args:
        attempts: transfers in a row that may fail without a single new byte.
        timeout: seconds without a byte after which a transfer counts as broken.
        first_wait: seconds before the second attempt; doubled after each.

    Raises:
        DownloadError: if the source cannot be reached (saying what to put where by hand), breaks
            its promises, or `OVSEG_OFFLINE=1` forbids the attempt.
    """
    path = target(remote, folder)
    if path.is_file():
        _verify_in_place(remote, path)
        return path
    if os.environ.get("OVSEG_OFFLINE") == "1":
        raise DownloadError(f"{remote.name}: OVSEG_OFFLINE is set. {by_hand(remote, folder)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_path(path).open("ab") as stream:
            part = Part(_part_path(path), stream)
            part.lock()
            transfer(
                remote.url,
                part,
                remote.size,
                progress=progress,
                attempts=attempts,
                timeout=timeout,
                first_wait=first_wait,
            )
            _verify_part(remote, part)
            part.path.replace(path)
            part.forget_note()
    except UnavailableError as error:
        raise DownloadError(f"{remote.name}: {error}. {by_hand(remote, folder)}") from error
    except DownloadError as error:
        raise DownloadError(f"{remote.name}: {error}") from error
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error
    _remember(remote, path)
    return path


def by_hand(remote: Remote, folder: Path | None = None) -> str:
    """The sentence that tells how to do without us."""
    return (
        f"Fetch {remote.url} ({show_size(remote.size)}, {remote.checksum or 'no checksum known'}) "
        f"by other means and put it at {target(remote, folder)}"
    )


def show_size(size: int | None) -> str:
    """Bytes as people read them, in decimal units."""
    if size is None:
        return "size unknown"
    if size < 1000:
        return f"{size} B"
    exponent = 1
    while size >= 999.5 * 1000**exponent and exponent < 3:
        exponent += 1
    value, unit = size / 1000**exponent, ("kB", "MB", "GB")[exponent - 1]
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _is_checksum(text: str) -> bool:
    kind, _, digits = text.partition(":")
    return len(digits) == _HEX_DIGITS.get(kind) and re.fullmatch("[0-9a-f]+", digits) is not None


def _digest(kind: str, path: Path) -> str:
    digest = hashlib.new(kind, usedforsecurity=kind != "md5")
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def _verify_part(remote: Remote, part: Part) -> None:
    """Compare a finished part; a wrong one is of no use to anybody and is emptied."""
    if remote.checksum is None:
        return
    found = _digest(remote.checksum.partition(":")[0], part.path)
    if found != remote.checksum:
        part.restart()
        raise DownloadError(f"{found} came where {remote.checksum} was expected; deleted")


def _verify_in_place(remote: Remote, path: Path) -> None:
    """Compare a file that is already there, once per version; it may be yours, so it stays."""
    if remote.checksum is None or _is_remembered(remote, path):
        return
    found = _digest(remote.checksum.partition(":")[0], path)
    if found != remote.checksum:
        raise DownloadError(
            f"{path}: {found} where {remote.checksum} was expected; "
            "remove it, and it will be fetched again"
        )
    _remember(remote, path)


def _note_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _note(remote: Remote, path: Path) -> str:
    status = path.stat()
    return f"{remote.checksum} {status.st_size} {status.st_mtime_ns}\n"


def _is_remembered(remote: Remote, path: Path) -> bool:
    note = _note_path(path)
    return note.is_file() and note.read_text(encoding="utf-8") == _note(remote, path)


def _remember(remote: Remote, path: Path) -> None:
    try:
        files.write_text(_note_path(path), _note(remote, path))
    except OSError:  # a read-only cache is compared at each use instead
        return
