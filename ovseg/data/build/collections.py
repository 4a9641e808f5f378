"""Captions that come with structure: COCO, RedCaps, folders of images, webdataset archives."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from ovseg.data.archives import DamagedTarError, members, open_tar
from ovseg.data.build.captions import clean
from ovseg.data.dataset.plan import Tally
from ovseg.data.dataset.webdataset import listed_captions, split_name
from ovseg.data.images import SUFFIXES
from ovseg.data.streams import MOST_HELD, read_whole
from ovseg.documents import Bounds, parse_json, parse_object
from ovseg.errors import DataError

CHUNK_ROWS = 1 << 16
_MALFORMED = "an entry without an image or a caption"
# Of several images under one name, the first of these is taken.
_USUAL = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_SUFFIXES = (*_USUAL, *sorted(SUFFIXES - set(_USUAL)))
LONGEST_TEXT = 1 << 20  # bytes read of a caption file or a member that describes a sample
_ROWS = Bounds(size=MOST_HELD, halves=True)  # half a character spoils its row alone


def read_coco(address: str, tally: Tally, by_name: bool) -> Iterator[pl.DataFrame]:
    """COCO captions, one row per caption; images by file name, or else by their COCO address."""
    content = _load_json(address)
    locator = "file_name" if by_name else "coco_url"
    places: dict[Any, Any] = {}
    for image in _listed(content, "images", address):
        try:
            places[image["id"]] = image[locator]
        except (KeyError, TypeError):
            continue  # its captions are counted as those of no image
    if not places:
        raise DataError(f"{address} is no COCO captions file: no image has an id and {locator!r}")
    # An image's captions stand together, so that a shard has them all.
    order = {image: number for number, image in enumerate(places)}
    rows = []
    for row in _listed(content, "annotations", address):
        try:
            place = order.get(row["image_id"], len(order))
            rows.append((place, places.get(row["image_id"]), row["caption"]))
        except (KeyError, TypeError):
            tally.drop(_MALFORMED)
    rows.sort(key=lambda row: row[0])
    yield from _chunks([row[1:] for row in rows], tally)


def read_redcaps(address: str, tally: Tally, by_name: bool) -> Iterator[pl.DataFrame]:
    """RedCaps annotations, one file or a folder; images by `subreddit/id.jpg`, or else by URL.

    A file of a folder that cannot be read is counted.
    """
    path = Path(address)
    if not path.is_dir():
        yield from _redcaps_file(address, tally, by_name)
        return
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{address} holds no .json annotations of RedCaps")
    for file in files:
        try:
            yield from _redcaps_file(str(file), tally, by_name)
        except DataError:
            tally.drop("damaged annotation file")


def _redcaps_file(address: str, tally: Tally, by_name: bool) -> Iterator[pl.DataFrame]:
    rows = []
    for row in _listed(_load_json(address), "annotations", address):
        try:
            rows.append((_redcaps_image(row, by_name), row["caption"]))
        except (KeyError, TypeError):
            tally.drop(_MALFORMED)
    yield from _chunks(rows, tally)


def _listed(content: Any, key: str, address: str) -> list[Any]:
    """The list of objects under a key of a document."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{address} is no file of captions: it has no list of {key}")
    return found


def _redcaps_image(row: dict[str, Any], by_name: bool) -> str:
    return f"{row['subreddit']}/{row['image_id']}.jpg" if by_name else row["url"]


def read_folder(folder: Path, tally: Tally) -> Iterator[pl.DataFrame]:
    """Images below a folder with captions in `.txt` files of the same name, sorted by path.

    Whatever else is there is counted.
    """
    rows = []
    paths = sorted(folder.rglob("*"))
    described = {path.with_suffix(".txt") for path in paths if _is_image(path)}
    for path in paths:
        if _is_image(path):
            rows.append((_utf8(path.relative_to(folder).as_posix()), _caption_file(path)))
            if len(rows) == CHUNK_ROWS:
                yield from _chunks(rows, tally)
                rows = []
        elif path not in described and (reason := _why_left(path)):
            tally.drop(reason)
    yield from _chunks(rows, tally)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _why_left(path: Path) -> str:
    """Why a file of a folder is no row; empty for a folder, whose files come by themselves."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return "a link to a folder, not followed" if path.is_symlink() else ""
    if not path.is_file():
        return "unreadable file"
    if suffix == ".txt":
        return "a caption without its image"
    return f"not an image file ({suffix})" if 1 < len(suffix) <= 8 else "not an image file"


def read_archives(folder: Path, tally: Tally) -> Iterator[pl.DataFrame]:
    """The samples of webdataset tars below a folder, as img2dataset and we write them.

    Nothing is unpacked: a row names the tar and the byte range of its image. The captions are
    `captions` of the `.json` member, as we write them, or else the `.txt` member, or `caption`.
    """
    archives = sorted(folder.rglob("*.tar"))
    if not archives:
        raise DataError(f"{folder} holds no .tar files")
    tally.drop(
        "an image beside .tar files, in none of them", sum(map(_is_image, folder.rglob("*")))
    )
    for path in archives:
        name = _utf8(path.relative_to(folder).as_posix())
        rows = [(name, *sample) for sample in _samples(path, tally)]
        schema = ["locator", "caption", "member_offset", "member_size"]
        types = dict(zip(schema, (pl.Binary, pl.Binary, pl.Int64, pl.Int64), strict=True))
        yield clean(pl.DataFrame(rows, schema=types, orient="row"), tally)


def _samples(path: Path, tally: Tally) -> Iterator[tuple[bytes | None, int, int]]:
    """Caption, image offset and image size of each sample of a tar; damage is counted."""
    try:
        with path.open("rb") as stream, open_tar(stream, forwards=False) as archive:
            size = path.stat().st_size
            files = (member for member in members(archive, size) if member.isreg())
            for _, group in groupby(files, key=lambda member: split_name(member.name)[0]):
                found = {f".{split_name(member.name)[1]}": member for member in group}
                image = next((found[s] for s in IMAGE_SUFFIXES if s in found), None)
                if image is None:
                    tally.drop("no image")
                    continue
                for caption in _member_captions(archive, found):
                    yield caption, image.offset_data, image.size
    except (DamagedTarError, OSError):
        tally.drop("damaged archive")


def _member_captions(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]
) -> list[bytes | None]:
    """All captions of a sample; one that is None where it has none."""
    described = _member_json(archive, members)
    text = _member(archive, members, ".txt")
    entries = listed_captions(described)
    if text is not None and not entries:
        return [text]
    captions = [entry.get("caption") for entry in entries or [described]]
    return [
        caption.encode("utf-8", "surrogatepass") if isinstance(caption, str) else None
        for caption in captions
    ]


def _member_json(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
    try:
        return parse_object(_member(archive, members, ".json") or b"{}", "a member", _ROWS)
    except DataError:
        return {}


def _member(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], suffix: str
) -> bytes | None:
    stream = archive.extractfile(members[suffix]) if suffix in members else None
    return None if stream is None else stream.read(LONGEST_TEXT)


def _caption_file(image: Path) -> bytes | None:
    path = image.with_suffix(".txt")
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return stream.read(LONGEST_TEXT)
    except OSError:
        return None


def _utf8(name: str) -> bytes:
    """A file name as bytes; where it is not UTF-8, neither are they, and the row is counted."""
    return name.encode("utf-8", "surrogateescape")


def _chunks(rows: list[tuple[Any, Any]], tally: Tally) -> Iterator[pl.DataFrame]:
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        columns = [[_to_bytes(value) for value in column] for column in zip(*part, strict=True)]
        frame = pl.DataFrame(
            {"locator": columns[0], "caption": columns[1]},
            schema={"locator": pl.Binary, "caption": pl.Binary},
        )
        yield clean(frame, tally)


def _to_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else None


def _load_json(address: str) -> Any:
    return parse_json(read_whole(address), address, _ROWS)
