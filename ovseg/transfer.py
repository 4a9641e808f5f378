"""One file over HTTP or HTTPS: bounded, resumed where it broke off, never trusted.

The standard library does the transport. A client library would bring nothing that is missing here:
redirects are ours to check anyway, and resuming is built on none of them. The opener knows HTTP
and HTTPS alone, so no address and no redirect can reach `file:`, `ftp:` or `data:`.
"""

import errno
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ovseg import files
from ovseg.errors import DownloadError
from ovseg.version import __version__

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and the bytes there will be, if known."""

UNKNOWN_SIZE_LIMIT = 20 << 30  # bytes accepted where a source's size is not known beforehand
_CHUNK = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class UnavailableError(DownloadError):
    """The source gives nothing now; a file put in place by other means would do."""


class _BrokenTransferError(Exception):
    """A transfer that may succeed when repeated."""


class Part:
    """The beginning of a file at `path`, and a note of what it is the beginning of."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self.stream = path, stream
        self._note = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.stream.seek(0, os.SEEK_END)

    def restart(self) -> None:
        """Forget what is here."""
        self.stream.truncate(0)

    def keep_if_from(self, url: str, size: int | None) -> None:
        """Forget a beginning that came from elsewhere, or is longer than the whole."""
        if self._read().get("url") != url or (size is not None and self.size > size):
            self.restart()

    @property
    def etag(self) -> str:
        """The source's name for the version that this is the beginning of, or an empty string."""
        return self._read().get("etag", "")

    def note(self, url: str, etag: str) -> None:
        """Write down the source, and its version if the name is a strong one."""
        strong = etag if etag.startswith('"') else ""
        files.write_text(self._note, json.dumps({"url": url, "etag": strong}))

    def forget_note(self) -> None:
        self._note.unlink(missing_ok=True)

    def lock(self) -> None:
        """Keep a second process from appending to the same part, until the stream is closed."""
        try:
            import fcntl
        except ImportError:  # Windows: a mixture is found by its checksum
            return
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DownloadError(f"{self.path}: another process is downloading it") from None
        here = self.path.stat() if self.path.exists() else None
        if here is None or here.st_ino != os.fstat(self.stream.fileno()).st_ino:
            raise DownloadError("another process has just finished it: run again")

    def _read(self) -> dict[str, str]:
        try:
            state = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def transfer(
    url: str,
    part: Part,
    size: int | None,
    *,
    progress: Progress | None,
    attempts: int,
    timeout: float,
    first_wait: float,
) -> None:
    """Complete `part`, going on wherever a transfer breaks off.

    Raises:
        UnavailableError: after `attempts` failures in a row without a single new byte, or at once
            where the source's answer is final.
        DownloadError: where the source breaks its promises.
    """
    failures = 0
    part.keep_if_from(url, size)
    while True:
        before = part.size
        try:
            _transfer_once(url, part, size, progress, timeout)
            part.stream.flush()
            os.fsync(part.stream.fileno())
            return
        except _BrokenTransferError as error:
            failures = 0 if part.size > before else failures + 1
            if failures >= attempts:
                raise UnavailableError(str(error)) from error
            time.sleep(first_wait * 2 ** max(failures - 1, 0))


def require_web_address(url: str) -> None:
    """Raise ValueError unless `url` is http or https."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http or https address")


def _transfer_once(
    url: str, part: Part, size: int | None, progress: Progress | None, timeout: float
) -> None:
    """One request for the bytes that are missing."""
    if part.size and part.size == size:
        return
    with _open(url, part, timeout) as response:
        if part.size and not _continues(response, part.size):
            part.restart()
        total = _announced(response, part.size, size)
        _require_space(part.path, (total or 0) - part.size)
        part.note(url, response.headers.get("ETag", ""))
        _copy(response, part, total, progress)


def _open(url: str, part: Part, timeout: float) -> Any:
    """The response to a request for the bytes that `part` lacks."""
    headers = {"User-Agent": f"ovseg/{__version__}", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.etag:
            headers["If-Range"] = part.etag
    try:
        return _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what is here is no beginning of what the source has now
            part.restart()
        if error.code in _TRANSIENT | {416}:
            raise _BrokenTransferError(f"the source answers {error.code}") from None
        raise UnavailableError(f"the source answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        host = urlsplit(url).netloc
        raise _BrokenTransferError(f"cannot reach {host}: {reason}") from None


def _continues(response: Any, start: int) -> bool:
    """Whether the body is the rest of the file, not all of it."""
    if response.status != 206:
        return False
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != start:
        raise DownloadError("the source sends another range than asked for")
    return True


def _announced(response: Any, start: int, size: int | None) -> int | None:
    """Bytes the whole file will have, by the response and by what we know of it."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the source sends a compressed body unasked")
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    if size is not None and total not in (None, size):
        raise DownloadError(f"the source announces {total} bytes, not {size}: another file")
    if total is not None and total > UNKNOWN_SIZE_LIMIT and size is None:
        raise DownloadError(f"the source announces {total} bytes, more than we accept unseen")
    return total if size is None else size


def _copy(response: Any, part: Part, total: int | None, progress: Progress | None) -> None:
    """Append the body, never beyond what was announced."""
    limit = UNKNOWN_SIZE_LIMIT if total is None else total
    here = part.size
    while chunk := _read(response):
        if here + len(chunk) > limit:
            part.restart()
            raise DownloadError(f"the source sends more than {limit} bytes")
        part.stream.write(chunk)
        here += len(chunk)
        if progress:
            progress(here, total)
    if total is not None and here < total:
        raise _BrokenTransferError(f"the transfer broke off at {here} of {total} bytes")


def _read(response: Any) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenTransferError(f"the transfer broke off: {error}") from None


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DownloadError(f"{needed} bytes needed in {path.parent}, {free} free")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url}: redirected from https to http")
        known = 307 if code == 308 else code  # 308 is new in Python 3.11 and means the same for GET
        return super().redirect_request(req, fp, known, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """As the base class does, but without FTP, and with a sentence of ours."""
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
