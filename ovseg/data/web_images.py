"""Images by their addresses on the web, behind the guard that also stands before data sets."""

from itertools import chain, count
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ovseg.data.guard import FetchOptions, fetch
from ovseg.data.images import Pixels, read_bytes, read_image
from ovseg.errors import UsageError

_BOUNDS = FetchOptions()


class WebImages:
    """Images at http and https addresses, each known by a path made of its host and its name.

    Nothing is fetched before it is read, and nothing is kept.
    """

    def __init__(self) -> None:
        self._addresses: dict[Path, str] = {}

    def path_of(self, url: str) -> Path:
        """The path by which an address is known from now on, `HOST/FOLDER/NAME`; nothing is there.

        Raises:
            UsageError: it is no address of http or https.
        """
        first = _named(url)
        others = (first.with_name(f"{first.stem}-{n}{first.suffix}") for n in count(2))
        paths = chain([first], others)
        path = next(p for p in paths if self._addresses.get(p, url) == url and not p.exists())
        self._addresses[path] = url
        return path

    def read(self, path: Path) -> Pixels:
        """The pixels of an image, RGB, uint8 [H, W, 3]: from the web, or from the file.

        Raises:
            DownloadError: it cannot be fetched.
            DataError: as `read_image`.
        """
        url = self._addresses.get(path)
        return read_image(path) if url is None else read_bytes(fetch(url, _BOUNDS), url)


def _named(url: str) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url}: no address ({error})") from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url}: only http and https addresses can be fetched")
    names = [name for name in PurePosixPath(unquote(parts.path)).parts if name not in ("/", "..")]
    safe = [
        "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in n) for n in names
    ]
    return Path(parts.hostname.replace(":", "_"), *(safe or ["image"]))
