"""The plan of a data set: the captions that name an entity, cut into shards.

`plan.parquet` has one row group per shard, so that any machine can build any shard from it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.data.dataset.parquet import checked, damage_told, require_proportion
from ovseg.data.store import Store
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
class Tally:
    """How many rows were read, and how many were set aside for which reason."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count rows that were read and cannot be used."""
        if count:
            self.read += count
            self.dropped[reason] += count

    def __iadd__(self, other: "Tally") -> "Tally":
        self.read += other.read
        self.dropped.update(other.dropped)
        return self


@dataclass
class PlanSummary:
    """What went into a plan; `captions` counts, per entity number, the captions that name it.

    `images` counts rows whose image is not that of the row before; a plan that was read has none.
    """

    tally: Tally = field(default_factory=Tally)
    rows: int = 0
    captions: Counter[int] = field(default_factory=Counter)
    images: int = 0

    def count(self, table: pa.Table) -> None:
        """Take in the rows of a table with the columns of `SCHEMA`."""
        self.rows += table.num_rows
        places = pl.DataFrame(pl.from_arrow(table.select(["locator", "member_offset"])))
        self.images += places.select(pl.struct(pl.all()).rle_id()).to_series().n_unique()
        named = pl.DataFrame(pl.from_arrow(table.select(["entities"])))["entities"]
        each = named.list.unique().explode().drop_nulls()
        self.captions.update(dict(each.value_counts().iter_rows()))


def write_plan(
    tables: Iterable[pa.Table], store: Store, rows_per_shard: int, summary: PlanSummary
) -> None:
    """Write matched chunks, in order, as a plan; `summary` is filled in on the way."""
    with (
        store.writing(PLAN) as path,
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


def shard_count(store: Store) -> int:
    """How many shards the plan at a place has."""
    with _open(store) as (_, plan):
        return plan.metadata.num_row_groups


def read_shard_plan(store: Store, number: int) -> pa.Table:
    """The rows of one shard, as `SCHEMA` has them."""
    with _open(store) as (stream, plan):
        require_proportion(plan, stream, [number])
        return checked(plan.read_row_group(number, columns=SCHEMA.names), SCHEMA)


@contextmanager
def _open(store: Store) -> Iterator[tuple[BinaryIO, pq.ParquetFile]]:
    where = f"{store}/{PLAN}"
    try:
        with damage_told(where, "remove it and run again"), store.open(PLAN) as stream:
            yield stream, pq.ParquetFile(stream)
    except FileNotFoundError as error:
        raise DataError(f"{where} does not exist: run the build again") from error
