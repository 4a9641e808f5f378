"""The pieces of work that any process or machine can do: match a part, build a shard.

A shard is built here where its images are at hand: files of a folder, or members of tars.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl
import pyarrow as pa

from ovseg.data.build.encoding import BadImageError, prepare_image
from ovseg.data.build.lines import TablePart
from ovseg.data.build.matching import Matcher, Matches
from ovseg.data.build.sources import CaptionSource
from ovseg.data.build.tagging import Tagger
from ovseg.data.dataset.entities import EntityList
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.plan import SCHEMA, Tally, read_shard_plan
from ovseg.data.dataset.shards import (
    PlanRow,
    PreparedImage,
    ShardStats,
    plan_rows,
    rows_by_image,
    write_shard,
)
from ovseg.data.store import Store


def match_chunk(
    chunk: pl.DataFrame,
    matcher: Matcher,
    tagger: Tagger | None = None,
    all_captions: bool = False,
) -> pa.Table:
    """The rows of a chunk that name an entity, with their matches, as `SCHEMA` has them.

    With a tagger, matches of ambiguous forms count only where they are nouns. `all_captions` keeps
    the rows that name none, too.
    """
    matches = matcher.match(chunk["caption"])
    if tagger is not None:
        asked = matcher.ambiguous[matches.form]
        matches = matches.select(tagger.confirm(chunk["caption"], matches, asked))
    rows = np.arange(chunk.height) if all_captions else np.unique(matches.row)
    return _with_matches(chunk, matches, rows)


@dataclass(frozen=True)
class MatchJob:
    """All that another process or machine needs to match one part of a source.

    With `pos`, ambiguous forms are asked of the spaCy pipeline of that name. Kept are the captions
    that name an entity, or `all_captions`.
    """

    source: CaptionSource
    part: TablePart
    entities: EntityList
    pos: bool = False
    pipeline: str = ""
    all_captions: bool = False


def match_part(job: MatchJob) -> tuple[pa.Table, Tally]:
    """The rows of a part that name an entity, and what was read of it."""
    tally = Tally()
    matcher = Matcher(job.entities)
    tagger = _tagger(job.pipeline) if job.pos else None
    chunks = job.source.chunks(tally, job.part)
    tables = [match_chunk(chunk, matcher, tagger, job.all_captions) for chunk in chunks]
    return (pa.concat_tables(tables) if tables else SCHEMA.empty_table()), tally


@lru_cache(maxsize=1)
def _tagger(pipeline: str) -> Tagger:
    """Loading takes a second; a worker process matches many parts."""
    return Tagger(pipeline)


def _with_matches(chunk: pl.DataFrame, matches: Matches, rows: np.ndarray) -> pa.Table:
    first = np.searchsorted(matches.row, rows)
    offsets = pa.array(np.append(first, len(matches)).astype(np.int32))
    table = chunk[rows].to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [table.column(name).cast(SCHEMA.field(name).type) for name in SCHEMA.names[:4]]
    for values in (matches.entity, matches.start, matches.end):
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(values)))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


@dataclass(frozen=True)
class ShardJob:
    """All that another process or machine needs to build one shard.

    `images` is the folder the plan's locators are relative to (None: they are to be fetched);
    `names` are the entities' names.
    """

    store: Store
    number: int
    images: Path | None
    options: ImageOptions
    names: tuple[str, ...]


def build_shard(job: ShardJob) -> ShardStats:
    """Read, check and encode the images of one shard and write it."""
    rows = plan_rows(read_shard_plan(job.store, job.number))
    return write_shard(job.store, job.number, rows, _prepared(job, rows), job.names)


def _prepared(job: ShardJob, rows: list[PlanRow]) -> Iterator[PreparedImage | str]:
    if job.images is None:
        raise ValueError("images that are to be fetched are no files")
    root = job.images.resolve()
    for places in rows_by_image(rows):
        try:
            row = rows[places[0]]
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
