"""Captions that come with structure: COCO, RedCaps, folders of images, webdataset archives."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from ovseg.data.build.captions import clean
from ovseg.data.build.lines import open_binary
from ovseg.data.dataset.plan import Tally
from ovseg.data.dataset.webdataset import listed_captions, split_name
from ovseg.data.images import SUFFIXES
from ovseg.errors import DataError

CHUNK_ROWS = 1 << 16
# Of several images under one name, the first of these is taken.
_USUAL = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_SUFFIXES = (*_USUAL, *sorted(SUFFIXES - set(_USUAL)))
LONGEST_TEXT = 1 << 20  # bytes read of a caption file or a member that describes a sample


def read_coco(address: str, tally: Tally, by_name: bool) -> Iterator[pl.DataFrame]:
    """COCO captions, one row per caption; images by file name, or else by their COCO address."""
    content = _load_json(address)
    try:
        locator = "file_name" if by_name else "coco_url"
        places = {image["id"]: image[locator] for image in content["images"]}
        # An image's captions stand together, so that a shard has them all.
        order = {image: number for number, image in enumerate(places)}
        annotations = sorted(
            content["annotations"], key=lambda row: order.get(row["image_id"], len(order))
        )
        rows = [(places.get(row["image_id"]), row["caption"]) for row in annotations]
    except (KeyError, TypeError) as error:
        raise DataError(f"{address} is no COCO captions file: {error} is missing") from error
    yield from _chunks(rows, tally)


def read_redcaps(address: str, tally: Tally, by_name: bool) -> Iterator[pl.DataFrame]:
    """RedCaps annotations, one file or a folder; images by `subreddit/id.jpg`, or else by URL."""
    path = Path(address)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{address} holds no .json annotations of RedCaps")
    for file in files:
        try:
            annotations = _load_json(str(file))["annotations"]
            rows = [(_redcaps_image(row, by_name), row["caption"]) for row in annotations]
        except (KeyError, TypeError) as error:
            raise DataError(f"{file} is no RedCaps annotation file: {error} missing") from error
        yield from _chunks(rows, tally)


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
        with tarfile.open(path, "r:") as archive:
            files = (member for member in archive if member.isreg())
            for _, group in groupby(files, key=lambda member: split_name(member.name)[0]):
                members = {f".{split_name(member.name)[1]}": member for member in group}
                image = next((members[s] for s in IMAGE_SUFFIXES if s in members), None)
                if image is None:
                    tally.drop("no image")
                    continue
                for caption in _member_captions(archive, members):
                    yield caption, image.offset_data, image.size
    except (tarfile.TarError, OSError, EOFError):
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
        described = json.loads(_member(archive, members, ".json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def _member(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], suffix: str
) -> bytes | None:
    stream = archive.extractfile(members[suffix]) if suffix in members else None
    return None if stream is None else stream.read(LONGEST_TEXT)


def _caption_file(image: Path) -> bytes | None:
    path = image.with_suffix(".txt")
    try:
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
    try:
        with open_binary(address) as stream:
            return json.load(stream)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{address} is no JSON file: {error}") from error
