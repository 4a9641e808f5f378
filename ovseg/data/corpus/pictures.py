"""Building the shards whose images are at hand: files of a folder, or members of tars."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ovseg.data.corpus.encoding import BadImageError, ImageOptions, PreparedImage, prepare_image
from ovseg.data.corpus.places import Place
from ovseg.data.corpus.plan import read_shard_plan
from ovseg.data.corpus.shards import PlanRow, ShardStats, plan_rows, write_shard


@dataclass(frozen=True)
class ShardJob:
    """All that another process or machine needs to build one shard.

    `images` is the folder the plan's locators are relative to (None: they are to be fetched);
    `names` are the entities' names.
    """

    place: Place
    number: int
    images: Path | None
    options: ImageOptions
    names: tuple[str, ...]


def build_shard(job: ShardJob) -> ShardStats:
    """Read, check and encode the images of one shard and write it."""
    rows = plan_rows(read_shard_plan(job.place, job.number))
    return write_shard(job.place, job.number, rows, _prepared(job, rows), job.names)


def _prepared(job: ShardJob, rows: list[PlanRow]) -> Iterator[PreparedImage | str]:
    if job.images is None:
        raise ValueError("images that are to be fetched are no files")
    root = job.images.resolve()
    for row in rows:
        try:
            yield prepare_image(_read(root, row, job.options.max_bytes), job.options)
        except BadImageError as error:
            yield str(error)


def _read(root: Path, row: PlanRow, max_bytes: int) -> bytes:
    """The bytes a row's image consists of; raises `BadImageError`."""
    path = _inside(root, row.locator)
    size = path.stat().st_size if row.member_size is None else row.member_size
    if size > max_bytes:
        raise BadImageError("file too large")
    try:
        with path.open("rb") as stream:
            stream.seek(row.member_offset or 0)
            return stream.read(size)
    except OSError as error:
        raise BadImageError("unreadable file") from error


def _inside(root: Path, locator: str) -> Path:
    """The file a locator names below `root`: a relative path, or the last part of a URL's."""
    if "://" in locator:
        locator = PurePosixPath(unquote(urlsplit(locator).path)).name
    try:
        path = (root / locator).resolve()
        if not path.is_relative_to(root):
            raise BadImageError("outside the image folder")
        if not path.is_file():
            raise BadImageError("no such file")
    except (OSError, ValueError, RuntimeError) as error:
        raise BadImageError("no such file") from error
    return path
