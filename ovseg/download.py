"""Files from elsewhere: what is downloaded is announced, resumed, and never trusted.

Files of the Hugging Face hub are fetched by the hub's own client, which resumes broken transfers,
shows their progress and keeps the cache (`HF_HOME`); here it is told which of several names to
take, what came is compared with the checksum that was promised, and failures become one line.

Any other file is one request of the standard library, resumed where it broke off. Its opener knows
HTTP and HTTPS alone, so no address and no redirect can reach `file:`, `ftp:` or `data:`.
"""

import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ovseg import documents, files
from ovseg.errors import DataError, DownloadError, MissingDependencyError
from ovseg.version import __version__

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and the bytes there will be, if known."""

SIZE_LIMIT = 20 << 30  # bytes accepted from a source, whatever it announces
_CHUNK = 1 << 18
_SHA256_DIGITS = 64
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


_log = logging.getLogger(__name__)


class UnavailableError(DownloadError):
    """The source gives nothing now; a file put in place by other means would do."""


class _BrokenTransferError(Exception):
    """A transfer that may succeed when repeated."""


def hub_file(repository: str, names: Sequence[str], by_hand: str) -> Path:
    """The first of `names` that a repository of the hub has, downloaded if none is here yet.

    Args:
        repository: `owner/name`.
        names: file names in order of preference.
        by_hand: what to do with a file fetched by other means; ends the offline message.

    Raises:
        DownloadError: the hub cannot be reached, has none of the files, or sent another one than
            it promised.
    """
    if (here := cached_file(repository, names)) is not None:
        return here
    if os.environ.get("OVSEG_OFFLINE") == "1":
        raise DownloadError(_offline(repository, names, by_hand, "OVSEG_OFFLINE is set"))
    return _download_from_hub(repository, names, by_hand)


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that was downloaded before, or None."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the extra `torch` there is no use for these files
        return None
    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _download_from_hub(repository: str, names: Sequence[str], by_hand: str) -> Path:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "torch", "this model") from error

    for name in names:
        try:
            promised = get_hf_file_metadata(hf_hub_url(repository, name))
            size = show_size(promised.size)
            _log.warning("downloading %s of %s from the hub (%s)", name, repository, size)
            path = Path(hf_hub_download(repository, name))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the client's network errors share no base across versions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DownloadError(_offline(repository, names, by_hand, reason)) from error
        _verify(path, promised.etag)
        return path
    raise DownloadError(f"{repository} has none of {', '.join(names)} on the hub")


def fetch(
    url: str,
    path: Path,
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    timeout: float = 30.0,
    first_wait: float = 1.0,
) -> Path:
    """Return `path`, downloading what is missing of it.

    A broken transfer leaves `NAME.part`, which the next call goes on with. A file that is already
    in place, put there by hand or by us, is taken as it is; a download is whole when it has the
    length that the source announced.

    Args:
        url: http or https.
        attempts: transfers in a row that may fail without a single new byte.
        timeout: seconds without a byte after which a transfer counts as broken.
        first_wait: seconds before the second attempt; doubled after each.

    Raises:
        DownloadError: if the source cannot be reached (saying what to put where by hand), breaks
            its promises, or `OVSEG_OFFLINE=1` forbids the attempt.
        ValueError: `url` is no address in the web.
    """
    require_web_address(url)
    if path.is_file():
        return path
    by_hand = f"Fetch {url} by other means and put it at {path}"
    if os.environ.get("OVSEG_OFFLINE") == "1":
        raise DownloadError(f"{path.name}: OVSEG_OFFLINE is set. {by_hand}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part_path = path.with_name(f"{path.name}.part")
        with part_path.open("ab") as stream:
            part = _Part(part_path, stream)
            part.lock()
            _transfer(url, part, progress, attempts, timeout, first_wait)
            part.path.replace(path)
            part.forget_note()
    except UnavailableError as error:
        raise DownloadError(f"{path.name}: {error}. {by_hand}") from error
    except DownloadError as error:
        raise DownloadError(f"{path.name}: {error}") from error
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


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


def _verify(path: Path, etag: str | None) -> None:
    """The hub's entity tag of a large file is its SHA-256; small files have a git hash."""
    if etag is None or len(etag) != _SHA256_DIGITS:
        return
    found = files.file_digest(path)
    if found != etag:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name}: sha256 {found} came where {etag} was promised; deleted, try again"
        )


def _offline(repository: str, names: Sequence[str], by_hand: str, reason: str) -> str:
    return (
        f"cannot download {names[0]} of {repository} from the hub ({reason}): "
        f"fetch https://huggingface.co/{repository}/resolve/main/{names[0]} elsewhere, {by_hand}"
    )


class _Part:
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

    def keep_if_from(self, url: str) -> None:
        """Forget a beginning that came from elsewhere."""
        if self._read().get("url") != url:
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
        if not files.try_lock(self.stream.fileno()):
            raise DownloadError(f"{self.path}: another process is downloading it")
        here = self.path.stat() if self.path.exists() else None
        if here is None or here.st_ino != os.fstat(self.stream.fileno()).st_ino:
            raise DownloadError("another process has just finished it: run again")

    def _read(self) -> dict[str, str]:
        try:
            state = documents.read_object(self._note)
        except DataError:
            return {}
        return {key: value for key, value in state.items() if isinstance(value, str)}


def _transfer(
    url: str,
    part: _Part,
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
    part.keep_if_from(url)
    while True:
        before = part.size
        try:
            _transfer_once(url, part, progress, timeout)
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


def _transfer_once(url: str, part: _Part, progress: Progress | None, timeout: float) -> None:
    """One request for the bytes that are missing."""
    with _open(url, part, timeout) as response:
        if part.size and not _continues(response, part.size):
            part.restart()
        total = _announced(response, part.size)
        _require_space(part.path, (total or 0) - part.size)
        part.note(url, response.headers.get("ETag", ""))
        _copy(response, part, total, progress)


def _open(url: str, part: _Part, timeout: float) -> Any:
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
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/(?:[0-9]+|\*)", told)
    if not match or int(match[1]) != start:
        raise DownloadError("the source sends another range than asked for")
    return True


def _announced(response: Any, start: int) -> int | None:
    """Bytes the whole file will have, by the response."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the source sends a compressed body unasked")
    length = response.headers.get("Content-Length", "")
    size = documents.digits(length)
    total = None if size is None else start + size
    if total is not None and total > SIZE_LIMIT:
        raise DownloadError(f"the source announces {total} bytes, more than we accept unseen")
    return total


def _copy(response: Any, part: _Part, total: int | None, progress: Progress | None) -> None:
    """Append the body, never beyond what was announced."""
    limit = SIZE_LIMIT if total is None else total
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
