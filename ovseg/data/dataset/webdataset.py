"""Any webdataset, read as a stream: tar files with an image and its caption under one name.

Nothing in the archives is executed or unpickled: members are bytes, and only images, `.txt` and
`.json` are looked at.
"""

import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO

from ovseg.data.archives import DamagedTarError, members, open_tar
from ovseg.data.dataset.pairs import Mention, Pair, RawPair
from ovseg.data.images import SUFFIXES
from ovseg.documents import Bounds, parse_object
from ovseg.errors import DataError, MissingDependencyError, UsageError

_log = logging.getLogger(__name__)

# Of several images under one name, the first of these is taken.
_USUAL = ("jpg", "jpeg", "png", "webp")
_IMAGES = (*_USUAL, *sorted({suffix[1:] for suffix in SUFFIXES} - set(_USUAL)))
_MAX_IMAGE, _MAX_TEXT = 50_000_000, 1_000_000  # bytes; more is no photo and no caption
_MAX_MEMBER = 1 << 40  # bytes of what is passed over
_DESCRIBED = Bounds(size=_MAX_TEXT, halves=True)
_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")
_MOST_SHARDS = 1_000_000


def expand(patterns: Sequence[str]) -> list[str]:
    """Addresses with `{000..431}` written out.

    Raises:
        UsageError: they are more than a million.
    """
    found = list(patterns)
    while any(_RANGE.search(pattern) for pattern in found):
        if sum(map(_count_first, found)) > _MOST_SHARDS:
            raise UsageError(f"{found[0]} and the like stand for over {_MOST_SHARDS:,} files")
        found = [address for pattern in found for address in _expand_first(pattern)]
    return found


def _count_first(pattern: str) -> int:
    match = _RANGE.search(pattern)
    return 1 if match is None else max(int(match[2]) - int(match[1]) + 1, 0)


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
        with _open(address) as stream, open_tar(stream, forwards=True) as archive:
            for group in _groups(archive):
                pairs = group.pairs()
                incomplete += not pairs
                yield from pairs
    except DamagedTarError as error:
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
            RawPair(Pair(_sound(str(entry.get("key", self.key))), caption, _mentions(entry)), image)
            for entry in entries
            if isinstance(given := entry.get("caption"), str) and (caption := _sound(given)).strip()
        ]


def _sound(text: str) -> str:
    """Text without half characters, which JSON and the names of members can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


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
    for member in members(archive, _MAX_MEMBER):
        key, kind = split_name(member.name)
        if not member.isreg() or not (kind in _IMAGES or kind in ("txt", "json")):
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
        stream = archive.extractfile(member)
        most = _MAX_IMAGE if kind in _IMAGES else _MAX_TEXT
        most -= sum(map(len, group.members.values()))  # many kinds of image are no sample
        if stream is not None and member.size <= most:
            group.members[kind] = _content(stream)
    if group is not None:
        yield group


def _content(stream: IO[bytes]) -> bytes:
    try:
        return stream.read()
    except (tarfile.TarError, OSError, ValueError) as error:  # the archive ends within it
        raise DamagedTarError(str(error)) from error


def _parsed(text: bytes | None) -> dict[str, Any]:
    try:
        return parse_object(text, "a member", _DESCRIBED) if text else {}
    except DataError:
        return {}


def _mentions(described: dict[str, Any]) -> tuple[Mention, ...]:
    """Those that `ovseg build-dataset` writes down; none in other people's files."""
    try:
        entries = described.get("entities", [])
        return tuple(
            Mention(_sound(str(e["name"])), int(e["start"]), int(e["end"])) for e in entries
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()


def _open(address: str) -> BinaryIO:
    """A tar file's bytes, unpacked if it is packed, whatever its name says."""
    try:
        from ovseg.data.streams import open_binary, packed_as
    except ImportError as error:
        raise MissingDependencyError("fsspec", "train", "reading shards") from error
    stream = open_binary(address, None)
    packed = packed_as(stream.read(8))
    if packed is None:
        stream.seek(0)
        return stream
    stream.close()
    return open_binary(address, packed)
