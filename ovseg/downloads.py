"""Fetching files we know: resumed, bounded, verified, and put in place in one step.

The standard library does the transport. A client library would bring nothing that is missing
here: redirects are ours to check anyway, and resuming is built on none of them. The opener knows
HTTP and HTTPS alone, so no address and no redirect can reach `file:`, `ftp:` or `data:`.
"""

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from ovseg import files
from ovseg.errors import DownloadError
from ovseg.version import __version__

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and the bytes there will be, if known."""

UNKNOWN_SIZE_LIMIT = 20 << 30  # bytes accepted where a source's size is not known beforehand
_CHUNK = 1 << 18
_HEX_DIGITS = {"sha256": 64, "md5": 32}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Remote:
    """A file somewhere else, and what it must be when it is here.

    Attributes:
        name: what people call it.
        url: http or https.
        checksum: `sha256:...` or, for sources that publish no better, `md5:...`; hexadecimal.
        path: where it goes, relative to the cache folder.
        size: bytes; None where the source does not say beforehand.
        licence: SPDX expression, or the terms in a few words.
    """

    name: str
    url: str
    checksum: str
    path: str
    size: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        _require_web_address(self.url)
        kind, _, digits = self.checksum.partition(":")
        if not re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS.get(kind, -1)}}}", digits):
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


def show_size(size: int | None) -> str:
    """Bytes as people read them, in decimal units."""
    if size is None:
        return "size unknown"
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


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
    in place, put there by hand or by us, is checked once against the checksum and then remembered.

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
        raise DownloadError(f"OVSEG_OFFLINE is set. {by_hand(remote, path)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("ab") as stream:
            _lock(stream, remote)
            _transfer_all(remote, path, stream, progress, attempts, timeout, first_wait)
        _verify(remote, part)
        part.replace(path)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error
    _state_path(path).unlink(missing_ok=True)
    _remember(remote, path)
    return path


def by_hand(remote: Remote, path: Path) -> str:
    """The sentence that tells how to do without us."""
    return (
        f"Fetch {remote.url} ({show_size(remote.size)}, {remote.checksum}) "
        f"by other means and put it at {path}"
    )


# --- transfer -----------------------------------------------------------------------------------


class _BrokenTransferError(Exception):
    """A transfer that may succeed when repeated."""


def _transfer_all(
    remote: Remote,
    path: Path,
    stream: IO[bytes],
    progress: Progress | None,
    attempts: int,
    timeout: float,
    wait: float,
) -> None:
    """Transfer until all is here, going on where a broken transfer stopped."""
    failures = 0
    while True:
        before = stream.tell()
        try:
            _transfer(remote, path, stream, progress, timeout)
            stream.flush()
            os.fsync(stream.fileno())
            return
        except _BrokenTransferError as error:
            failures = 0 if stream.tell() > before else failures + 1
            if failures >= attempts:
                raise DownloadError(f"{remote.name}: {error}. {by_hand(remote, path)}") from error
            time.sleep(wait * 2 ** max(failures - 1, 0))


def _transfer(
    remote: Remote, path: Path, stream: IO[bytes], progress: Progress | None, timeout: float
) -> None:
    """One request for the bytes that are missing."""
    start = _resumable(remote, path, stream)
    if start and start == remote.size:
        return
    with _open(remote, path, start, timeout) as response:
        if start and not _continues(response, start, remote):
            start = _restart(stream)
        total = _announced(response, start, remote)
        _require_space(path, (total or 0) - start)
        _write_state(remote, path, response)
        _copy(remote, response, stream, total, progress)


def _open(remote: Remote, path: Path, start: int, timeout: float) -> Any:
    """The response to a request for the bytes from `start` on."""
    headers = {"User-Agent": f"ovseg/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag := _read_state(path).get("etag"):
            headers["If-Range"] = etag
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        return _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is no prefix of what the source has now
            path.with_name(f"{path.name}.part").write_bytes(b"")
            raise _BrokenTransferError("the source does not have the bytes asked for") from None
        message = f"the source answers {error.code} {error.reason}"
        if error.code in _TRANSIENT:
            raise _BrokenTransferError(message) from None
        raise DownloadError(f"{remote.name}: {message}. {by_hand(remote, path)}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _BrokenTransferError(
            f"cannot reach {urlsplit(remote.url).netloc}: {reason}"
        ) from None


def _copy(
    remote: Remote, response: Any, stream: IO[bytes], total: int | None, progress: Progress | None
) -> None:
    """Append the body to the stream, never beyond what was announced."""
    limit = UNKNOWN_SIZE_LIMIT if total is None else total
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenTransferError(f"the transfer broke off: {error}") from None
        if not chunk:
            break
        if stream.tell() + len(chunk) > limit:
            _restart(stream)
            raise DownloadError(f"{remote.name}: the source sends more than {limit} bytes")
        stream.write(chunk)
        if progress:
            progress(stream.tell(), total)
    if total is not None and stream.tell() < total:
        raise _BrokenTransferError(f"the transfer broke off at {stream.tell()} of {total} bytes")


def _continues(response: Any, start: int, remote: Remote) -> bool:
    """Whether the body is the rest of the file, not all of it."""
    if response.status != 206:
        return False
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != start:
        raise DownloadError(f"{remote.name}: the source sends another range than asked for")
    return True


def _announced(response: Any, start: int, remote: Remote) -> int | None:
    """Bytes the whole file will have, by the response and by what we know of it."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{remote.name}: the source sends a compressed body unasked")
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    if remote.size is not None and total not in (None, remote.size):
        raise DownloadError(
            f"{remote.name}: the source announces {total} bytes, not {remote.size}; "
            "it holds another file now"
        )
    return total if remote.size is None else remote.size


# --- addresses ----------------------------------------------------------------------------------


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _require_web_address(newurl)
        except ValueError as error:
            raise DownloadError(f"{req.full_url}: redirected away: {error}") from None
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url}: redirected from https to http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """As the base class does, but with our sentence for schemes that it refuses first."""
        scheme = urlsplit(headers.get("location") or "").scheme
        if scheme not in ("", "http", "https"):
            raise DownloadError(f"{req.full_url}: redirected to a {scheme}: address")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """An opener without the standard one's handlers for local files, FTP and data URLs."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _CheckedRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def _require_web_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http or https address")


# --- the part that is here ----------------------------------------------------------------------


def _resumable(remote: Remote, path: Path, stream: IO[bytes]) -> int:
    """Bytes of an earlier transfer from the same source that we can go on with."""
    start = stream.seek(0, os.SEEK_END)
    same_source = _read_state(path).get("url") == remote.url
    too_long = remote.size is not None and start > remote.size
    return start if start and same_source and not too_long else _restart(stream)


def _restart(stream: IO[bytes]) -> int:
    stream.truncate(0)
    return stream.seek(0)


def _state_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _read_state(path: Path) -> dict[str, str]:
    try:
        state = json.loads(_state_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(remote: Remote, path: Path, response: Any) -> None:
    """Note what the part is a part of, so that another version is not glued to it."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else ""
    files.write_text(_state_path(path), json.dumps({"url": remote.url, "etag": strong}))


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DownloadError(f"{path}: {show_size(needed)} needed, {show_size(free)} free")


def _lock(stream: IO[bytes], remote: Remote) -> None:
    """Keep a second process from appending to the same part; released when it is closed."""
    try:
        import fcntl
    except ImportError:  # Windows: the checksum still finds out
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise DownloadError(f"{remote.name}: another process is downloading it") from None


# --- checksums ----------------------------------------------------------------------------------


def _digest(kind: str, path: Path) -> str:
    digest = hashlib.new(kind, usedforsecurity=kind != "md5")
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def _verify(remote: Remote, path: Path) -> None:
    """Compare a finished part; a wrong one is of no use to anybody and is removed."""
    found = _digest(remote.checksum.partition(":")[0], path)
    if found != remote.checksum:
        path.unlink()
        raise DownloadError(f"{remote.name}: {found} where {remote.checksum} was expected; deleted")


def _verify_in_place(remote: Remote, path: Path) -> None:
    """Compare a file that is already there, once per version of it; never remove what may be yours."""
    if _seen(remote, path):
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


def _seen(remote: Remote, path: Path) -> bool:
    note = _note_path(path)
    return note.is_file() and note.read_text(encoding="utf-8") == _note(remote, path)


def _remember(remote: Remote, path: Path) -> None:
    try:
        files.write_text(_note_path(path), _note(remote, path))
    except OSError:  # a read-only cache is verified at each use instead
        return
