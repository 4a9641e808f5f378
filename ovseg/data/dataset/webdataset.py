"""Any webdataset, read as a stream: tar files with an image and its caption under one name.

Nothing in the archives is executed or unpickled: members are bytes, and only images, `.txt` and
`.json` are looked at.
"""

import json
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovseg.data.dataset.pairs import Mention, Pair, RawPair
from ovseg.data.images import SUFFIXES
from ovseg.errors import DataError, MissingDependencyError

_log = logging.getLogger(__name__)

# Of several images under one name, the first of these is taken.
_USUAL = ("jpg", "jpeg", "png", "webp")
_IMAGES = (*_USUAL, *sorted({suffix[1:] for suffix in SUFFIXES} - set(_USUAL)))
_MAX_IMAGE, _MAX_TEXT = 50_000_000, 1_000_000  # bytes; more is no photo and no caption
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(patterns: Sequence[str]) -> list[str]:
    """Addresses with `{000..431}` written out."""
    found = list(patterns)
    while any(_RANGE.search(pattern) for pattern in found):
        found = [address for pattern in found for address in _expand_first(pattern)]
    return found


def _expand_first(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [f"{before}{number:0{len(first)}d}{after}" for number in numbers]


def read_shard(address: str) -> Iterator[RawPair]:
    """The pairs of one tar file, in its order; members without a partner are counted and logged.

    Raises:
        DataError: the file is not there, or no tar file.
    """
    incomplete = 0
    try:
        with _open(address) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for group in _groups(archive):
                pairs = group.pairs()
                incomplete += not pairs
                yield from pairs
    except FileNotFoundError as error:
        raise DataError(f"{address} does not exist") from error
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{address} cannot be read as a tar file ({error})") from error
    if incomplete:
        _log.warning("%s: %d samples without an image or a caption", address, incomplete)


@dataclass
class _Group:
    """The members under one name."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)

    def pairs(self) -> list[RawPair]:
        """One for each caption of the image; none where either is missing."""
        image = next((self.members[kind] for kind in _IMAGES if kind in self.members), None)
        if image is None:
            return []
        described = _parsed(self.members.get("json"))
        entries = listed_captions(described)
        if not entries:
            text = self.members.get("txt")
            # Places in the text of the .json are those of its own caption.
            entry = described if text is None else _with_text(described, text)
            entries = [entry | {"key": self.key}]
        return [
            RawPair(Pair(str(entry.get("key", self.key)), caption, _mentions(entry)), image)
            for entry in entries
            if isinstance(caption := entry.get("caption"), str) and caption.strip()
        ]


def listed_captions(described: dict[str, Any]) -> list[dict[str, Any]]:
    """What a `.json` member says of each of an image's captions; nothing if it lists none."""
    entries = described.get("captions")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "caption" in entry]


def _with_text(described: dict[str, Any], text: bytes) -> dict[str, Any]:
    caption = text.decode("utf-8", "replace")
    same = described.get("caption", caption) == caption
    return {"caption": caption, "entities": described.get("entities", []) if same else []}


def split_name(name: str) -> tuple[str, str]:
    """A member's key and kind, `a/b` and `jpg` of `a/b.jpg`: cut at the last part's first dot."""
    folder, _, last = name.rpartition("/")
    stem, _, kind = last.partition(".")
    return f"{folder}/{stem}".lstrip("/"), kind.lower()


def _groups(archive: tarfile.TarFile) -> Iterator[_Group]:
    group: _Group | None = None
    for member in archive:
        key, kind = split_name(member.name)
        if not member.isreg() or not (kind in _IMAGES or kind in ("txt", "json")):
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
        stream = archive.extractfile(member)
        if stream is not None and member.size <= (_MAX_IMAGE if kind in _IMAGES else _MAX_TEXT):
            group.members[kind] = stream.read()
    if group is not None:
        yield group


def _parsed(text: bytes | None) -> dict[str, Any]:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _mentions(described: dict[str, Any]) -> tuple[Mention, ...]:
    """Those that `ovseg build-dataset` writes down; none in other people's files."""
    try:
        entries = described.get("entities", [])
        return tuple(Mention(str(e["name"]), int(e["start"]), int(e["end"])) for e in entries)
    except (KeyError, TypeError, ValueError):
        return ()


def _open(address: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError("fsspec", "train", "reading shards") from error
    return fsspec.open(address, "rb").open()
