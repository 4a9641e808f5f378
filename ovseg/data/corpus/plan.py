"""The plan of a data set: the captions that name an entity, cut into shards.

`plan.parquet` has one row group per shard, so that any machine can build any shard from it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.data.corpus.captions import Tally
from ovseg.data.corpus.entities import EntityList
from ovseg.data.corpus.lines import Part
from ovseg.data.corpus.matching import Matcher, Matches
from ovseg.data.corpus.places import Place
from ovseg.data.corpus.sources import Source
from ovseg.data.corpus.tagging import Tagger
from ovseg.errors import DataError

PLAN = "plan.parquet"
SCHEMA = pa.schema(
    [
        ("locator", pa.string()),
        ("caption", pa.string()),
        ("member_offset", pa.int64()),
        ("member_size", pa.int64()),
        # One element per match: the entity's number, and its place in the caption in code points.
        ("entities", pa.list_(pa.uint16())),
        ("starts", pa.list_(pa.uint32())),
        ("ends", pa.list_(pa.uint32())),
    ]
)


@dataclass
class PlanSummary:
    """What went into a plan; `captions` counts, per entity number, the captions that name it."""

    tally: Tally = field(default_factory=Tally)
    rows: int = 0
    captions: Counter[int] = field(default_factory=Counter)

    def count(self, table: pa.Table) -> None:
        """Take in the rows of a table with the columns of `SCHEMA`."""
        self.rows += table.num_rows
        named = pl.DataFrame(pl.from_arrow(table.select(["entities"])))["entities"]
        each = named.list.unique().explode().drop_nulls()
        self.captions.update(dict(each.value_counts().iter_rows()))


def match_chunk(chunk: pl.DataFrame, matcher: Matcher, tagger: Tagger | None = None) -> pa.Table:
    """The rows of a chunk that name an entity, with their matches, as `SCHEMA` has them.

    With a tagger, matches of ambiguous forms count only where they are nouns.
    """
    matches = matcher.match(chunk["caption"])
    if tagger is not None:
        asked = matcher.ambiguous[matches.form]
        matches = matches.select(tagger.confirm(chunk["caption"], matches, asked))
    return _with_matches(chunk, matches)


@dataclass(frozen=True)
class MatchJob:
    """All that another process or machine needs to match one part of a source.

    With `pos`, ambiguous forms are asked of the spaCy pipeline of that name.
    """

    source: Source
    part: Part
    entities: EntityList
    pos: bool = False
    pipeline: str = ""


def match_part(job: MatchJob) -> tuple[pa.Table, Tally]:
    """The rows of a part that name an entity, and what was read of it."""
    tally = Tally()
    matcher = Matcher(job.entities)
    tagger = _tagger(job.pipeline) if job.pos else None
    chunks = job.source.chunks(tally, job.part)
    tables = [match_chunk(chunk, matcher, tagger) for chunk in chunks]
    return (pa.concat_tables(tables) if tables else SCHEMA.empty_table()), tally


@lru_cache(maxsize=1)
def _tagger(pipeline: str) -> Tagger:
    """Loading takes a second; a worker process matches many parts."""
    return Tagger(pipeline)


def _with_matches(chunk: pl.DataFrame, matches: Matches) -> pa.Table:
    rows, first = np.unique(matches.row, return_index=True)
    offsets = pa.array(np.append(first, len(matches)).astype(np.int32))
    table = chunk[rows].to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [table.column(name).cast(SCHEMA.field(name).type) for name in SCHEMA.names[:4]]
    for values in (matches.entity, matches.start, matches.end):
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(values)))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def write_plan(
    tables: Iterable[pa.Table], place: Place, rows_per_shard: int, summary: PlanSummary
) -> None:
    """Write matched chunks, in order, as a plan; `summary` is filled in on the way."""
    with (
        place.writing(PLAN) as path,
        pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer,
    ):
        for group in _regroup(_counted(tables, summary), rows_per_shard):
            writer.write_table(group, row_group_size=rows_per_shard)


def _counted(tables: Iterable[pa.Table], summary: PlanSummary) -> Iterator[pa.Table]:
    for table in tables:
        summary.count(table)
        yield table


def _regroup(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size` rows, the last one excepted."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count < size:
            continue
        joined = pa.concat_tables(waiting)
        full = count - count % size
        for start in range(0, full, size):
            yield joined.slice(start, size).combine_chunks()
        waiting, count = [joined.slice(full)], count - full
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def shard_count(place: Place) -> int:
    """How many shards the plan at a place has."""
    with _open(place) as plan:
        return plan.metadata.num_row_groups


def read_shard_plan(place: Place, number: int) -> pa.Table:
    """The rows of one shard, as `SCHEMA` has them."""
    with _open(place) as plan:
        return plan.read_row_group(number)


@contextmanager
def _open(place: Place) -> Iterator[pq.ParquetFile]:
    try:
        with place.open(PLAN) as stream:
            yield pq.ParquetFile(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{place}/{PLAN} cannot be read ({error}): remove it and run again"
        ) from error
