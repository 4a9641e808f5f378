"""The tables of a data set, read as input that anyone may have written.

Arrow checks little of what it reads: here a table has the columns it should have, text that is
UTF-8, no gaps where there may be none, and lists that belong together.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ovseg.data.dataset.parquet_pages import unpacked_bytes
from ovseg.data.streams import LEAST_READ, TIMES_READ
from ovseg.errors import DataError

# All that Arrow raises of damaged files: its own errors, Python's behind them, and what a
# claimed size does.
FAULTS = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError)
_GAPS = frozenset({"member_offset", "member_size", "offset", "size", "width", "height"})
_PARALLEL = ("entities", "starts", "ends")


@contextmanager
def damage_told(where: str, advice: str = "") -> Iterator[None]:
    """Turn what Arrow raises into one line: where, why, and what to do about it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except FAULTS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        told = f"{where} is damaged ({reason})"
        raise DataError(f"{told}: {advice}" if advice else told) from error


def require_proportion(
    table: pq.ParquetFile, stream: BinaryIO, groups: Iterable[int] | None = None
) -> None:
    """ValueError where these row groups, or all, unpack to far more than their file has.

    By what the end of the file says of them, and by what their pages say, which Arrow follows.
    """
    numbers = list(range(table.metadata.num_row_groups) if groups is None else groups)
    told = sum(table.metadata.row_group(number).total_byte_size for number in numbers)
    size = stream.seek(0, os.SEEK_END)
    for unpacked in (told, unpacked_bytes(table.metadata, stream, numbers)):
        if unpacked < 0 or unpacked > max(TIMES_READ * size, LEAST_READ):
            raise ValueError(f"it unpacks from {size:,} bytes to {unpacked:,}")


def read_columns(stream: BinaryIO, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, checked; errors of `FAULTS`."""
    table = pq.ParquetFile(stream)
    require_proportion(table, stream)
    return checked(table.read(columns=schema.names), schema)


def checked(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with exactly the columns of `schema`, in its order; ValueError if it is not sound."""
    for name in schema.names:
        found = table.schema.get_all_field_indices(name)
        if len(found) != 1:
            raise ValueError(f"{len(found)} columns called {name}")
    table = table.select(schema.names).cast(schema)
    table.validate(full=True)
    for name in schema.names:
        if name not in _GAPS and table[name].null_count:
            raise ValueError(f"{name} has gaps")
    lists = [pa.compute.list_value_length(table[n]) for n in _PARALLEL if n in schema.names]
    if any(not lengths.equals(lists[0]) for lengths in lists):
        raise ValueError("entities, starts and ends are of different lengths")
    return table


def rows_of(file: pq.ParquetFile, schema: pa.Schema) -> Callable[[int], pa.Table]:
    """Takes the next rows of a table, as many as asked for or as there are, checked."""
    batches = file.iter_batches(columns=schema.names)
    left = schema.empty_table()

    def take(count: int) -> pa.Table:
        nonlocal left
        while left.num_rows < count and (batch := next(batches, None)) is not None:
            left = pa.concat_tables([left, checked(pa.Table.from_batches([batch]), schema)])
        taken, left = left.slice(0, count), left.slice(count)
        return taken

    return take


def require_entities(table: pa.Table, count: int) -> None:
    """ValueError where a row of a checked table names an entity beyond the first `count`."""
    numbers = pa.compute.list_flatten(table["entities"])
    if len(numbers) and pa.compute.max(numbers).as_py() >= count:
        raise ValueError("it names an entity that entities.toml does not have")
